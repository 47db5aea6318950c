"""Two laws of fine-tuning: test loss L by the number D of training examples.

    rectified  L(D) = B/(D_l + D^β) + E        finite at D = 0; slow at first ("pre-power phase"), then a power law
    vanilla    L(D) = (B/D^β + E)^α            a power law from the start

All parameters are above zero (E may be zero). D_l is what pretraining is worth, in units of D^β.

Source: Lin et al. 2024, *Selecting Large Language Model to Fine-tune via Rectified Scaling Law*, arXiv 2402.02314.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num

from ntkft._types import Array


@dataclass(frozen=True)
class Rectified:
    """L(D) = B/(D_l + D^β) + E."""

    B: float
    D_l: float
    beta: float
    E: float

    def at(self, sizes: Num[Array, "..."] | float) -> Float[np.ndarray, "..."]:
        """Losses at these numbers of examples, zero included."""
        return np.asarray(self.B / (self.D_l + np.asarray(sizes, np.float64) ** self.beta) + self.E)

    def log_slope(self, sizes: Num[Array, "..."] | float) -> Float[np.ndarray, "..."]:
        """∂ log L / ∂ log D: zero at D = 0, lowest at `steepest`, and back to zero where E is reached."""
        power = np.asarray(sizes, np.float64) ** self.beta
        return np.asarray(-self.beta * power * self.B / ((self.D_l + power) ** 2 * self.at(sizes)))

    @property
    def knee(self) -> float:
        """D_l^{1/β}: the number of examples worth as much as pretraining; the power phase begins about here."""
        return float(self.D_l ** (1 / self.beta))

    @property
    def steepest(self) -> float:
        """[D_l √(1 + B/(E D_l))]^{1/β}: where the log–log slope is steepest; infinity when E = 0."""
        with np.errstate(divide="ignore", over="ignore"):
            return float(np.float64(self.D_l * np.sqrt(1 + self.B / np.float64(self.E * self.D_l))) ** (1 / self.beta))


@dataclass(frozen=True)
class Vanilla:
    """L(D) = (B/D^β + E)^α, for D > 0."""

    B: float
    beta: float
    E: float
    alpha: float

    def at(self, sizes: Num[Array, "..."] | float) -> Float[np.ndarray, "..."]:
        """Losses at these numbers of examples; infinity at zero."""
        with np.errstate(divide="ignore"):
            return np.asarray((self.B * np.asarray(sizes, np.float64) ** -self.beta + self.E) ** self.alpha)
