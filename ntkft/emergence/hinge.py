"""The hinge g(L) = a·max(η − L, 0), a ≥ 0: chance above the loss η, rising in a line below it.

For a given η the slope is closed form, a = Σ h y / Σ h² with h = max(η − L, 0), and the residual sum of squares is
Σ y² − (Σ h y)²/Σ h². Between two neighbouring losses the points below η do not change, and the sum of squares has at
most one minimum: where η is the zero of the least-squares line through those points. So the exact minimum over η is
among the losses themselves and these zeros; the profile needs no grid.

Source: Du et al. 2024, §4 (the form; they read η off plots and fit nothing).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num

from ntkft._errors import InputError
from ntkft._types import Array
from ntkft.emergence.points import checked_points


@dataclass(frozen=True)
class Hinge:
    """score(L) = slope·max(eta − L, 0); eta: η, in the unit of the loss; slope: a ≥ 0; rss: Σ (residual)²."""

    eta: float
    slope: float
    rss: float

    def at(self, losses: Num[Array, "..."]) -> Float[np.ndarray, "..."]:
        """The hinge at these losses."""
        return self.slope * np.maximum(self.eta - np.asarray(losses, np.float64), 0.0)


def fit_hinge(losses: Num[Array, "..."], scores: Num[Array, "..."], *, within: tuple[float, float]) -> Hinge | None:
    """Least squares over slopes a ≥ 0 and η in `within` = (low, high), both included; None where no slope helps.

    losses, scores: `[n]`, chance at 0, higher is better. The minimum is exact. Cost: n log n. Raises `InputError` for
    a range that is empty or has no loss below its end, and as `checked_points` does.
    """
    x, y = checked_points("fit_hinge", losses, scores)
    low, high = within
    if not x[0] < high or not low <= high:
        raise InputError(
            f"fit_hinge: within is ({low:g}, {high:g}); wanted low ≤ high, and losses below it (they begin at {x[0]:g})"
        )
    eta = float(best_eta(x, y, np.ones((1, len(x))), within)[0])
    if np.isnan(eta):
        return None
    h = np.maximum(eta - x, 0.0)
    slope = float(h @ y / (h @ h))
    return Hinge(eta, slope, float(np.sum((y - slope * h) ** 2)))


def best_eta(
    x: Float[np.ndarray, " n"],
    y: Float[np.ndarray, " n"],
    weights: Float[np.ndarray, "draws n"],
    within: tuple[float, float],
) -> Float[np.ndarray, " draws"]:
    """η of the weighted least-squares hinge for each row of weights; NaN where no slope above 0 helps.

    x: ascending. A bootstrap's weights are how often it drew each point. Cost: draws·n.
    """
    low, high = within
    knots = np.unique(np.concatenate([[low, high], x[(x > low) & (x < high)]]))
    centre = x.mean()
    x, places = x - centre, knots - centre
    # Sums over the points at or below each knot: of 1, x, x², y and x·y.
    below = np.searchsorted(x, places, side="right")
    sums = np.cumsum(weights[None] * np.stack([np.ones_like(x), x, x**2, y, x * y])[:, None], axis=2)
    sums = np.concatenate([np.zeros_like(sums[:, :, :1]), sums], axis=2)[:, :, below]
    one, first, second, value, product = sums
    with np.errstate(divide="ignore", invalid="ignore"):
        determinant = one * second - first**2
        zero = (second * value - first * product) / (first * value - one * product)
        usable = (determinant > 0) & (zero > places) & (zero < np.append(places[1:], places[-1]))
    candidates = np.concatenate([np.broadcast_to(places, one.shape), np.where(usable, zero, places)], axis=1)
    one, first, second, value, product = np.concatenate([sums, sums], axis=2)
    along = candidates * value - product
    squared = candidates**2 * one - 2 * candidates * first + second
    # What is left of cancelling sums is no square: a row of weights may have no point below a knot.
    sound = squared > 1e-12 * np.maximum(second, 1e-300)
    gain = np.where(sound & (along > 0), along**2 / np.where(sound, squared, 1.0), 0.0)
    chosen = np.argmax(gain, axis=1)[:, None]
    # A knot comes back as the very number that it was, so that an η at an end of the range is known by it.
    etas = np.concatenate([np.broadcast_to(knots, usable.shape), candidates[:, len(knots) :] + centre], axis=1)
    found = np.take_along_axis(np.where(gain > 0, etas, np.nan), chosen, axis=1)
    return found[:, 0]
