"""Token trends: which tokens a model still learns, which it unlearns, and which no longer move.

A token is one place of a text; its series is its perplexity 1/p(token | what stands before it) at every checkpoint of
one training run. From the checkpoint j on that stands at a given share of training, with y_i = PPL_i / PPL_j,

    y_i = a + b (i − j) + noise,      t = b / se(b) on (checkpoints − 2) degrees of freedom,

    upward      b > 0 and p < level            downward    b < 0 and p < level
    stagnated   neither, and PPL_j and the last PPL within ±band of the geometric mean of the series
    other       none of these

with the two-sided p of Student's t (Xia et al. 2023, §3). The regressor is the number of checkpoints since j, not of
steps: for checkpoints at log-spaced steps b is a slope over log time.

The test takes the noise of checkpoints as independent. Then a share `level` of the tokens without any trend is called
upward or downward, half of it each. Real series are smooth, so their p-values are too small: a driftless random walk
mostly counts as a trend.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, SupportsFloat, TypeAlias

import numpy as np
from jaxtyping import Float, Num, Shaped
from scipy.special import stdtr

from ntkft._errors import InputError, refuse
from ntkft._types import Array

Trend: TypeAlias = Literal["upward", "downward", "stagnated", "other"]

TRENDS: tuple[Trend, ...] = ("upward", "downward", "stagnated", "other")
"""All trends, in the order in which they are counted and drawn."""
LEVEL = 0.05
"""The paper's level of the t-test."""
BAND = 0.05
"""The paper's ±5 % in which a stagnated token begins and ends."""

_SHOWN = 5


@dataclass(frozen=True, eq=False)
class TokenTrends:
    """The trend of every token of a table `[t, s]` of t tokens and s checkpoints.

    first:    index of the checkpoint j, counted from zero; the series is that column and all after it
    labels:   `[t]`, one of `TRENDS` each
    slopes:   `[t]` b, change of PPL_i/PPL_j for one checkpoint
    p_values: `[t]` two-sided; 0 for an exact line, 1 for a constant series
    counts:   tokens of each trend, in the order of `TRENDS`
    """

    first: int
    labels: Shaped[np.ndarray, " t"]
    slopes: Float[np.ndarray, " t"]
    p_values: Float[np.ndarray, " t"]
    counts: dict[str, int]

    @property
    def fractions(self) -> dict[str, float]:
        """Share of the tokens with each trend; they sum to one."""
        return {trend: count / len(self.labels) for trend, count in self.counts.items()}


def token_trends(
    perplexities: Num[Array, "..."],
    *,
    start: SupportsFloat,
    level: SupportsFloat,
    band: SupportsFloat,
    steps: Num[Array, "..."] | Sequence[float] | None = None,
) -> TokenTrends:
    """The trend of every token, as at the top of this file, for all tokens at once.

    perplexities: `[t, s]`, a row for each token and a column for each checkpoint in order of training
    start, steps: where the series begins; see `first_checkpoint`
    level:        of the two-sided t-test, in (0, 1); the paper's is `LEVEL`
    band:         relative distance from the geometric mean, at least 0; the paper's is `BAND`

    Cost: a few passes over the table, in float64. Raises `InputError` for a table that is not 2-D, is empty, or holds
    cells that are NaN, infinite or not positive, for fewer than three checkpoints in the series, and for settings
    outside their range.
    """
    table = checked_table("token_trends", perplexities)
    threshold, width = float(level), float(band)
    first = first_checkpoint(table.shape[1], start=start, steps=steps)
    problems = []
    if (count := table.shape[1] - first) < 3:
        problems.append(
            f"{count} of {table.shape[1]} checkpoints are at or after the share {float(start):g} of training; a line "
            "and its error take at least 3: lower start, or keep more checkpoints"
        )
    if not 0 < threshold < 1:
        problems.append(f"level is {threshold:g}; wanted a probability between 0 and 1, such as {LEVEL}")
    if not 0 <= width < np.inf:
        problems.append(f"band is {width:g}; wanted a relative distance of at least 0, such as {BAND}")
    refuse("token_trends", problems)
    series = table[:, first:]
    slopes, p_values = _slopes(series / series[:, :1])
    middle = np.exp(np.log(series).mean(axis=1, keepdims=True))
    still = (np.abs(series[:, [0, -1]] / middle - 1) <= width).all(axis=1)
    significant = p_values < threshold
    conditions = [significant & (slopes > 0), significant & (slopes < 0), ~significant & still]
    labels = np.select(conditions, TRENDS[:3], default=TRENDS[3])
    return TokenTrends(first, labels, slopes, p_values, {trend: int(np.sum(labels == trend)) for trend in TRENDS})


def first_checkpoint(
    count: int, *, start: SupportsFloat, steps: Num[Array, "..."] | Sequence[float] | None = None
) -> int:
    """Index, from zero, of the first of `count` checkpoints that stands at or after the share `start` of training.

    steps: training steps (or tokens, in any unit) at the checkpoints `[s]`, ascending; training ends at the last.
    Without them checkpoints are equally spaced: the i-th of s, counted from one, stands at i/s.

    Raises `InputError` for a share outside [0, 1), or steps that do not fit, are negative or do not ascend.
    """
    share, problems = float(start), []
    done = np.arange(1, count + 1) if steps is None else np.asarray(steps, np.float64)
    if not 0 <= share < 1:
        problems.append(f"start is {share:g}; wanted a share of training of at least 0 and below 1, such as 0.1")
    if done.shape != (count,):
        problems.append(f"got steps {list(done.shape)} for {count} checkpoints; give one number for each")
    elif not (np.isfinite(done).all() and done[0] >= 0 and np.all(np.diff(done) > 0)):
        problems.append("steps must be finite, at least 0 and ascending: sort the checkpoints by training step")
    refuse("first_checkpoint", problems)
    # A share of 0.07 of 100 is 7.000000000000001 in floating point; the seventh checkpoint is meant.
    return int(np.argmax(done >= share * done[-1] * (1 - 1e-12)))


def group_curves(
    perplexities: Num[Array, "..."], labels: Sequence[str] | Shaped[np.ndarray, "..."]
) -> dict[str, Float[np.ndarray, " s"]]:
    """Perplexity over checkpoints of every group of tokens: the geometric mean, which averages log-likelihoods.

    perplexities `[t, s]`; labels `[t]`: the group of each token, such as `TokenTrends.labels`. Groups come in the order
    in which their names sort. Raises `InputError` for a table as `token_trends` refuses it, or labels that do not fit.
    """
    table, names = checked_table("group_curves", perplexities), np.asarray(labels)
    if names.shape != table.shape[:1]:
        raise InputError(f"group_curves: got labels {list(names.shape)} for {len(table)} tokens; give one for each")
    logs = np.log(table)
    return {str(name): np.exp(logs[names == name].mean(axis=0)) for name in np.unique(names)}


def checked_table(what: str, perplexities: Num[Array, "..."]) -> Float[np.ndarray, "t s"]:
    """The table in float64; raises `InputError`, opened by `what`, naming the first cells that are no perplexity."""
    table = np.asarray(perplexities, np.float64)
    if table.ndim != 2 or table.size == 0:
        raise InputError(
            f"{what}: got perplexities of shape {list(table.shape)}; wanted [tokens, checkpoints], at least one of each"
        )
    rules = {"NaN or infinite": ~np.isfinite(table), "not positive": table <= 0}
    refuse(what, [_cells(kind, wrong) for kind, wrong in rules.items() if wrong.any()])
    return table


def _cells(kind: str, wrong: np.ndarray) -> str:
    places = [f"token {row + 1} checkpoint {column + 1}" for row, column in np.argwhere(wrong)[:_SHOWN]]
    more = ", …" if wrong.sum() > _SHOWN else ""
    return (
        f"{wrong.sum()} of {wrong.size} perplexities are {kind} ({', '.join(places)}{more}, counted from 1); "
        "mend or leave out these tokens"
    )


def _slopes(ratios: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares slope of each row on 0, 1, 2, …, and its two-sided p-value."""
    count = ratios.shape[1]
    x = np.arange(count) - (count - 1) / 2
    centred = ratios - ratios.mean(axis=1, keepdims=True)
    slopes = centred @ x / (x @ x)
    residual = np.sum((centred - slopes[:, None] * x) ** 2, axis=1)
    scaled = slopes * np.sqrt((count - 2) * (x @ x))
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(scaled == 0, 0.0, np.abs(scaled) / np.sqrt(residual))  # an exact line has t = ∞
    return slopes, 2 * stdtr(count - 2, -t)
