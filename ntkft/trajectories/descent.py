"""Double descent of a token: its perplexity falls, rises, and falls again.

Xia et al. 2023 show such tokens and give no test; this one is ours. With ℓ = log perplexity, a token has a descent of
depth h if there are checkpoints p < a < b < q with

    ℓ_p − ℓ_a ≥ h,      ℓ_b − ℓ_a ≥ h,      ℓ_b − ℓ_q ≥ h:

an interior minimum a, then an interior maximum b, and every way beside them, down to a, up to b and down from b, is at
least h. Its depth is the largest such h, and it shows double descent when that exceeds a tolerance. So one number for
each token answers for all tolerances: the share of tokens is a survival function of depth.
"""

from dataclasses import dataclass
from typing import SupportsFloat

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from ntkft._errors import InputError
from ntkft._types import Array
from ntkft.trajectories.trends import checked_table

TOLERANCE = 0.1
"""log(1.05/0.95): what a stagnated token of the paper may move by, from −5 % to +5 %."""


@dataclass(frozen=True, eq=False)
class DoubleDescent:
    """Depth and turning points of every token of a table `[t, s]`.

    tolerance: in log perplexity
    depth:     `[t]` the largest h of the definition, in log perplexity; 0 where a series does not turn twice
    minimum:   `[t]` checkpoint a, index from zero, of that descent: the lowest between p and b; meaningless where
               depth is 0
    maximum:   `[t]` checkpoint b: the highest between a and q
    """

    tolerance: float
    depth: Float[np.ndarray, " t"]
    minimum: Int[np.ndarray, " t"]
    maximum: Int[np.ndarray, " t"]

    @property
    def shows(self) -> Bool[np.ndarray, " t"]:
        """Which tokens show double descent."""
        return self.depth > self.tolerance

    @property
    def share(self) -> float:
        """Share of the tokens that show it."""
        return float(self.shows.mean())


def double_descent(perplexities: Num[Array, "..."], *, tolerance: SupportsFloat) -> DoubleDescent:
    """The depth of every token's double descent, and which exceed `tolerance`, in log perplexity (0.1: about 10 %).

    perplexities: `[t, s]`, a row for each token and a column for each checkpoint in order of training, s ≥ 4. The
    first checkpoints of a run, where every token moves, are the caller's to leave out.

    Cost: O(t s²) operations, O(t s) memory. Raises `InputError` for a table as `token_trends` refuses it, fewer than
    four checkpoints, or a tolerance that is negative or not finite.
    """
    logs, bound = np.log(checked_table("double_descent", perplexities)), float(tolerance)
    tokens, count = logs.shape
    if count < 4:
        raise InputError(f"double_descent: got {count} checkpoints; falling, rising and falling again takes at least 4")
    if not 0 <= bound < np.inf:
        raise InputError(
            f"double_descent: tolerance is {bound:g}; wanted a difference of log perplexity of at least 0, such as 0.1"
        )
    fallen = np.maximum.accumulate(logs, axis=1) - logs  # from the highest point so far, down to each
    falls = logs - np.minimum.accumulate(logs[:, ::-1], axis=1)[:, ::-1]  # from each, down to the lowest yet to come
    depth, rows = np.zeros(tokens), np.arange(tokens)
    minimum, maximum = np.zeros(tokens, np.int64), np.zeros(tokens, np.int64)
    for b in range(2, count - 1):
        legs = np.minimum(fallen[:, 1:b], logs[:, b : b + 1] - logs[:, 1:b])
        a = np.argmax(legs, axis=1)
        here = np.minimum(legs[rows, a], falls[:, b])
        deeper = here > depth
        depth, minimum = np.where(deeper, here, depth), np.where(deeper, a + 1, minimum)
        maximum = np.where(deeper, b, maximum)
    return DoubleDescent(bound, depth, *_extremes(logs, minimum, maximum))


def _extremes(logs: np.ndarray, minimum: np.ndarray, maximum: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The turning points that lie lowest and highest: depth is decided by one way, and the others leave them loose."""
    place, a, b = np.arange(logs.shape[1])[None], minimum[:, None], maximum[:, None]
    begin = np.argmax(np.where(place < a, logs, -np.inf), axis=1)[:, None]
    end = np.argmin(np.where(place > b, logs, np.inf), axis=1)[:, None]
    highest = np.argmax(np.where((place > a) & (place < end), logs, -np.inf), axis=1)
    lowest = np.argmin(np.where((place > begin) & (place < highest[:, None]), logs, np.inf), axis=1)
    return lowest, highest
