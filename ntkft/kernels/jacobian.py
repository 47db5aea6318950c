"""The kernel by explicit Jacobian slices, within a memory budget.

For each slice of parameters (`slices`): the gradients of all examples, each once, into one array J_s `[n, k, c]`; then
one product J_s J_sᵀ added to the kernel of each parameter group. A slice costs a forward pass and the backward
pass down to its leaves, so the whole costs (number of slices) × that; with room for all of J it is a single pass.
Compare a kernel computed block by block over pairs of examples, which differentiates every example once for every
block that it takes part in, with respect to all parameters.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from ntkft._errors import InputError
from ntkft._tree import count_examples, leaf_paths
from ntkft._types import ApplyFn, Outputs, PyTree
from ntkft.kernels.kernel import Kernel, Plan
from ntkft.kernels.slices import TALL, Piece, leaf_rows, partition

# Shares of the budget for J, tried in turn; the rest must hold one micro-batch's activations and gradients.
_JACOBIAN_SHARES = (0.8, 0.6, 0.4)
# Four examples at once is where a CPU's throughput levels off; wider batches only cost memory (docs/design.md).
_MICRO_BATCH = 4
# One block of columns stays in the last-level cache while its tiles are multiplied; a tile of rows is small enough to
# skip most of the upper triangle and large enough for the GEMM (measured: docs/design.md).
_BLOCK = 4096
_TILE = 128


Side: TypeAlias = Callable[[jax.Array], jax.Array]
"""What one side of the product does to its Jacobian, entry by entry; applied to one block of columns at a time."""


def unchanged(jacobian: jax.Array) -> jax.Array:
    """The side of the ordinary kernel."""
    return jacobian


def jacobian_kernel(
    apply_fn: ApplyFn,
    params: PyTree,
    x1: PyTree,
    x2: PyTree | None,
    k: int,
    *,
    outputs: Outputs,
    group_of: dict[str, str],
    memory: int,
    progress: Callable[[int, int], None] | None,
    sides: tuple[Side, Side] = (unchanged, unchanged),
) -> Kernel:
    """The kernel of `empirical_ntk`, whose arguments these are, already checked; `memory` in bytes.

    sides: functions of Jacobian entries, left and right: the kernel is left(J₁) right(J₂)ᵀ. Both keep 0 at 0, so that
    parameters no example touches still add nothing. Two different ones make a square kernel that is not symmetric.
    """
    paths = leaf_paths(params)
    leaves, groups = [jnp.asarray(leaf) for leaf in paths.values()], [group_of[path] for path in paths]
    # Both sets in one array of examples: one program for each slice.
    n = count_examples(x1)
    examples = x1 if x2 is None else jax.tree.map(lambda a, b: np.concatenate([a, b]), x1, x2)
    first = 0 if x2 is None else n  # where the examples of the columns begin
    symmetric = x2 is None and sides[0] is sides[1]
    apply_flat = _over_leaves(apply_fn, jax.tree.structure(params))

    dtype = jnp.result_type(*leaves)
    accumulate = jnp.promote_types(dtype, jnp.float32)
    total = count_examples(examples)
    per_example = k if outputs == "full" else 1
    shape = (n * per_example, (n if x2 is None else total - n) * per_example)
    kernel_bytes = 2 * len(set(groups)) * shape[0] * shape[1] * accumulate.itemsize
    wanted = _columns(memory, kernel_bytes, total * k * dtype.itemsize)
    touched = {}
    if sum(leaf.size for leaf in leaves) > wanted[0]:
        touched = _touched_rows(apply_flat, leaves, examples)
    fill = _Fill(apply_flat, leaves, examples, k, limit=memory - kernel_bytes)
    slices = _widest_that_fits(fill, partial(partition, leaves, groups, touched), wanted)
    used = sum(piece.columns for pieces in slices for piece in pieces)

    contracted, kernels = 0, {name: jnp.zeros(shape, accumulate) for name in sorted(set(groups))}
    for pieces in slices:
        jacobians = fill(pieces)
        kernels |= {
            name: _contract(kernels[name], jacobian, sides, n, first, outputs) for name, jacobian in jacobians.items()
        }
        del jacobians
        jax.block_until_ready(kernels)
        contracted += sum(piece.columns for piece in pieces)
        if progress is not None:
            progress(contracted, used)

    count = (n, total - n if x2 is not None else n)
    final = (count[0], k, count[1], k) if outputs == "full" else count
    result = {name: _finish(array, symmetric).reshape(final) for name, array in kernels.items()}
    plan = Plan(
        method="jacobian",
        parameters=sum(leaf.size for leaf in leaves),
        zeros=sum(leaf.size for leaf in leaves) - used,
        pieces=len(slices) + bool(touched),
        micro_batch=fill.micro_batch,
        bytes=kernel_bytes + fill.bytes,
    )
    return Kernel(sum(result.values(), np.zeros(final, accumulate)), result, outputs, str(dtype), symmetric, plan)


def _over_leaves(apply_fn: ApplyFn, structure: Any) -> Callable[[list[jax.Array], PyTree], jax.Array]:
    """One example's outputs `[k]` as a function of the list of leaves, at the backend's full precision."""

    def apply_flat(leaves, example):
        with jax.default_matmul_precision("highest"):  # TensorFloat-32 is not float32
            batch = jax.tree.map(lambda leaf: leaf[None], example)
            return apply_fn(jax.tree.unflatten(structure, leaves), batch)[0]

    return apply_flat


def _columns(memory: int, kernel_bytes: int, column_bytes: int) -> list[int]:
    """Columns of a slice to try, widest first."""
    room = memory - kernel_bytes
    if room < column_bytes:
        raise InputError(
            f"memory: a budget of {memory / 1e9:.3g} GB does not hold the kernel itself twice "
            f"({kernel_bytes / 1e9:.3g} GB over its groups) and one Jacobian column; raise it or ask for fewer groups"
        )
    return [max(int(share * room) // column_bytes, 1) for share in _JACOBIAN_SHARES]


def _widest_that_fits(fill: "_Fill", cut: Callable[[int], list[list[Piece]]], wanted: list[int]) -> list[list[Piece]]:
    """Slices of the first width at which one and a micro-batch fit the budget together."""
    *wider, narrowest = wanted
    for columns in wider:
        slices = cut(columns)
        try:
            fill.prepare(slices[0] if slices else [])
        except InputError:
            continue
        return slices
    return cut(narrowest)


def _touched_rows(apply_flat, leaves, examples) -> dict[int, np.ndarray]:
    """Rows of the tall leaves with a gradient that is not zero for some example and output; one backward pass."""
    tall = [i for i, leaf in enumerate(leaves) if leaf_rows(leaf) >= TALL]
    if not tall:
        return {}

    @jax.jit
    def search(leaves, examples):
        def visit(seen, example):
            def outputs_of(chosen):
                return apply_flat(_replace(leaves, tall, chosen), example)

            value, pullback = jax.vjp(outputs_of, [leaves[i] for i in tall])

            def nonzero(cotangent):
                gradients = pullback(cotangent)[0]
                return [jnp.any(g.reshape(g.shape[0], -1) != 0, axis=1) for g in gradients]

            hit = jax.lax.map(nonzero, jnp.eye(value.size, dtype=value.dtype))
            return [s | h.any(axis=0) for s, h in zip(seen, hit, strict=True)], None

        nothing = [jnp.zeros(leaf_rows(leaves[i]), bool) for i in tall]
        return jax.lax.scan(visit, nothing, examples)[0]

    hits = search(leaves, examples)
    return {i: np.flatnonzero(np.asarray(hit)) for i, hit in zip(tall, hits, strict=True)}


class _Fill:
    """Jacobian slices of all examples, `{group: [batches, micro_batch, k, c]}`, padded to whole micro-batches.

    Programs are compiled once for each composition of a slice. The first one settles the micro-batch: the widest
    whose temporary memory fits beside the slice itself. Later ones may narrow it, and then go on at one example rather
    than lose what is done.
    """

    def __init__(self, apply_flat, leaves, examples, k, *, limit: int):
        self._apply_flat, self._leaves, self._k, self._limit = apply_flat, leaves, k, limit
        self._examples, self._count = examples, count_examples(examples)
        self._composition: Any = None
        self._program: Any = None
        self._settled = False
        self.micro_batch = min(_MICRO_BATCH, self._count)
        self.bytes = 0

    def __call__(self, pieces: list[Piece]) -> dict[str, jax.Array]:
        """The Jacobian slice of these pieces."""
        rows = self.prepare(pieces)
        return self._program(self._leaves, rows, self._batches())

    def prepare(self, pieces: list[Piece]) -> list[jax.Array | None]:
        """Compile the program of these pieces; returns their rows. Raises `InputError` when it cannot fit."""
        composition = tuple((p.leaf, p.group, None if p.rows is None else len(p.rows)) for p in pieces)
        rows = [None if piece.rows is None else jnp.asarray(piece.rows) for piece in pieces]
        if composition != self._composition:
            # Only the latest is kept: equal slices follow one another, and programs are memory too.
            self._program = self._compile(composition, rows)
            self._composition = composition
        return rows

    def _compile(self, composition, rows):
        function = jax.jit(partial(_fill, self._apply_flat, composition, self._k))
        while True:
            compiled = function.lower(self._leaves, rows, self._batches()).compile()
            usage = compiled.memory_analysis()
            need = usage.temp_size_in_bytes + usage.output_size_in_bytes if usage is not None else 0
            if need <= self._limit or (self._settled and self.micro_batch == 1):
                break
            if self.micro_batch == 1:
                self.micro_batch = min(_MICRO_BATCH, self._count)
                raise InputError(
                    f"memory: one example's forward and backward pass beside its Jacobian slice needs "
                    f"{need / 1e9:.3g} GB, the budget leaves {self._limit / 1e9:.3g} GB; raise memory"
                )
            self.micro_batch //= 2
        self._settled = True
        self.bytes = max(self.bytes, need)
        return compiled

    def _batches(self) -> PyTree:
        """Examples as `[batches, micro_batch, ...]`, the last batch filled up with the first examples."""
        count = -(-self._count // self.micro_batch) * self.micro_batch
        rows = np.arange(count) % self._count
        return jax.tree.map(
            lambda leaf: np.asarray(leaf)[rows].reshape(-1, self.micro_batch, *np.shape(leaf)[1:]),
            self._examples,
        )


def _fill(apply_flat, composition, k, leaves, rows, batches):
    chosen = sorted({leaf for leaf, _, _ in composition})

    def of_example(example):
        value, pullback = jax.vjp(
            lambda subset: apply_flat(_replace(leaves, chosen, subset), example), [leaves[i] for i in chosen]
        )
        (gradients,) = jax.vmap(pullback)(jnp.eye(k, dtype=value.dtype))
        by_leaf = dict(zip(chosen, gradients, strict=True))
        columns: dict[str, list] = {}
        for (leaf, group, _), chosen_rows in zip(composition, rows, strict=True):
            gradient = by_leaf[leaf].reshape(k, leaf_rows(leaves[leaf]), -1)
            if chosen_rows is not None:
                gradient = gradient[:, chosen_rows]
            columns.setdefault(group, []).append(gradient.reshape(k, -1))
        return {group: jnp.concatenate(parts, axis=1) for group, parts in columns.items()}

    return jax.lax.map(jax.vmap(of_example), batches)


@partial(jax.jit, static_argnums=(2, 3, 4, 5))
def _contract(kernel, jacobian, sides, n, first, outputs):
    """Add one slice's J Jᵀ, block of columns by block of columns; of a symmetric kernel, only the lower tiles."""
    batches, micro_batch, k, _ = jacobian.shape
    rows = k if outputs == "full" else 1
    flat = jacobian.reshape(batches * micro_batch * rows, -1)
    height, width = kernel.shape
    product = partial(
        jax.lax.dot_general,
        dimension_numbers=(((1,), (1,)), ((), ())),
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=kernel.dtype,
    )

    def add(kernel, block):
        left = sides[0](block[: n * rows])
        if first > 0 or sides[0] is not sides[1]:
            return kernel + product(left, sides[1](block[first * rows : first * rows + width]))
        tile = max(_TILE, -(-height // 16))
        for start in range(0, height, tile):
            stop = min(start + tile, height)
            kernel = kernel.at[start:stop, :stop].add(product(left[start:stop], left[:stop]))
        return kernel

    size = min(_BLOCK, flat.shape[1])
    blocks, rest = divmod(flat.shape[1], size)
    kernel = jax.lax.fori_loop(
        0,
        blocks,
        lambda i, kernel: add(kernel, jax.lax.dynamic_slice_in_dim(flat, i * size, size, axis=1)),
        kernel,
    )
    return add(kernel, flat[:, blocks * size :]) if rest else kernel


def _finish(kernel: jax.Array, symmetric: bool) -> np.ndarray:
    array = np.asarray(kernel)
    return np.tril(array) + np.tril(array, -1).T if symmetric else array


def _replace(leaves, positions, values):
    replaced = list(leaves)
    for position, value in zip(positions, values, strict=True):
        replaced[position] = value
    return replaced
