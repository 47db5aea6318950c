"""Figures, one function each: records in, a matplotlib figure out; nothing is computed here."""

from ntkft.plots.learning import learning_curve, risk_over_epochs, risk_over_n
from ntkft.plots.ranking import ranking
from ntkft.plots.spectra import eigenvalue_decay, group_spectra, target_alignment
from ntkft.plots.style import about, png, save
from ntkft.plots.taskvectors import task_addition, task_cosines

__all__ = [
    "about",
    "eigenvalue_decay",
    "group_spectra",
    "learning_curve",
    "png",
    "ranking",
    "risk_over_epochs",
    "risk_over_n",
    "save",
    "target_alignment",
    "task_addition",
    "task_cosines",
]
