"""What `pooled` leaves out, put back one at a time: its own fit with another choice in one place.

All are least squares of log L_i(D) = a_i + log[e_i + (1 − e_i)/(1 + (D/K_i)^β_i)] over the last points of every curve.
`pooled` has one β and no floor. A floor is either the model's own share e_i, or one loss E for all models, when the law
without a floor is fitted to L − E and residuals weigh 1 − E/L, which makes them those of log L to first order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from ntkft.scaling import LossCurve


@dataclass(frozen=True)
class Variant:
    """Which numbers are shared by the models, which are their own, and which are left out."""

    exponent: Literal["shared", "own", "none"] = "shared"
    floor: Literal["none", "own", "shared"] = "none"
    zero_shot: bool = False


VARIANTS = {
    "pooled": Variant(),
    "no bend: a line each": Variant(exponent="none"),
    "own exponents": Variant(exponent="own"),
    "own floors": Variant(floor="own"),
    "one floor": Variant(floor="shared"),
    "D = 0 included": Variant(zero_shot=True),
}

_LOG_EXPONENTS = np.linspace(np.log(0.05), np.log(2.0), 16)
_KNEES = np.linspace(-25.0, 25.0, 51)
"""z = β·log(D_m/K) at the last size fitted."""
_LOGITS = np.linspace(-12.0, 12.0, 13)
_FLOORS = np.linspace(0.0, 0.98, 15)
"""Of the lowest loss."""
_ROUNDS = 60


def predict(variant: Variant, curves: Sequence[LossCurve], size: float, points: int) -> np.ndarray:
    """Losses at `size` examples `[models]`, from the last `points` sizes of every curve (and D = 0, for one variant).

    Shared numbers are searched on a grid, then by Nelder and Mead; each model's own on a grid that is halved around
    its best point. Cost: about half a second for thirty models.
    """
    rows = [_used(curve, points, zero_shot=variant.zero_shot) for curve in curves]
    with np.errstate(divide="ignore"):
        x = np.log([sizes for sizes, _ in rows])
    losses = np.array([values for _, values in rows])
    if variant.exponent == "none":
        lines = [np.polyfit(*each, 1) for each in zip(x, np.log(losses), strict=True)]
        return np.exp([intercept + slope * np.log(size) for slope, intercept in lines])

    def fitted(shared: Sequence[float]) -> tuple[float, np.ndarray]:
        """Sum of squares, and predictions, given log β (if shared) and E (if shared)."""
        left = list(shared)
        log_beta = left.pop(0) if variant.exponent == "shared" else None
        floor = left.pop(0) * losses.min() if variant.floor == "shared" else 0.0
        cost, above = _models(x, losses - floor, 1 - floor / losses, variant, log_beta, np.log(size))
        return cost, floor + above

    axes = ([_LOG_EXPONENTS] if variant.exponent == "shared" else []) + ([_FLOORS] if variant.floor == "shared" else [])
    if not axes:
        return fitted(())[1]
    start = min(product(*axes), key=lambda shared: fitted(shared)[0])
    steps = np.diag([axis[1] - axis[0] for axis in axes])
    simplex = np.clip([start, *(start + steps)], *np.array([[axis[0], axis[-1]] for axis in axes]).T)
    found = minimize(
        lambda shared: fitted(shared)[0],
        start,
        method="Nelder-Mead",
        bounds=[(axis[0], axis[-1]) for axis in axes],
        options={"initial_simplex": simplex, "xatol": 1e-4, "fatol": 1e-9},
    )
    return fitted(found.x)[1]


def _used(curve: LossCurve, points: int, *, zero_shot: bool) -> tuple[np.ndarray, np.ndarray]:
    tuned = curve.fine_tuned
    kept = np.isin(curve.sizes, tuned.sizes[-points:]) | (zero_shot & (curve.sizes == 0))
    return curve.sizes[kept], curve.losses[kept]


def _models(
    x: np.ndarray, losses: np.ndarray, weights: np.ndarray, variant: Variant, log_beta: float | None, target: float
) -> tuple[float, np.ndarray]:
    """Sum of squares over all models at their own best numbers, and the losses at log size `target`."""
    y, last = np.log(losses), x[:, -1:]
    axes = [_KNEES] + ([_LOG_EXPONENTS] if log_beta is None else []) + ([_LOGITS] if variant.floor == "own" else [])

    def log_share(own: np.ndarray, distance: np.ndarray) -> np.ndarray:
        """`[models, tried, points]` from own numbers `[models, tried, c]` and log D − log D_m `[models, points]`."""
        beta = np.exp(log_beta if log_beta is not None else own[..., 1, None])
        z = beta * distance[:, None] + own[..., 0, None]
        floor = expit(own[..., -1, None]) if variant.floor == "own" else 0.0
        return np.log(floor + (1 - floor) * expit(-z))

    def level(own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The best a_i, and the sum of squares, `[models, tried]`."""
        above, weight = y[:, None] - log_share(own, x - last), weights[:, None] ** 2
        mean = np.sum(weight * above, axis=2) / np.sum(weight, axis=2)
        return mean, np.sum(weight * (above - mean[..., None]) ** 2, axis=2)

    best = _least(lambda own: level(own)[1], axes, len(x))[:, None]
    mean, cost = level(best)
    return float(cost.sum()), np.exp(mean + log_share(best, target - last)[..., 0])[:, 0]


def _least(cost: Callable[[np.ndarray], np.ndarray], axes: Sequence[np.ndarray], models: int) -> np.ndarray:
    """For each model the point of the grid of least cost, moved while a step helps and by half a step where none does.

    `[models, c]`. Own numbers are strongly coupled, so that the way down is a narrow valley: steps shrink in its bed
    only, and each model has its own.
    """
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
    low, high = grid.min(axis=0), grid.max(axis=0)
    best = grid[np.argmin(cost(np.broadcast_to(grid, (models, *grid.shape))), axis=1)]
    around = np.array(sorted(product(np.linspace(-1, 1, 5), repeat=len(axes)), key=np.linalg.norm))  # no step first
    step = np.tile([axis[1] - axis[0] for axis in axes], (models, 1))
    for _ in range(_ROUNDS):
        tried = np.clip(best[:, None] + step[:, None] * around, low, high)
        chosen = np.argmin(cost(tried), axis=1)
        best = tried[np.arange(models), chosen]
        step[chosen == 0] /= 2
    return best
