"""Training trajectories: token trends, double descent, text from between two models, perplexity as a predictor."""

from ntkft.trajectories.behaviour import PerplexityFit, SizeEffect, perplexity_predicts, training_flops
from ntkft.trajectories.descent import TOLERANCE, DoubleDescent, double_descent
from ntkft.trajectories.generation import Generated, generate
from ntkft.trajectories.interpolation import Interpolated, interpolate, total_variation
from ntkft.trajectories.likelihood import every_token, option_scores, token_log_likelihoods
from ntkft.trajectories.trends import BAND, LEVEL, TRENDS, TokenTrends, first_checkpoint, group_curves, token_trends

__all__ = [
    "BAND",
    "LEVEL",
    "TOLERANCE",
    "TRENDS",
    "DoubleDescent",
    "Generated",
    "Interpolated",
    "PerplexityFit",
    "SizeEffect",
    "TokenTrends",
    "double_descent",
    "every_token",
    "first_checkpoint",
    "generate",
    "group_curves",
    "interpolate",
    "option_scores",
    "perplexity_predicts",
    "token_log_likelihoods",
    "token_trends",
    "total_variation",
    "training_flops",
]
