"""Is there a loss below which the ability appears? The hinge beside the line, and when the hinge may be believed.

A hinge whose η lies beyond the data is a line, and η is searched: on straight lines that happen to reach chance near
the largest loss the hinge has the lower AIC in up to 3 cases of 10. So a threshold is only claimed when four things
hold together:

1. there is a convex kink. Adding max(e − L, 0) to a line of two free coefficients must reduce the residuals, at the
   best of many e, more than it does on lines. What is left after projecting the line out does not depend on the line,
   so for equal Gaussian errors the distribution of that maximum is known exactly (Davies 1987's problem; here by
   simulation at the very same losses), and a straight line of any slope and height is taken for a kink with
   probability `SIGNIFICANCE`;
2. AIC(line) − AIC(hinge) > 0: the kink ends at chance and stays there, as a hinge must. A line through chance inside
   the data fails here;
3. η is strictly inside the losses, with `EACH_SIDE` distinct losses on either side of it, and its interval is narrower
   than their range;
4. a smooth fall to chance, k e^{−γL}, which is convex too and has no threshold, is not better by `SMOOTH` or more:
   `delta_aic_exponential`.
"""

from dataclasses import dataclass
from operator import index
from typing import Literal, SupportsFloat, SupportsIndex, TypeAlias

import numpy as np
import scipy.stats
from jaxtyping import Float, Num

from ntkft._errors import refuse
from ntkft._types import Array
from ntkft.emergence.exponential import Exponential, fit_decline
from ntkft.emergence.hinge import Hinge, best_eta, fit_hinge
from ntkft.emergence.points import checked_points

Status: TypeAlias = Literal[
    "threshold", "no threshold: a line does as well", "no threshold: a smooth curve does better", "not identified"
]

EACH_SIDE = 3
"""Distinct losses on either side of η, fewer of which show neither a slope nor a floor."""
SIGNIFICANCE = 0.02
"""Of the kink. Not 0.05, at which 200 lines give more than 5 % of claims every third time, although the rate is 5 %."""
SMOOTH = 2.0
"""By how much the AIC of the smooth curve must be lower to rule a threshold out: the usual bound of a difference."""


@dataclass(frozen=True)
class Line:
    """score(L) = intercept + slope·L; rss: Σ (residual)²."""

    intercept: float
    slope: float
    rss: float

    def at(self, losses: Num[Array, "..."]) -> Float[np.ndarray, "..."]:
        """The line at these losses."""
        return self.intercept + self.slope * np.asarray(losses, np.float64)


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """What the points say about a threshold of the loss. Numbers that are not identified are None.

    status, reason:        what was found, and the whole sentence
    eta, interval, level:  η and its interval; None unless the status is "threshold"
    delta_aic:             AIC(line) − AIC(hinge), above 0 for the hinge. Both have two coefficients and a variance, so
                           it is n log(RSS_line/RSS_hinge). Alone it is no test: see the top of this file
    delta_aic_exponential: AIC(k e^{−γL}) − AIC(hinge), counted alike; below 0 a smooth curve describes the points
                           better than the hinge does
    p_value:               of the kink, under a straight line
    spearman:              rank correlation of loss and score
    n:                     points
    hinge, line, smooth:   the least-squares fits, whether believed or not
    """

    status: Status
    reason: str
    eta: float | None = None
    interval: tuple[float, float] | None = None
    level: float
    delta_aic: float | None = None
    delta_aic_exponential: float | None = None
    p_value: float | None = None
    spearman: float | None
    n: int
    hinge: Hinge | None = None
    line: Line | None = None
    smooth: Exponential | None = None


def find_threshold(
    losses: Num[Array, "..."],
    scores: Num[Array, "..."],
    *,
    level: SupportsFloat,
    draws: SupportsIndex,
    seed: SupportsIndex,
) -> Threshold:
    """Fit hinge and line, compare them, and give η an interval where a threshold may be claimed.

    losses, scores: `[n]`, one of each for every model; higher scores are better and chance is 0 (`chance_normalised`).
    The models must be comparable by their loss: one validation text, one training corpus. Never pool corpora.
    level:  of the interval η̂ ± t_{n−2}·(standard deviation of η̂ over samples of the models with replacement). That
            does not take the errors for equal: a score at chance scatters less than one above it.
    draws:  bootstrap samples, and simulated lines for the p-value, whose smallest value is 1/(draws + 1).

    Cost: draws·n². Raises `InputError` for a level outside (0, 1), fewer than 100 draws, and as `checked_points` does;
    points that are fine but too few to tell have the status "not identified".
    """
    x, y = checked_points("find_threshold", losses, scores)
    share, repeats = float(level), index(draws)
    refuse(
        "find_threshold",
        ([f"level is {share:g}; wanted a share between 0 and 1, such as 0.95"] if not 0 < share < 1 else [])
        + ([f"draws is {repeats}; wanted at least 100"] if repeats < 100 else []),
    )
    distinct, generator = np.unique(x), np.random.default_rng(index(seed))
    if len(distinct) < 2 * EACH_SIDE:
        reason = (
            f"{len(x)} points with {len(distinct)} distinct losses; "
            f"wanted at least {2 * EACH_SIDE}, {EACH_SIDE} on either side of a threshold"
        )
        return _not_identified(x, y, share, reason)
    if np.ptp(y) == 0:
        return _not_identified(x, y, share, "the scores are all the same")

    within = (float(distinct[EACH_SIDE - 1]), float(distinct[-EACH_SIDE]))
    line, smooth, hinge = _fit_line(x, y), fit_decline(x, y), fit_hinge(x, y, within=within)
    hinge_rss = float(y @ y) if hinge is None else hinge.rss
    delta_aic, over_smooth = (_delta_aic(rss, hinge_rss, y) for rss in (line.rss, smooth.rss))
    exact = line.rss <= _rounding(y)
    p_value = 1.0 if exact else _kink_p_value(x, y, within, repeats, generator)
    status, reason = _judge(hinge, within, delta_aic, over_smooth, p_value)
    eta = interval = None
    if hinge is not None and status == "threshold":
        low, high = _interval(x, y, hinge.eta, within, share, repeats, generator)
        if high - low < np.ptp(x):
            eta, interval = hinge.eta, (low, high)
        else:
            status, reason = (
                "not identified",
                (
                    f"the score bends, but the interval of η, {low:.3g} … {high:.3g}, is as wide as the losses; "
                    "add models near the best of these"
                ),
            )
    return Threshold(
        status=status,
        reason=reason,
        eta=eta,
        interval=interval,
        level=share,
        delta_aic=delta_aic,
        delta_aic_exponential=over_smooth,
        p_value=p_value,
        spearman=_spearman(x, y),
        n=len(x),
        hinge=hinge,
        line=line,
        smooth=smooth,
    )


def _judge(
    hinge: Hinge | None, within: tuple[float, float], delta_aic: float, over_smooth: float, p_value: float
) -> tuple[Status, str]:
    numbers = f"AIC(line) − AIC(hinge) = {delta_aic:.1f}, p = {p_value:.2g} for a kink"
    if hinge is None or delta_aic <= 0 or p_value > SIGNIFICANCE:
        return "no threshold: a line does as well", f"no hinge is clearly better than a line: {numbers}"
    if over_smooth <= -SMOOTH:
        return "no threshold: a smooth curve does better", (
            f"the score bends as it falls to chance, and k e^(−γL) follows it better than a hinge: {numbers}, "
            f"AIC(exponential) − AIC(hinge) = {over_smooth:.1f}"
        )
    if not within[0] < hinge.eta < within[1]:
        return "not identified", (
            f"the best η, {hinge.eta:.4g}, is where {EACH_SIDE} losses on either side end; "
            f"add models with losses beyond it: {numbers}"
        )
    return "threshold", f"at chance above a loss of {hinge.eta:.4g}, better below it: {numbers}"


def _not_identified(x: np.ndarray, y: np.ndarray, level: float, reason: str) -> Threshold:
    return Threshold(status="not identified", reason=reason, level=level, spearman=_spearman(x, y), n=len(x))


def _spearman(x: np.ndarray, y: np.ndarray) -> float | None:
    """Two points have ±1 whatever they are, and equal numbers have no ranks: None."""
    if len(np.unique(x)) < 3 or np.ptp(y) == 0:
        return None
    return float(np.corrcoef(scipy.stats.rankdata(x), scipy.stats.rankdata(y))[0, 1])


def _fit_line(x: np.ndarray, y: np.ndarray) -> Line:
    centred = x - x.mean()
    slope = float(centred @ y / (centred @ centred))
    intercept = float(y.mean() - slope * x.mean())
    return Line(intercept, slope, float(np.sum((y - intercept - slope * x) ** 2)))


def _delta_aic(rss: float, hinge_rss: float, y: np.ndarray) -> float:
    """AIC(rival) − AIC(hinge) for as many coefficients; what is below rounding counts as rounding, so it is finite."""
    return len(y) * float(np.log(max(rss, _rounding(y)) / max(hinge_rss, _rounding(y))))


def _rounding(y: np.ndarray) -> float:
    """The RSS that an exact fit of y may leave."""
    return len(y) * np.finfo(np.float64).eps ** 2 * float(y @ y)


def _kink_p_value(
    x: np.ndarray, y: np.ndarray, within: tuple[float, float], draws: int, generator: np.random.Generator
) -> float:
    """P(largest correlation of a straight line's residuals with a convex kink ≥ that of these), simulated.

    Kinks at all losses in `within` and halfway between them.
    """
    inner = np.unique(x[(x >= within[0]) & (x <= within[1])])
    places = np.sort(np.concatenate([inner, (inner[1:] + inner[:-1]) / 2]))
    line = np.linalg.qr(np.stack([np.ones_like(x), x], axis=1))[0]

    def residuals(columns: np.ndarray) -> np.ndarray:
        left = columns - line @ (line.T @ columns)
        return left / np.linalg.norm(left, axis=0)

    kinks = residuals(np.maximum(places - x[:, None], 0.0))
    simulated = (kinks.T @ residuals(generator.standard_normal((len(x), draws)))).max(axis=0)
    observed = (kinks.T @ residuals(y[:, None])).max()
    return float((1 + np.sum(simulated >= observed)) / (draws + 1))


def _interval(
    x: np.ndarray, y: np.ndarray, eta: float, within: tuple[float, float], level: float, draws: int,
    generator: np.random.Generator,
) -> tuple[float, float]:  # fmt: skip
    """η̂ ± t·(standard deviation over bootstrap samples of the points)."""
    n = len(x)
    drawn = best_eta(x, y, generator.multinomial(n, np.full(n, 1 / n), size=draws).astype(np.float64), within)
    half = float(scipy.stats.t.ppf((1 + level) / 2, n - 2) * np.nanstd(drawn, ddof=1))
    return eta - half, eta + half
