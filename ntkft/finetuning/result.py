"""What a run reports: a record with its status."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from ntkft._errors import InputError
from ntkft._types import PyTree


@dataclass(frozen=True)
class Curve:
    """One set of examples, measured at the recorded epochs; a column is None where the targets do not define it."""

    epochs: Int[np.ndarray, "s"]
    """Recorded epochs, ascending."""
    loss: Float[np.ndarray, "s"]
    """The loss that training minimises, on these examples."""
    mse: Float[np.ndarray, "s"] | None = None
    """(1/m) Σ_i Σ_a (y − f)², the unit of predicted risk; None for integer targets."""
    accuracy: Float[np.ndarray, "s"] | None = None
    """Share of right classes: sign for one ±1 column, argmax otherwise; None for targets to regress on."""
    predictions: Float[np.ndarray, "s m k"] | None = None
    """Outputs f of every example; None unless asked for."""

    @property
    def best_epoch(self) -> int:
        """The recorded epoch with the smallest loss, the first of equals: what hold-out stopping would pick."""
        return int(self.epochs[np.argmin(self.loss)])


@dataclass(frozen=True)
class FinetuneResult:
    """Parameters, curves and drift of one run, up to the last recorded epoch before it ended or diverged."""

    params: PyTree
    """Parameters when the run ended; not finite when it diverged."""
    optimizer: str
    """Description of the optimiser."""
    epochs: Int[np.ndarray, "s"]
    """Recorded epochs, ascending; 0 is before training."""
    training_loss: Float[np.ndarray, "t"]
    """Loss of every epoch run, a by-product of the gradient. Full batch: entry t is the loss on all training examples
    before update t + 1. Minibatches: the mean over the updates of the epoch, each before its own step."""
    curves: Mapping[str, Curve]
    """A curve for each set of `evaluate`."""
    parameter_norm: float
    """‖θ₀‖ over all leaves."""
    parameter_distance: Float[np.ndarray, "s"]
    """‖θ_t − θ₀‖, the norm of the task vector, at the recorded epochs."""
    kernel_epochs: Int[np.ndarray, "q"]
    """Epochs at which the kernel was computed."""
    kernel_drift: Float[np.ndarray, "q"]
    """‖K_t − K₀‖_F / ‖K₀‖_F at `kernel_epochs`."""
    diverged_at: int | None
    """First epoch at which the loss or an output was NaN or infinite; None for a run that ended well."""

    @property
    def status(self) -> str:
        """`"finished"` or `"diverged"`."""
        return "finished" if self.diverged_at is None else "diverged"

    @property
    def parameter_drift(self) -> Float[np.ndarray, "s"]:
        """‖θ_t − θ₀‖ / ‖θ₀‖ at the recorded epochs; NaN when θ₀ = 0."""
        return self.parameter_distance / (self.parameter_norm or np.nan)

    def check(self) -> "FinetuneResult":
        """The result itself, or `InputError` when the run diverged."""
        if self.diverged_at is None:
            return self
        kept = f"epochs up to {self.epochs[-1]} are recorded" if self.epochs.size else "nothing was recorded"
        raise InputError(
            f"finetune: the loss was NaN or infinite at epoch {self.diverged_at} under {self.optimizer} ({kept}). "
            "Use a smaller step: gradient descent on the squared loss needs step_size < 2/λ₁, λ₁ the largest "
            "eigenvalue of the normalised kernel K/n"
        )
