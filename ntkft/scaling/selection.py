"""Which of several checkpoints to fine-tune on all data, from what small training sets showed.

A selector scores every model from its losses at D ≤ budget; the lowest score is the model picked. The table `SELECTORS`
holds all of them, with one signature. Two metrics judge a selector against the true losses at the target size.

Source: Lin et al. 2024, §5 and Table 2; `pooled` is this project's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, SupportsFloat, TypeAlias

import numpy as np
from jaxtyping import Float

from ntkft._errors import InputError, refuse
from ntkft.scaling.accept_then_stop import accept_then_stop
from ntkft.scaling.curves import LossCurve
from ntkft.scaling.fit import fit_rectified, fit_vanilla
from ntkft.scaling.pooled import predict_pooled

Selector: TypeAlias = Literal["ats", "subtuning", "zeroshot", "size", "rectified", "vanilla", "pooled"]

INTERVAL_LEVEL = 0.9
"""Probability of the intervals that come with `pooled`; they play no part in the ranking."""


@dataclass(frozen=True, eq=False)
class Selection:
    """What a selector says.

    scores: of every model, lowest first picked; NaN where the curve does not determine one
    predicted: losses at the target; the scores themselves where these are losses, none for `size`
    interval: (low, high) of each predicted loss, for methods that have them
    ranking: names from the best to the worst, those without a score last
    """

    method: Selector
    budget: float
    target: float
    names: tuple[str, ...]
    scores: Float[np.ndarray, " models"]
    predicted: dict[str, float]
    interval: dict[str, tuple[float, float]]

    @property
    def ranking(self) -> list[str]:
        """Names, best first; models of equal score in the order of the table."""
        return [self.names[i] for i in np.argsort(self.scores, kind="stable")]  # NaN sorts last


def select(curves: Sequence[LossCurve], *, method: Selector, budget: SupportsFloat, target: SupportsFloat) -> Selection:
    """Score every model from its points with D ≤ `budget`, for fine-tuning on `target` examples.

        ats        line through the accepted points, extrapolated (`accept_then_stop`)
        subtuning  loss at the largest size within the budget
        zeroshot   loss at D = 0
        size       minus the logarithm of the number of parameters: larger is taken for better
        rectified  rectified law fitted to all points, D = 0 included, extrapolated
        vanilla    vanilla law fitted to the points with D > 0, extrapolated
        pooled     one exponent for all models, the last three points of each (`predict_pooled`)

    Cost: at most some fits a model, seconds for thirty. Raises one `InputError` for no curves, names that occur twice,
    a budget or target that is not above zero, and whatever a method needs and a curve lacks (a size, a loss at D = 0,
    points within the budget).
    """
    limit, size = float(budget), float(target)
    names = [curve.name for curve in curves]
    refuse(
        "select",
        (["got no curves"] if not curves else [])
        + [
            f"model {name!r} occurs twice; wanted one curve a model"
            for name in sorted({n for n in names if names.count(n) > 1})
        ]
        + (
            [f"got budget {limit:g} and target {size:g}; wanted both above zero"]
            if not (limit > 0 and size > 0)
            else []
        )
        + ([f"there is no method {method!r}; wanted one of {', '.join(SELECTORS)}"] if method not in SELECTORS else []),
    )
    scores, interval = SELECTORS[method]([curve.up_to(limit) for curve in curves], size)
    losses = {} if method == "size" else dict(zip(names, map(float, scores), strict=True))
    return Selection(method, limit, size, tuple(names), scores, losses, interval)


def pearson(scores: Float[np.ndarray, " models"], true_losses: Float[np.ndarray, " models"]) -> float:
    """PearCorr: correlation of scores (low is good) with true losses; 1 is a perfect selector.

    Where the published code scores model size by +log(size) its sign is turned round: here size, like every method,
    is oriented so that higher is better. NaN where scores or losses do not vary, or a model has no score.
    """
    if np.ptp(scores) == 0 or np.ptp(true_losses) == 0 or not np.all(np.isfinite(scores)):
        return float("nan")
    return float(np.corrcoef(scores, true_losses)[0, 1])


def relative_accuracy(scores: Float[np.ndarray, " models"], true_losses: Float[np.ndarray, " models"]) -> float:
    """RelAcc = (worst − picked)/(worst − best) in true losses: 1 if the best was picked, NaN if all are equal."""
    spread = np.ptp(true_losses)
    if spread == 0 or np.all(np.isnan(scores)):
        return float("nan")
    return float((np.max(true_losses) - true_losses[np.nanargmin(scores)]) / spread)


Scores: TypeAlias = tuple[np.ndarray, dict[str, tuple[float, float]]]


def _ats(curves: Sequence[LossCurve], target: float) -> Scores:
    return np.array([accept_then_stop(curve).at(target) for curve in curves]), {}


def _subtuning(curves: Sequence[LossCurve], target: float) -> Scores:
    empty = [curve.name for curve in curves if not curve.fine_tuned.sizes.size]
    if empty:
        raise InputError(f"select: {', '.join(empty)} has no point with D > 0 within the budget; raise it")
    return np.array([curve.losses[-1] for curve in curves]), {}


def _zero_shot(curves: Sequence[LossCurve], target: float) -> Scores:
    losses = [curve.at(0) for curve in curves]
    missing = [curve.name for curve, loss in zip(curves, losses, strict=True) if loss is None]
    if missing:
        raise InputError(f"select: {', '.join(missing)} has no loss at D = 0, which zeroshot ranks by")
    return np.array(losses, np.float64), {}


def _size(curves: Sequence[LossCurve], target: float) -> Scores:
    missing = [curve.name for curve in curves if curve.parameters is None]
    if missing:
        raise InputError(f"select: {', '.join(missing)} has no number of parameters, which size ranks by")
    return -np.log([curve.parameters for curve in curves if curve.parameters is not None]), {}


def _rectified(curves: Sequence[LossCurve], target: float) -> Scores:
    laws = [fit_rectified(curve).law for curve in curves]
    return np.array([np.nan if law is None else float(law.at(target)) for law in laws]), {}


def _vanilla(curves: Sequence[LossCurve], target: float) -> Scores:
    laws = [fit_vanilla(curve).law for curve in curves]
    return np.array([np.nan if law is None else float(law.at(target)) for law in laws]), {}


def _pooled(curves: Sequence[LossCurve], target: float) -> Scores:
    found = predict_pooled(curves, target, level=INTERVAL_LEVEL)
    if found.low is None or found.high is None:
        return found.losses, {}
    ends = zip(map(float, found.low), map(float, found.high), strict=True)
    return found.losses, dict(zip(found.fit.names, ends, strict=True))


SELECTORS: Mapping[Selector, Callable[[Sequence[LossCurve], float], Scores]] = {
    "ats": _ats,
    "subtuning": _subtuning,
    "zeroshot": _zero_shot,
    "size": _size,
    "rectified": _rectified,
    "vanilla": _vanilla,
    "pooled": _pooled,
}
"""All methods: from the curves up to the budget and the target size to scores and intervals."""
