"""Does perplexity predict what a model can do, and does its size add anything to that?

Xia et al. 2023 (§5) find that scores on a task follow the perplexity of the checkpoint, whatever its size. As a
statement about two nested least-squares models,

    score = a + b log perplexity                  R²
    score = a_size + b log perplexity             R² with sizes ≥ R²,

the size adds R² with sizes − R². That is never negative and grows with the number of sizes by chance alone, so it comes
with the F-test of a_size = a for all sizes.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import SupportsFloat

import numpy as np
from jaxtyping import Num, Shaped
from scipy.special import fdtrc
from scipy.stats import rankdata

from ntkft._errors import InputError, refuse
from ntkft._types import Array


@dataclass(frozen=True)
class SizeEffect:
    """What the size of the model adds to perplexity.

    sizes:     different sizes
    r_squared: of score on log perplexity with an intercept for each size
    extra:     r_squared minus that without sizes
    p_value:   F-test of equal intercepts; 0 when perplexity and sizes fit exactly and perplexity alone does not
    """

    sizes: int
    r_squared: float
    extra: float
    p_value: float


@dataclass(frozen=True)
class PerplexityFit:
    """How well perplexity predicts a score over m checkpoints.

    spearman:         rank correlation of score and perplexity; −1: a better perplexity is always a better score
    slope, intercept: of score on log perplexity, natural logarithm
    r_squared:        of that line
    sizes:            what the size adds; None when no sizes were given
    """

    spearman: float
    slope: float
    intercept: float
    r_squared: float
    sizes: SizeEffect | None


def perplexity_predicts(
    perplexities: Num[Array, "..."] | Sequence[float],
    scores: Num[Array, "..."] | Sequence[float],
    sizes: Sequence[Hashable] | Shaped[Array, "..."] | None,
) -> PerplexityFit:
    """Spearman correlation and least squares of scores on log perplexity, without and with an intercept for each size.

    perplexities, scores: `[m]`, a pair for each checkpoint; sizes: `[m]` names or parameter counts, or None

    Checkpoints of one run are not independent, so the p-value is optimistic. Raises `InputError` for lengths that
    differ, fewer than three checkpoints, values that are NaN or infinite, perplexities that are not positive,
    perplexities or scores that are all equal, a single size, too few checkpoints for an intercept for each size, and
    perplexities that are equal within every size.
    """
    found, score = np.asarray(perplexities, np.float64), np.asarray(scores, np.float64)
    groups = None if sizes is None else np.unique([str(size) for size in sizes], return_inverse=True)[1]
    _check(found, score, groups)
    x = np.log(found)
    (slope, intercept), unexplained = _least_squares(np.stack([x, np.ones_like(x)], axis=1), score)
    total = float(np.sum((score - score.mean()) ** 2))
    effect = None
    if groups is not None:
        count = int(groups.max()) + 1
        dummies = (groups[:, None] == np.arange(count)[None]).astype(np.float64)
        _, left = _least_squares(np.concatenate([x[:, None], dummies], axis=1), score)
        gained, freedom = max(unexplained - left, 0.0), len(x) - count - 1
        ratio = np.inf if left == 0 else gained / (count - 1) / (left / freedom)
        p_value = 1.0 if gained == 0 else float(fdtrc(count - 1, freedom, ratio))
        effect = SizeEffect(count, 1 - left / total, gained / total, p_value)
    rank = float(np.corrcoef(rankdata(found), rankdata(score))[0, 1])
    return PerplexityFit(rank, float(slope), float(intercept), 1 - unexplained / total, effect)


def training_flops(parameters: SupportsFloat, tokens: SupportsFloat) -> float:
    """6·parameters·tokens, the floating-point operations of training on so many tokens (Kaplan et al. 2020, §2.1).

    Two for each weight and token forwards and four backwards; attention scores and embeddings are left out. Raises
    `InputError` for a number of parameters that is not positive, or of tokens that is negative.
    """
    p, t = float(parameters), float(tokens)
    if not (0 < p < np.inf and 0 <= t < np.inf):
        raise InputError(f"training_flops: got {p:g} parameters and {t:g} tokens; wanted finite, positive counts")
    return 6 * p * t


def _least_squares(design: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    """Coefficients, and the sum of squares that they leave."""
    coefficients = np.linalg.lstsq(design, y)[0]
    return coefficients, float(np.sum((y - design @ coefficients) ** 2))


def _check(perplexities: np.ndarray, scores: np.ndarray, groups: np.ndarray | None) -> None:
    m = perplexities.size
    shapes = [list(perplexities.shape), list(scores.shape)] + ([] if groups is None else [list(groups.shape)])
    if any(shape != [m] for shape in shapes) or m < 3:
        raise InputError(
            f"perplexity_predicts: got shapes {', '.join(map(str, shapes))}; wanted one perplexity, one score and one "
            "size for each of at least 3 checkpoints"
        )
    values = {"perplexities": perplexities, "scores": scores}
    problems = [f"{name} hold NaN or infinity" for name, value in values.items() if not np.isfinite(value).all()]
    problems += [
        f"all {name} are equal, so nothing is predicted" for name, value in values.items() if value.min() == value.max()
    ]
    if np.any(perplexities <= 0):
        problems.append(f"the smallest perplexity is {np.nanmin(perplexities):g}; a perplexity is positive")
    refuse("perplexity_predicts", problems)
    if groups is None:
        return
    count = int(groups.max()) + 1
    if count < 2:
        problems.append("all checkpoints have one size; pass sizes=None")
    elif m < count + 2:
        problems.append(
            f"{m} checkpoints of {count} sizes; an intercept for each size, a slope and an error take {count + 2}"
        )
    elif all(np.ptp(perplexities[groups == group]) == 0 for group in range(count)):
        problems.append(
            "perplexities are equal within every size, so the two cannot be told apart; give several checkpoints a size"
        )
    refuse("perplexity_predicts", problems)
