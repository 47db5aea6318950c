"""Where training takes the parameters, seen from one point θ: θ + Jᵀα_t, and what the network really says there.

The linearised model is at f(θ) + 𝕂α_t when its parameters are at θ + Jᵀα_t. The network at the same parameters says
something else, and the difference is what linearising costs: one backward and one forward pass, and no kernel.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Num

from ntkft._types import ApplyFn, Array, PyTree
from ntkft.batched import compile_outputs, compile_pullback


@dataclass(frozen=True, eq=False)
class Network:
    """A model with the examples that it is trained and judged on, ready to be evaluated at any parameters.

    outputs:  (params, inputs) → `[m, k]`; pullback: (params, inputs, dual) → Jᵀα
    train:    inputs of the n training examples; judged: name → inputs of other examples
    """

    outputs: Callable[[PyTree, PyTree], np.ndarray]
    pullback: Callable[[PyTree, PyTree, Num[Array, "n k"]], PyTree]
    train: PyTree
    judged: Mapping[str, PyTree]

    @classmethod
    def of(cls, apply_fn: ApplyFn, train: PyTree, judged: Mapping[str, PyTree], *, micro_batch: int = 32) -> "Network":
        """Compile the passes of a model. `micro_batch` is the examples in one pass: it changes rounding only."""
        return cls(compile_outputs(apply_fn, micro_batch), compile_pullback(apply_fn, micro_batch), train, judged)

    def advance(self, params: PyTree, dual: Float[np.ndarray, "n k"], *, at: PyTree | None = None) -> PyTree:
        """Params + J(at)ᵀα, with the Jacobian at `params` itself unless other parameters are named."""
        change = self.pullback(params if at is None else at, self.train, dual)
        return jax.tree.map(jnp.add, params, change)

    def fitted(self, params: PyTree) -> Float[np.ndarray, "n k"]:
        """Outputs on the training examples, in float64."""
        return np.asarray(self.outputs(params, self.train), np.float64)

    def says(self, params: PyTree) -> dict[str, Float[np.ndarray, "m k"]]:
        """Outputs on each set that is judged, in float64."""
        return {name: np.asarray(self.outputs(params, inputs), np.float64) for name, inputs in self.judged.items()}
