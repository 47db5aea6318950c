"""Training dynamics in closed form: spectral filters, predictions, stopping rules, risk over epochs and sample size."""

from ntkft.dynamics.bounds import RiskBounds, risk_bounds
from ntkft.dynamics.classification import accuracy, class_of, decide
from ntkft.dynamics.descent import kernel_descent
from ntkft.dynamics.filters import SpectralFilter, gradient_descent, gradient_flow, heavy_ball, ridge
from ntkft.dynamics.kernel_behaviour import KernelBehaviour, measure_kernel_behaviour
from ntkft.dynamics.minibatch import ExpectedError, MinibatchDescent, expected_error, minibatch_descent
from ntkft.dynamics.plug_ins import TargetNorm, estimate_noise, estimate_target_norm
from ntkft.dynamics.prediction import dual_coefficients, outputs_at, per_output
from ntkft.dynamics.risk import Interval, RiskSurface, nested_rows, over_seeds, predict_risk
from ntkft.dynamics.rules import Stops, rule_intervals, spectral_rules
from ntkft.dynamics.selection import BiasVariance, RiskCurve, bias_variance, gcv, holdout_curve, sure
from ntkft.dynamics.sign_descent import signed_descent
from ntkft.dynamics.solvers import (
    SHARES,
    AsymmetricMachine,
    asymmetric_machine,
    best_share,
    logistic_regression,
    ridge_regression,
)
from ntkft.dynamics.stopping import HoldoutStop, drift_stopping, holdout_stopping, krr_stopping, stopping_time

__all__ = [
    "SHARES",
    "AsymmetricMachine",
    "BiasVariance",
    "ExpectedError",
    "HoldoutStop",
    "Interval",
    "KernelBehaviour",
    "MinibatchDescent",
    "RiskBounds",
    "RiskCurve",
    "RiskSurface",
    "SpectralFilter",
    "Stops",
    "TargetNorm",
    "accuracy",
    "asymmetric_machine",
    "best_share",
    "bias_variance",
    "class_of",
    "decide",
    "drift_stopping",
    "dual_coefficients",
    "estimate_noise",
    "estimate_target_norm",
    "expected_error",
    "gcv",
    "gradient_descent",
    "gradient_flow",
    "heavy_ball",
    "holdout_curve",
    "holdout_stopping",
    "kernel_descent",
    "krr_stopping",
    "logistic_regression",
    "measure_kernel_behaviour",
    "minibatch_descent",
    "nested_rows",
    "outputs_at",
    "over_seeds",
    "per_output",
    "predict_risk",
    "ridge",
    "ridge_regression",
    "risk_bounds",
    "rule_intervals",
    "signed_descent",
    "spectral_rules",
    "stopping_time",
    "sure",
]
