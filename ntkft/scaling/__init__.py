"""Losses by training-set size: two laws, their fits, and which of several checkpoints to fine-tune."""

from ntkft.scaling.accept_then_stop import AcceptedLine as AcceptedLine, accept_then_stop as accept_then_stop
from ntkft.scaling.curves import LossCurve as LossCurve, loss_curve as loss_curve
from ntkft.scaling.fit import (
    Fit as Fit,
    FitInterval as FitInterval,
    bootstrap_fit as bootstrap_fit,
    fit_rectified as fit_rectified,
    fit_vanilla as fit_vanilla,
)
from ntkft.scaling.kernel_law import (
    KernelLawFit as KernelLawFit,
    fit_kernel_law as fit_kernel_law,
    residual_left as residual_left,
)
from ntkft.scaling.laws import Rectified as Rectified, Vanilla as Vanilla
from ntkft.scaling.pooled import (
    PooledFit as PooledFit,
    PooledPrediction as PooledPrediction,
    fit_pooled as fit_pooled,
    predict_pooled as predict_pooled,
)
from ntkft.scaling.selection import (
    SELECTORS as SELECTORS,
    Selection as Selection,
    pearson as pearson,
    relative_accuracy as relative_accuracy,
    select as select,
)
