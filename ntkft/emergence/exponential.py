"""Exponential laws between loss and score, which know no threshold: by variable projection.

Error on a mix of tasks follows err(L) = ε − k e^{−γL} closely (Gadre et al. 2024, eq. 5, with L the loss on one fixed
validation text). For a given γ the other coefficients are linear least squares; so only γ is searched, on a grid and
then between the two grid points around the best one. With ε = 0, that is a score k e^{−γL} which falls to chance and
never reaches it, the same search gives the smooth rival of a threshold.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num
from scipy.optimize import fminbound

from ntkft._errors import InputError
from ntkft._types import Array
from ntkft.emergence.points import checked_points

_GRID = np.geomspace(1e-3, 1e3, 241)
"""γ × (largest − smallest loss): from what cannot be told from a line to a fall between neighbouring points."""


@dataclass(frozen=True)
class Exponential:
    """value(L) = limit − depth·e^{−rate·(L − origin)} = limit − scale·e^{−rate·L}.

    limit: ε; depth: below the limit at the smallest loss, `origin`, where a steep curve does not overflow as it may at
    L = 0; rate: γ, per unit of loss; rss: Σ (residual)²; r_squared: 1 − RSS/TSS, TSS about the mean
    """

    limit: float
    depth: float
    origin: float
    rate: float
    rss: float
    r_squared: float

    @property
    def scale(self) -> float:
        """The k of ε − k e^{−γL}, depth·e^{rate·origin}; below 0 for what falls as the loss grows."""
        with np.errstate(over="ignore"):
            return float(self.depth * np.exp(self.rate * self.origin))

    def at(self, losses: Num[Array, "..."]) -> Float[np.ndarray, "..."]:
        """The curve at these losses."""
        return self.limit - self.depth * np.exp(-self.rate * (np.asarray(losses, np.float64) - self.origin))


def fit_exponential(losses: Num[Array, "..."], errors: Num[Array, "..."]) -> Exponential:
    """Least-squares err = ε − k e^{−γL}, γ > 0.

    losses, errors: `[n]`, one of each for every model. Pool no models whose losses are not comparable: the coefficients
    differ between training corpora. Cost: about 300 small least-squares problems. Raises `InputError` for fewer than
    four distinct losses, errors that are all the same, a γ that runs to an end of its range (the points lie on a line,
    or on a step), and as `checked_points` does.
    """
    x, y = checked_points("fit_exponential", losses, errors)
    if (distinct := len(np.unique(x))) < 4:
        raise InputError(f"fit_exponential: {distinct} distinct losses; wanted at least 4 for three coefficients")
    if np.ptp(y) == 0:
        raise InputError("fit_exponential: the errors are all the same; there is nothing to fit")
    found, inside = _project(x, y, constant=True)
    if not inside:
        raise InputError(
            f"fit_exponential: γ runs to {found.rate:.3g}, an end of its range; the points follow a line or a step, "
            "and no exponential is identified"
        )
    return found


def fit_decline(losses: Num[Array, "..."], scores: Num[Array, "..."]) -> Exponential:
    """Least-squares score = k e^{−γL} with γ ≥ 0, a smooth fall to chance; `limit` is 0, `scale` −k.

    For losses of two distinct values or more, as `checked_points` takes them; γ may lie at an end of its range.
    """
    x, y = checked_points("fit_decline", losses, scores)
    if np.ptp(x) == 0:
        raise InputError("fit_decline: the losses are all equal; wanted at least two")
    return _project(x, y, constant=False)[0]


def _project(x: np.ndarray, y: np.ndarray, *, constant: bool) -> tuple[Exponential, bool]:
    """The best curve, and whether its γ lies within the grid."""
    origin, width = x.min(), np.ptp(x)
    mean = y.mean() if constant else 0.0

    def solve(log_rates: np.ndarray | list[float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """RSS, limit, and coefficient of e^{−γ(L − origin)}, for each γ·width."""
        decay = np.exp(-np.exp(log_rates)[:, None] / width * (x - origin))
        level = decay.mean(1) if constant else np.zeros(len(decay))
        varying = decay - level[:, None]
        slope = varying @ (y - mean) / np.sum(varying**2, axis=1)
        limit = mean - slope * level
        return np.sum((y - limit[:, None] - slope[:, None] * decay) ** 2, axis=1), limit, slope

    grid = np.log(_GRID)
    best = int(np.argmin(solve(grid)[0]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    refined = fminbound(lambda log_rate: solve([log_rate])[0][0], low, high, xtol=1e-10, full_output=True)[0]
    candidates = np.array([float(refined), grid[best]])
    fits = solve(candidates)
    chosen = int(np.argmin(fits[0]))
    rss, limit, slope = (float(values[chosen]) for values in fits)
    rate = float(np.exp(candidates[chosen]) / width)
    tss = float(np.sum((y - y.mean()) ** 2))
    found = Exponential(
        limit=limit,
        depth=-slope,
        origin=float(origin),
        rate=rate,
        rss=rss,
        r_squared=1 - rss / tss if tss > 0 else 1.0,
    )
    return found, 0 < best < len(grid) - 1
