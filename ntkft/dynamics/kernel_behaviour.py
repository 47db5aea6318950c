"""Does fine-tuning of this model on this task behave like its kernel? The two checks of Malladi et al.

*Linearisation*: the model linearised at the pretrained parameters recovers at least half of what fine-tuning gains.
*Fixed features*: the entries of the kernel move by less than twice their size, in the mean. Kernel behaviour is both.
"""

from dataclasses import dataclass
from typing import SupportsFloat

import numpy as np
from jaxtyping import Num

from ntkft._errors import refuse
from ntkft._types import Array
from ntkft.spectra.eigen import EmpiricalKernel

RECOVERED = 0.5
"""Least share of the gain that counts as linearisation."""
MOVED = 2.0
"""Mean relative distance from which features no longer count as fixed."""


@dataclass(frozen=True)
class KernelBehaviour:
    """Both measurements, and the verdicts.

    recovered: (linearised − pretrained) / (fine-tuned − pretrained) score; above 1 where the linearised model is better
    distance:  mean over entries of |𝕂_after − 𝕂_before| / |𝕂_before|
    change:    ‖𝕂_after − 𝕂_before‖_F / ‖𝕂_before‖_F, which a few entries near zero cannot dominate
    """

    recovered: float
    distance: float
    change: float

    @property
    def linearised(self) -> bool:
        """Whether the linearised model recovers half of the gain."""
        return self.recovered >= RECOVERED

    @property
    def fixed_features(self) -> bool:
        """Whether the kernel moved by less than twice its entries."""
        return self.distance < MOVED

    @property
    def holds(self) -> bool:
        """Whether fine-tuning shows kernel behaviour: both."""
        return self.linearised and self.fixed_features


def measure_kernel_behaviour(
    *,
    pretrained: SupportsFloat,
    finetuned: SupportsFloat,
    linearised: SupportsFloat,
    before: EmpiricalKernel | Num[Array, "..."],
    after: EmpiricalKernel | Num[Array, "..."],
) -> KernelBehaviour:
    """Both checks, from three scores and two kernels.

    pretrained, finetuned, linearised: a score on the same test examples, higher is better, such as the accuracy of the
        model as it was, after fine-tuning, and of its linearisation trained on the same examples
    before, after: kernel of the same examples at the pretrained and at the fine-tuned parameters, records or arrays of
        any one shape

    Cost: one pass over the kernels. Raises `InputError` when fine-tuning gained nothing (then there is nothing to
    recover), for scores that are not finite, kernels of different shapes, and entries of the first that are zero.
    Source: Malladi, Wettig, Yu, Chen & Arora 2023, *A kernel-based view of language model fine-tuning*, sections 3 and
    6, for the thresholds.
    """
    start, end, middle = (float(score) for score in (pretrained, finetuned, linearised))
    old, new = (
        np.asarray(kernel if isinstance(kernel, Array) else kernel.total, np.float64) for kernel in (before, after)
    )
    problems = []
    if not np.isfinite([start, end, middle]).all():
        problems.append(f"scores are {start:g}, {end:g} and {middle:g}; wanted finite numbers")
    elif end <= start:
        problems.append(
            f"fine-tuning took the score from {start:g} to {end:g}, no gain of which a share could be recovered; pass "
            "scores of which higher is better, or train longer"
        )
    if old.shape != new.shape or not old.size:
        problems.append(f"kernels have shapes {list(old.shape)} and {list(new.shape)}; wanted the same examples twice")
    elif zeros := int(np.sum(old == 0)):
        problems.append(
            f"{zeros} entries of the kernel before training are zero, so their relative distance is infinite"
        )
    refuse("measure_kernel_behaviour", problems)
    moved = np.abs(new - old)
    return KernelBehaviour(
        recovered=(middle - start) / (end - start),
        distance=float(np.mean(moved / np.abs(old))),
        change=float(np.linalg.norm(moved) / np.linalg.norm(old)),
    )
