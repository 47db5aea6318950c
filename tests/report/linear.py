"""Linear models, whose kernel is exact at every epoch: what is predicted must be what gradient descent does."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ntkft._types import Outputs
from ntkft.kernels import Kernel
from ntkft.kernels.kernel import Plan
from ntkft.report.prediction import SETS, Prediction, Problem, predict, set_rows

SIZES = {"train": 24, "validation": 10, "test": 12}
ROWS = sum(SIZES.values())
PLAIN: dict[str, Any] = {"epochs": 40, "record_at": [0, 1, 2, 7, 40], "sizes": [12, 24], "seeds": [0, 1], "patience": 5}
"""Settings of `predict` but for the step size."""


@dataclass(frozen=True)
class LinearModel:
    """f(x_i) = f_PT(x_i) + J_i w from w = 0, with jacobian `[N, k, p]`, targets and pretrained outputs `[N, k]`."""

    jacobian: np.ndarray
    targets: np.ndarray
    pretrained: np.ndarray

    def problem(self, outputs: Outputs) -> Problem:
        """The same with a kernel of this form; its two groups are the first and the second half of the weights."""
        half = self.jacobian.shape[2] // 2
        parts = {"first": self.jacobian[:, :, :half], "second": self.jacobian[:, :, half:]}
        return Problem(by_hand(self.jacobian, parts, outputs), SIZES, self.targets, self.pretrained)

    def step_size(self, share: float) -> float:
        """`share` of 1/λ̂₁."""
        n = SIZES["train"]
        rows = self.jacobian[:n].reshape(-1, self.jacobian.shape[2])
        return float(share * n / np.linalg.norm(rows, 2) ** 2)

    def descend(self, step_size: float, epochs: int) -> dict[str, np.ndarray]:
        """Squared error of every set after 0 … `epochs` steps on (1/2n) Σ‖y − f‖², by changing the weights."""
        n, weights = SIZES["train"], np.zeros(self.jacobian.shape[2])
        errors = []
        for _ in range(epochs + 1):
            residual = self.targets - self.pretrained - self.jacobian @ weights
            errors.append(np.sum(residual**2, axis=1))
            weights = weights + step_size / n * np.einsum("ikp,ik->p", self.jacobian[:n], residual[:n])
        return {name: np.mean(np.stack(errors)[:, set_rows(SIZES, name)], axis=1) for name in SETS}


def separate_outputs(k: int, *, noise: float = 0.5, seed: int = 0) -> LinearModel:
    """Each output has weights of its own on the same 6 features: 𝕂 ⊗ I_k."""
    generator = np.random.default_rng(seed)
    features = generator.standard_normal((ROWS, 6))
    return _noisy(np.einsum("if,ab->iabf", features, np.eye(k)).reshape(ROWS, k, k * 6), noise, generator)


def shared_weights(k: int, *, noise: float = 0.5, seed: int = 0) -> LinearModel:
    """All outputs move together: a full kernel that no other form stands for."""
    generator = np.random.default_rng(seed)
    return _noisy(generator.standard_normal((ROWS, k, 10)), noise, generator)


def predicted(model: LinearModel, outputs: Outputs, **changes: Any) -> Prediction:
    """A prediction with plain settings and step size 0.5/λ̂₁; `changes` say what is different."""
    settings: dict[str, Any] = {"step_size": model.step_size(0.5)} | PLAIN | changes
    return predict(model.problem(outputs), **settings)


def by_hand(jacobian: np.ndarray, parts: Mapping[str, np.ndarray], outputs: Outputs) -> Kernel:
    """Kernel record from Jacobians `[N, k, p]` of all weights and of each group."""
    sums = {"full": "iap,jbp->iajb", "trace": "iap,jap->ij", "scalar": "iap,jap->ij"}
    products = {name: np.einsum(sums[outputs], part, part) for name, part in parts.items()}
    total = np.einsum(sums[outputs], jacobian, jacobian)
    return Kernel(total, products, outputs, "float64", True, Plan("by hand", jacobian.shape[2], 0, 1, 1, 0))


def _noisy(jacobian: np.ndarray, noise: float, generator: np.random.Generator) -> LinearModel:
    rows, k, p = jacobian.shape
    pretrained = generator.standard_normal((rows, k))
    truth = pretrained + jacobian @ generator.standard_normal(p)
    return LinearModel(jacobian, truth + noise * generator.standard_normal((rows, k)), pretrained)
