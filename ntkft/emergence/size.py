"""From a loss to a size: L(N) = L∞ + (N₀/N)^α, and the size at which a threshold of the loss is reached.

Source: Du et al. 2024, §4 (the power law is Hoffmann et al. 2022's with the tokens held fixed).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num

from ntkft._errors import refuse
from ntkft._types import Array


@dataclass(frozen=True)
class SizeLaw:
    """Loss by size, L(N) = limit + (scale/N)^exponent, for models trained alike.

    limit: L∞, the loss that no size goes below; scale: N₀, in the unit of N; exponent: α. Raises `InputError` for a
    limit that is negative or not finite, a scale or an exponent that is not above 0.
    """

    limit: float
    scale: float
    exponent: float

    def __post_init__(self) -> None:
        """Refuse what is no such law."""
        problems = []
        if not 0 <= self.limit < np.inf:
            problems.append(f"limit is {self.limit:g}; wanted a finite loss of at least 0")
        problems += [
            f"{name} is {value:g}; wanted a finite number above 0"
            for name, value in (("scale", self.scale), ("exponent", self.exponent))
            if not 0 < value < np.inf
        ]
        refuse("SizeLaw", problems)

    def loss(self, sizes: Num[Array, "..."] | float) -> Float[np.ndarray, "..."]:
        """L(N); infinity for N = 0."""
        with np.errstate(divide="ignore"):
            return np.asarray(self.limit + (self.scale / np.asarray(sizes, np.float64)) ** self.exponent)

    def size(self, losses: Num[Array, "..."] | float) -> Float[np.ndarray, "..."]:
        """Smallest N with L(N) ≤ loss: N₀ (loss − L∞)^(−1/α), infinity for a loss at or below L∞.

        With the loss η of a threshold this is the size at which the ability appears.
        """
        above = np.maximum(np.asarray(losses, np.float64) - self.limit, 0.0)
        with np.errstate(divide="ignore"):
            return np.asarray(self.scale * above ** (-1 / self.exponent))
