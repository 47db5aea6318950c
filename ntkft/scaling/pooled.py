"""Curves of many models fitted together: one exponent for all, a level and a knee for each.

    log L_i(D) = a_i − log(1 + (D/K_i)^β),        β shared by all models, a_i and K_i of their own

It is the rectified law with E = 0 and D_l = K_i^β. What is pooled and what is left out follows from what a small budget
can and cannot say:

- Below the knee a curve bends downward, and how much it will bend is what a line (Accept-then-Stop) cannot know and
  four free parameters cannot learn from a few points. The bend of thirty models together can: it is β. Two numbers a
  model are left, as for a line.
- The floor E shows itself beyond the knee only. Fitted below it, it takes up whatever the law gets wrong and turns the
  extrapolation of every model to a common floor, so that models can no longer be told apart: that, not the noise, is
  why the least-squares rectified law selects badly. Without it predictions are low once E matters; the order is not.
- Only the last w points of a curve are used, for the law is no better than a local one far below its knee. The point at
  D = 0 stands apart: the first two hundred examples teach the format of the task, which no law has.

The error of an extrapolation is measured, not derived: at each smaller budget the same fit is made and judged by points
that the true budget already shows. A wrong bend moves a prediction by the square of the distance in log D, so errors
are divided by that square, and their quantile, times the square of the distance to the target, is the interval.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import index
from typing import SupportsFloat, SupportsIndex, cast

import numpy as np
from jaxtyping import Float
from scipy.optimize import OptimizeResult, minimize_scalar

from ntkft._errors import InputError, refuse
from ntkft.scaling.curves import LossCurve

POINTS = 3
"""w: as many as Accept-then-Stop keeps at least, and one more than the two numbers that each model has."""
_EXPONENTS = (0.05, 2.0)
"""Between them β is sought: a curve of β = 0.05 is straight, one of β = 2 falls off a cliff."""
_GRID = 161
_REACH = 25.0
"""The knee is sought where z = β·log(D_m/K) is within ± this: beyond, the curve is flat or a pure power law."""


@dataclass(frozen=True, eq=False)
class PooledFit:
    """Fit of all models.

    beta: the shared exponent; level, log_knee: `[models]` a_i and log K_i (the knee far outside the data where a curve
    is flat or straight); rss: sum of squared log residuals over all models; points: of each curve that were used;
    identified: False where β came to an end of the range, which is when curves do not bend or there is too little data
    """

    names: tuple[str, ...]
    beta: float
    level: Float[np.ndarray, " models"]
    log_knee: Float[np.ndarray, " models"]
    rss: float
    points: int
    identified: bool

    def at(self, size: float) -> Float[np.ndarray, " models"]:
        """Predicted losses at `size` > 0 examples."""
        return np.exp(self.level - np.logaddexp(0.0, self.beta * (np.log(size) - self.log_knee)))


@dataclass(frozen=True, eq=False)
class PooledPrediction:
    """Losses at `size` with central intervals; low and high are None where the budget leaves nothing to judge by."""

    fit: PooledFit
    size: float
    losses: Float[np.ndarray, " models"]
    level: float
    low: Float[np.ndarray, " models"] | None
    high: Float[np.ndarray, " models"] | None


def fit_pooled(curves: Sequence[LossCurve], *, points: SupportsIndex = POINTS) -> PooledFit:
    """Least squares of log L over the last `points` points of every curve, D > 0; curves may have different sizes.

    For a given β the models are separate, a_i has a closed form and K_i is a search in one dimension, all models at
    once; β is the minimum of what is left. Cost: about 60 such searches; 0.1 s for thirty models.

    Raises `InputError` for no curves, points < 3, or a curve with fewer points than that.
    """
    last = index(points)
    tuned = [curve.fine_tuned for curve in curves]
    refuse(
        "fit_pooled",
        (["got no curves"] if not tuned else [])
        + ([f"points is {last}; wanted at least 3, one more than each model has numbers"] if last < 3 else [])
        + [
            f"{curve.name} has {len(curve.sizes)} points with D > 0; wanted at least {last}: raise the budget"
            for curve in tuned
            if len(curve.sizes) < last
        ],
    )
    x = np.log([curve.sizes[-last:] for curve in tuned])
    y = np.log([curve.losses[-last:] for curve in tuned])
    lowest, highest = np.log(_EXPONENTS)
    grid = np.linspace(lowest, highest, 38)
    costs = [_fit_models(x, y, np.exp(value))[0].sum() for value in grid]
    best = int(np.argmin(costs))
    around = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    found = cast(  # SciPy has no types of its own, and what is inferred for it depends on what else is read
        OptimizeResult,
        minimize_scalar(
            lambda value: _fit_models(x, y, np.exp(value))[0].sum(),
            bounds=around,
            method="bounded",
            options={"xatol": 1e-6},
        ),
    )
    beta = float(np.exp(found.x if found.fun < costs[best] else grid[best]))
    rss, level, log_knee = _fit_models(x, y, beta)
    inside = 0 < best < len(grid) - 1
    return PooledFit(tuple(curve.name for curve in tuned), beta, level, log_knee, float(rss.sum()), last, inside)


def predict_pooled(
    curves: Sequence[LossCurve], size: SupportsFloat, *, level: SupportsFloat, points: SupportsIndex = POINTS
) -> PooledPrediction:
    """Losses at `size` examples, with intervals of probability `level` from what the curves' own last points show.

    For every r ≥ 1 the last r points of each curve are hidden, the rest is fitted together, and every hidden point is
    an error e at the distance h = log D − log(last size fitted). The half-width at the target is its own distance
    squared times the `level`-quantile of |e|/(h + h₀)², h₀ the last step between sizes: an error of one step stays one
    of size, not zero. It says how far predictions are off, and far more than how far their order is. Errors of one
    table's models go together: of the losses in the two published tables 90 % intervals hold 92 % on average over
    seven budgets, and between 20 % and all of them at any one.

    Cost: one pooled fit for each r. Raises `InputError` as `fit_pooled`, for a size that is not above zero, and for a
    level outside (0, 1).
    """
    target, share = float(size), float(level)
    if not 0 < target < np.inf or not 0 < share < 1:
        raise InputError(f"predict_pooled: got size {target:g}, level {share:g}; wanted size > 0 and 0 < level < 1")
    tuned = [curve.fine_tuned for curve in curves]
    fit = fit_pooled(tuned, points=points)
    losses = fit.at(target)
    errors = [_hidden_errors(tuned, hidden, fit.points) for hidden in range(1, _shortest(tuned) - fit.points + 1)]
    if not errors:
        return PooledPrediction(fit, target, losses, share, None, None)
    rate = float(np.quantile(np.concatenate(errors), share))
    half = np.array([rate * _distance(curve, len(curve.sizes), target) for curve in tuned])
    return PooledPrediction(fit, target, losses, share, losses * np.exp(-half), losses * np.exp(half))


def _fit_models(x: np.ndarray, y: np.ndarray, beta: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Squared residuals, levels and log knees `[models]` for one β: a grid of knees, then golden section around it."""
    grid = np.linspace(-_REACH, _REACH, _GRID)
    best = np.argmin(_profile(x, y, beta, grid[:, None])[0], axis=0)
    low, high = grid[np.maximum(best - 1, 0)], grid[np.minimum(best + 1, _GRID - 1)]
    ratio = (np.sqrt(5) - 1) / 2
    for _ in range(40):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        costs = _profile(x, y, beta, np.stack([left, right]))[0]
        lower = costs[0] < costs[1]
        low, high = np.where(lower, low, left), np.where(lower, right, high)
    position = (low + high) / 2
    cost, level = _profile(x, y, beta, position)
    return cost, level, x[:, -1] - position / beta


def _profile(x: np.ndarray, y: np.ndarray, beta: float, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared residuals and best levels `[..., models]` where β·log(D_m/K) is `position` `[..., models or 1]`."""
    z = beta * (x - x[:, -1:]) + position[..., None]
    above = y + np.logaddexp(0.0, z)
    level = above.mean(axis=-1)
    return np.sum((above - level[..., None]) ** 2, axis=-1), level


def _hidden_errors(curves: Sequence[LossCurve], hidden: int, points: int) -> np.ndarray:
    """|log error| of every one of the last `hidden` points, over its distance squared."""
    shown = [LossCurve(curve.name, curve.sizes[:-hidden], curve.losses[:-hidden]) for curve in curves]
    fit = fit_pooled(shown, points=points)
    errors = []
    for model, curve in enumerate(curves):
        for position in range(len(curve.sizes) - hidden, len(curve.sizes)):
            off = np.log(curve.losses[position]) - np.log(fit.at(curve.sizes[position])[model])
            errors.append(abs(off) / _distance(curve, len(curve.sizes) - hidden, curve.sizes[position]))
    return np.array(errors)


def _distance(curve: LossCurve, used: int, size: float) -> float:
    """(h + h₀)²: h from the last of the `used` sizes to `size`, h₀ the step before it, in log D."""
    last, before = np.log(curve.sizes[used - 1]), np.log(curve.sizes[used - 2])
    return float(max(np.log(size) - last, 0.0) + last - before) ** 2


def _shortest(curves: Sequence[LossCurve]) -> int:
    return min(len(curve.sizes) for curve in curves)
