"""Training dynamics in closed form: spectral filters, predictions, stopping rules, risk over epochs and sample size."""

from ntkft.dynamics.bounds import RiskBounds, risk_bounds
from ntkft.dynamics.classification import accuracy, class_of, decide
from ntkft.dynamics.descent import kernel_descent
from ntkft.dynamics.filters import SpectralFilter, gradient_descent, gradient_flow, heavy_ball, ridge
from ntkft.dynamics.plug_ins import TargetNorm, estimate_noise, estimate_target_norm
from ntkft.dynamics.prediction import dual_coefficients, outputs_at, per_output
from ntkft.dynamics.risk import Interval, RiskSurface, over_seeds, predict_risk
from ntkft.dynamics.selection import BiasVariance, RiskCurve, bias_variance, gcv, holdout_curve, sure
from ntkft.dynamics.stopping import HoldoutStop, holdout_stopping, krr_stopping, stopping_time

__all__ = [
    "BiasVariance",
    "HoldoutStop",
    "Interval",
    "RiskBounds",
    "RiskCurve",
    "RiskSurface",
    "SpectralFilter",
    "TargetNorm",
    "accuracy",
    "bias_variance",
    "class_of",
    "decide",
    "dual_coefficients",
    "estimate_noise",
    "estimate_target_norm",
    "gcv",
    "gradient_descent",
    "gradient_flow",
    "heavy_ball",
    "holdout_curve",
    "holdout_stopping",
    "kernel_descent",
    "krr_stopping",
    "outputs_at",
    "over_seeds",
    "per_output",
    "predict_risk",
    "ridge",
    "risk_bounds",
    "stopping_time",
    "sure",
]
