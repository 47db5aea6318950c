"""Beyond the first-order kernel: how far it can be trusted, and predictions that start afresh where it cannot.

Read in this order: `path` (where the parameters go, and what the network says there), `prediction` (kernels computed
again at a few anchors along the way), `horizon` (until when the first kernel holds).
"""

from ntkft.anchoring.horizon import Horizon, trust_horizon
from ntkft.anchoring.path import Network
from ntkft.anchoring.prediction import AnchoredPrediction, predict_anchored

__all__ = ["AnchoredPrediction", "Horizon", "Network", "predict_anchored", "trust_horizon"]
