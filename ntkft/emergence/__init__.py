"""Abilities by loss: scores with chance at zero, thresholds of the loss, rival curves, the size that reaches them."""

from ntkft.emergence.exponential import Exponential, fit_decline, fit_exponential
from ntkft.emergence.hinge import Hinge, fit_hinge
from ntkft.emergence.scores import brier_score, chance_normalised, correct_choice_probability
from ntkft.emergence.size import SizeLaw
from ntkft.emergence.threshold import Line, Status, Threshold, find_threshold

__all__ = [
    "Exponential",
    "Hinge",
    "Line",
    "SizeLaw",
    "Status",
    "Threshold",
    "brier_score",
    "chance_normalised",
    "correct_choice_probability",
    "find_threshold",
    "fit_decline",
    "fit_exponential",
    "fit_hinge",
]
