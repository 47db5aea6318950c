"""What must hold of a model before its kernel means anything, checked once on the user's own inputs.

Kernel methods differentiate one example at a time. A model that mixes rows (batch statistics in training mode) or draws
random numbers (dropout left on) would give a kernel without complaint, of a function that nobody has.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import eval_jaxpr
from jaxtyping import Bool

from ntkft._errors import InputError
from ntkft._tree import check_finite, count_examples, leaf_paths, take_examples
from ntkft._types import ApplyFn, Array, Outputs, PyTree
from ntkft.kernels.compilation import compile_once
from ntkft.kernels.memory import return_freed_memory

_ROUNDING = {"float64": 1e-9, "float32": 1e-3, "bfloat16": 0.1, "float16": 0.05}
_PROBE = 4
_BATCH = 16


def check_form(apply_fn: ApplyFn, params: PyTree, inputs: PyTree, outputs: Outputs) -> int:
    """Number of outputs k, after an abstract evaluation: nothing is computed.

    Raises `InputError` when parameters are not floating, when `apply_fn` does not return `[n, k]` floats, or when
    `outputs="scalar"` meets k > 1.
    """
    if outputs not in ("full", "trace", "scalar"):
        raise InputError(f"empirical_ntk: got outputs={outputs!r}; wanted 'full', 'trace' or 'scalar'")
    for path, leaf in leaf_paths(params).items():
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise InputError(
                f"parameters: leaf {path!r} is {leaf.dtype}; wanted floating arrays only, so keep counters, "
                "keys and masks out of params (close over them in apply_fn)"
            )
    n = count_examples(inputs)
    result = jax.eval_shape(apply_fn, params, inputs)
    shape = getattr(result, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != n or not jnp.issubdtype(result.dtype, jnp.floating):
        got = f"{result.dtype}{list(shape)}" if shape is not None else type(result).__name__
        raise InputError(f"apply_fn: returned {got} for {n} examples; wanted floats of shape [{n}, k]")
    if outputs == "scalar" and shape[1] != 1:
        raise InputError(
            f"empirical_ntk: outputs='scalar' wants a model with one output, this one has {shape[1]}; use 'full' "
            "(every pair) or 'trace' (summed over equal outputs), or a readout with one output"
        )
    return shape[1]


def check_apply_fn(apply_fn: ApplyFn, params: PyTree, inputs: PyTree) -> None:
    """Refuse non-finite parameters, randomness, and rows that depend on one another.

    Cost: three forward passes over up to four examples. Raises `InputError` naming the leaf or what moved.
    """
    check_finite("parameters", params)
    probe = np.arange(min(_PROBE, count_examples(inputs)))
    forward = _compiled(apply_fn, params, take_examples(inputs, probe), quick=True)
    first = np.asarray(forward(params, take_examples(inputs, probe)), np.float64)
    again = np.asarray(forward(params, take_examples(inputs, probe)), np.float64)
    if not np.array_equal(first, again, equal_nan=True):
        raise InputError(
            "apply_fn: two calls on the same inputs differ; it draws random numbers (dropout still on?), so put it "
            "in evaluation mode or fix its key"
        )
    _check_rows_independent(forward, params, inputs, probe, first)
    del forward
    return_freed_memory()


def _compiled(apply_fn: ApplyFn, params: PyTree, inputs: PyTree, *, quick: bool) -> ApplyFn:
    """The function for inputs of this shape, leaving nothing behind once it is dropped.

    What it closes over (the weights outside the kernel, say) is passed to the program as arguments.
    """
    closed = jax.make_jaxpr(apply_fn)(params, inputs)
    leaves = jax.tree.leaves((params, inputs))
    compiled = compile_once(partial(eval_jaxpr, closed.jaxpr), [closed.consts, *leaves], quick=quick)
    return lambda params, inputs: compiled(closed.consts, *jax.tree.leaves((params, inputs)))[0]


def check_outputs(apply_fn: ApplyFn, params: PyTree, inputs: PyTree) -> None:
    """Refuse examples with non-finite outputs, for methods that form no kernel in which they would show.

    Cost: one forward pass over all examples, in batches of 16. Raises `InputError` naming the example.
    """
    n = count_examples(inputs)
    forward = _compiled(apply_fn, params, take_examples(inputs, np.arange(_BATCH) % n), quick=False)
    for start in range(0, n, _BATCH):
        rows = np.arange(start, start + _BATCH) % n  # one shape, so one compilation
        values = np.asarray(forward(params, take_examples(inputs, rows)), np.float64)
        bad = sorted({int(row) for row in rows[~np.isfinite(values).all(axis=1)]})
        if bad:
            raise InputError(f"apply_fn: NaN or infinite outputs for example {bad[0]} ({len(bad)} in its batch)")


def check_tile(tile: Array, first_row: int, first_column: int | None) -> None:
    """Refuse a tile of a kernel that is not finite, naming the examples whose whole row or column is not.

    tile:         `[a, b]` or `[a, k, b, k]`; of examples from `first_row` and `first_column` on (None: the same ones)
    Raises `InputError`.
    """
    finite = np.isfinite(tile)
    if finite.all():
        return
    pairs: Bool[np.ndarray, "a b"] = np.asarray(finite.all(axis=(1, 3)) if tile.ndim == 4 else finite)
    rows = first_row + np.flatnonzero(~pairs.any(axis=1))
    columns = [] if first_column is None else first_column + np.flatnonzero(~pairs.any(axis=0))
    named = [f"example {i} of x1" for i in rows] + [f"example {j} of the columns" for j in columns]
    if not named:
        i, j = np.argwhere(~pairs)[0] + (first_row, first_row if first_column is None else first_column)
        named = [f"the pair of examples {i} and {j}"]
    raise InputError(
        f"empirical_ntk: NaN or infinite kernel values for {named[0]} ({len(named)} like it in this tile of "
        f"{len(pairs)} × {pairs.shape[1]}): its outputs or derivatives are; look at it, leave it out, or pass "
        "check=False to have it in the kernel"
    )


def _check_rows_independent(forward, params, inputs, probe, expected):
    n = count_examples(inputs)
    if n == 1:
        return
    # Same batch size, first row kept, all others replaced: only a dependence between rows can move row 0.
    others = np.concatenate([probe[:1], n - 1 - np.arange(len(probe) - 1) % (n - 1)])
    companions = _mix(take_examples(inputs, others), n)
    dtype = jnp.result_type(*jax.tree.leaves(params))
    moved = np.abs(np.asarray(forward(params, companions), np.float64)[0] - expected[0]).max()
    scale = max(np.abs(expected).max(), 1e-30)
    if np.isfinite(moved) and moved > _ROUNDING[str(dtype)] * scale:
        raise InputError(
            f"apply_fn: the output of example 0 moves by {moved:.2g} (outputs are up to {scale:.2g}) when the other "
            "examples of its batch change; row i must depend on example i only, so use evaluation mode (running "
            "batch statistics), or pass check=False if this is what you mean"
        )


def _mix(inputs: PyTree, n: int) -> PyTree:
    """With two examples the companions would be themselves: repeat example 0 in their place."""
    if n > 2:
        return inputs
    return jax.tree.map(lambda leaf: np.repeat(np.asarray(leaf)[:1], len(leaf), axis=0), inputs)
