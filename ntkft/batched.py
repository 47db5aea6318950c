"""A model over any number of examples, a micro-batch at a time: outputs forwards, changes of the parameters backwards.

The last micro-batch is filled up with copies of the last example, so there is one compilation for each shape of an
example, and the memory is that of one micro-batch.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Num

from ntkft._errors import InputError
from ntkft._tree import count_examples, take_examples
from ntkft._types import ApplyFn, Array, PyTree


def compile_outputs(apply_fn: ApplyFn, micro_batch: int) -> Callable[[PyTree, PyTree], np.ndarray]:
    """`outputs(params, inputs)`: the model on any number of examples, `[m, k]`, `micro_batch` at a time."""
    compiled = jax.jit(apply_fn)

    def outputs(params: PyTree, inputs: PyTree) -> np.ndarray:
        parts = [compiled(params, take_examples(inputs, rows)) for rows, _ in _batches(inputs, micro_batch)]
        return np.concatenate([np.asarray(part) for part in parts])[: count_examples(inputs)]

    return outputs


def compile_pullback(apply_fn: ApplyFn, micro_batch: int) -> Callable[[PyTree, PyTree, Num[Array, "n k"]], PyTree]:
    """`pullback(params, inputs, dual)`: Jᵀα = Σ_i J(x_i)ᵀ α_i, like the parameters, for dual coefficients `[n, k]`.

    Cost: one forward and one backward pass. Raises `InputError` when there are not as many rows of α as examples.
    """

    @jax.jit
    def add(total, params, inputs, dual):
        outputs, pull = jax.vjp(lambda point: apply_fn(point, inputs), params)
        return jax.tree.map(jnp.add, total, pull(dual.astype(outputs.dtype))[0])

    def pullback(params: PyTree, inputs: PyTree, dual: Num[Array, "n k"]) -> PyTree:
        alpha, n = np.asarray(dual), count_examples(inputs)
        if alpha.ndim != 2 or len(alpha) != n:
            raise InputError(
                f"pullback: got dual coefficients {list(alpha.shape)}; wanted [{n}, k], one row an example"
            )
        total = jax.tree.map(jnp.zeros_like, params)
        for rows, counts in _batches(inputs, micro_batch):
            total = add(total, params, take_examples(inputs, rows), alpha[rows] * counts[:, None])
        return total

    return pullback


def _batches(inputs: PyTree, micro_batch: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows of each micro-batch, and which of them are not there to fill it up."""
    n = count_examples(inputs)
    starts = (np.arange(start, start + micro_batch) for start in range(0, n, micro_batch))
    return [(np.minimum(rows, n - 1), rows < n) for rows in starts]
