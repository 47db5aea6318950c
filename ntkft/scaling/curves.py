"""Losses of one model after fine-tuning on training sets of several sizes: what all of `ntkft.scaling` starts from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import SupportsFloat

import numpy as np
from jaxtyping import Float, Num

from ntkft._errors import refuse
from ntkft._types import Array


@dataclass(frozen=True, eq=False)
class LossCurve:
    """Test loss of one model by the number of examples that it was fine-tuned on.

    sizes: numbers of examples, ascending, 0 for the model as it is; losses: test losses, all above zero;
    parameters: size of the model, or None where it is not known
    """

    name: str
    sizes: Float[np.ndarray, " m"]
    losses: Float[np.ndarray, " m"]
    parameters: float | None = None

    def up_to(self, budget: SupportsFloat) -> "LossCurve":
        """The points with at most `budget` examples."""
        kept = self.sizes <= float(budget)
        return LossCurve(self.name, self.sizes[kept], self.losses[kept], self.parameters)

    @property
    def fine_tuned(self) -> "LossCurve":
        """The points with at least one example."""
        kept = self.sizes > 0
        return LossCurve(self.name, self.sizes[kept], self.losses[kept], self.parameters)

    def at(self, size: SupportsFloat) -> float | None:
        """The loss measured at `size` examples, or None where it was not."""
        found = self.losses[self.sizes == float(size)]
        return float(found[0]) if found.size else None


def loss_curve(
    name: str,
    sizes: Num[Array, " m"] | Sequence[float],
    losses: Num[Array, " m"] | Sequence[float],
    parameters: SupportsFloat | None = None,
) -> LossCurve:
    """A checked curve, sorted by size.

    Raises one `InputError` for sizes that are negative, not finite or there twice, losses that are not finite numbers
    above zero (their logarithms are fitted), lengths that differ, and a number of parameters that is not above zero.
    """
    examples, values = np.asarray(sizes, np.float64), np.asarray(losses, np.float64)
    problems = []
    if examples.ndim != 1 or examples.shape != values.shape:
        problems.append(f"got sizes {examples.shape} and losses {values.shape}; wanted as many of one as of the other")
    else:
        bad = ~(np.isfinite(values) & (values > 0))
        problems += [
            f"the loss at {size:g} examples is {loss:g}; wanted a finite number above zero"
            for size, loss in zip(examples[bad], values[bad], strict=True)
        ]
        if not np.all(np.isfinite(examples) & (examples >= 0)):
            problems.append("got a size that is negative or not finite; wanted numbers of examples")
        elif len(np.unique(examples)) < len(examples):
            problems.append("got a size twice; wanted one loss for each (their mean, for several seeds)")
    if parameters is not None and not 0 < float(parameters) < np.inf:
        problems.append(f"got {float(parameters):g} parameters; wanted a number above zero, or None")
    refuse(f"losses of {name}", problems)
    order = np.argsort(examples)
    return LossCurve(name, examples[order], values[order], None if parameters is None else float(parameters))
