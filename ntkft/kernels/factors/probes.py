"""Random probes of gradients, taken from the factors (a, b) without forming a gradient.

A probe of a block with gradient G = Σ_t a_t b_tᵀ `[rows, width]` projects it from both sides,

    f = uᵀ G v = Σ_t (u·a_t)(v·b_t),      u, v independent random signs,

so that E[f f'] = ⟨G, G'⟩ for any two gradients, and the mean of f f' over r probes estimates their product. Leaving out
the fourth moments of signs, which only lower it, the variance of that mean is

    (1/r) [ ‖G‖²‖G'‖² + ⟨G,G'⟩² + 2‖G Gᵀ'‖² + 2‖Gᵀ G'‖² + 2 tr (Gᵀ G')² ]        (G Gᵀ' = G G'ᵀ, Frobenius norms)

of which the first two terms are those of a dense projection. Sharing vectors between probes, r = p·q pairs of p vectors
u with q vectors v (a Kronecker product), multiplies the third to fifth term by about q, p and p + q: for a given r, no
shape has less variance than independent pairs, p = q = 1, and only the cost of (u·a), (v·b) speaks for another.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ntkft._tree import count_examples, leaf_paths
from ntkft._types import ApplyFn, Array, Outputs, PyTree
from ntkft.kernels.factors.capture import Block, Program, capture
from ntkft.kernels.factors.segments import Cuts, trace_flow
from ntkft.kernels.factors.sweep import Factors, operand_index, reverse
from ntkft.kernels.operator import batches, compile_within

# Examples differentiated together: probing is a product for each block, as the backward pass is.
_MICRO_BATCH = 16


@dataclass(frozen=True)
class Slot:
    """Blocks of one group whose probes are added: one matrix, or all vectors (biases, norms) together.

    Sums of independent probes are probes of the joined gradient: cross terms have mean zero.
    """

    group: str
    blocks: tuple[int, ...]


class Signs(NamedTuple):
    """Random signs, int8: for each block u `[batch, rows, r]` and v `[batch, width, r]`.

    mix: `[k, r]`, for traces: Σ_a mix_a f_a probes the gradients of all outputs stacked
    """

    blocks: tuple[tuple[Array, Array], ...]
    mix: Array


class Prober:
    """Probes of gradients of examples like `inputs`: the same, for the same seed and counts, whatever the examples."""

    def __init__(
        self, apply_fn: ApplyFn, params: PyTree, inputs: PyTree, *, group_of: dict[str, str], k: int, seed: int
    ):
        paths = leaf_paths(params)
        self._program = capture(apply_fn, params, inputs)
        self._flow = trace_flow(self._program, k)
        (self._segment,) = self._flow.segments(Cuts())
        jaxpr = self._program.closed.jaxpr
        given = [*jaxpr.constvars, *jaxpr.invars[: self._program.leaves]]
        values = dict(zip(given, [*self._program.closed.consts, *paths.values()], strict=True))
        self._weights = [jnp.asarray(values[variable]) for variable in self._segment.weights]
        self._inputs = [jaxpr.invars[self._program.leaves :].index(variable) for variable in self._segment.inputs]
        self._k, self._seed = k, seed
        self.dtype = np.dtype(jnp.result_type(*paths.values(), jaxpr.outvars[0].aval, jnp.float32))
        self.slots = _slots(self._program, [group_of[path] for path in paths])

    def __call__(
        self, examples: PyTree, counts: Sequence[int], outputs: Outputs, *, stream: int, memory: int
    ) -> list[np.ndarray]:
        """Probes `[n, k, r]` of each slot, r from `counts`; for "trace" `[n, 1, r]`, all outputs mixed.

        stream: probes of different streams are independent.
        Cost: a forward and a backward pass without weight gradients, and t·(rows + k·width)·r multiply-adds for each
        block and example. Raises `InputError` when one example does not fit in `memory` bytes.
        """
        signs = [self._draw(stream, slot, count) for slot, count in zip(self.slots, counts, strict=True)]
        leaves, n = jax.tree.leaves(examples), count_examples(examples)
        micro_batches = partial(batches, [np.asarray(leaves[i]) for i in self._inputs])

        def step(weights, signs, batch):
            return jax.vmap(lambda example: self._of_example(weights, signs, example, outputs))(batch)

        program, micro_batch = compile_within(
            lambda size: jax.jit(step).lower(self._weights, signs, [rows[0] for rows in micro_batches(size)]),
            min(_MICRO_BATCH, n),
            memory,
            "probing the gradient of one example",
        )
        found = [
            [np.asarray(array) for array in program(self._weights, signs, list(batch))]
            for batch in zip(*micro_batches(micro_batch), strict=True)
        ]
        return [np.concatenate(column)[:n] for column in zip(*found, strict=True)]

    def _draw(self, stream: int, slot: Slot, count: int) -> Signs:
        # By NumPy: JAX would compile a program for each of the many shapes.
        generator = np.random.default_rng([self._seed, stream, slot.blocks[0]])

        def draw(*shape):
            return 2 * generator.integers(0, 2, (*shape, count), np.int8) - 1

        sizes = [_matrix(self._program, self._program.blocks[index]) for index in slot.blocks]
        blocks = tuple((draw(batch, rows), draw(batch, width)) for batch, rows, width in sizes)
        return Signs(blocks, draw(self._k))

    def _of_example(self, weights, signs, example, outputs) -> list[jax.Array]:
        """Probes `[k, r]` of each slot."""
        with jax.default_matmul_precision("highest"):  # TensorFloat-32 is not float32
            _, factors = reverse(self._flow, self._segment, weights, example, [], None)
            return [self._of_slot(factors, slot, drawn, outputs) for slot, drawn in zip(self.slots, signs, strict=True)]

    def _of_slot(self, factors: Factors, slot: Slot, signs: Signs, outputs: Outputs) -> jax.Array:
        positions = operand_index(self._program, self._segment)
        total = jnp.zeros(signs.mix.shape, self.dtype)
        for index, (u, v) in zip(slot.blocks, signs.blocks, strict=True):
            block = self._program.blocks[index]
            for site, swapped in zip(block.sites, block.swapped, strict=True):
                kind = self._program.sites[site].kind
                operand = factors.operands[positions[site]] if site in positions else None
                cotangent = factors.cotangents[self._segment.sites.index(site)]
                total += _probe(kind, operand, cotangent, *((v, u) if swapped else (u, v)), self.dtype)
        return (signs.mix * total).sum(axis=0, keepdims=True) if outputs == "trace" else total


def _probe(kind: str, operand: Any, cotangent: jax.Array, u: Any, v: Any, dtype: np.dtype) -> jax.Array:
    """One site's Σ_t (u·a_t)(v·b_t) `[k, r]`."""
    b, v = cotangent.astype(dtype), v.astype(dtype)
    if kind in ("affine", "explicit"):
        gradient = b.reshape(len(b), u.shape[1], v.shape[1])
        return jnp.einsum("kcr,cr->kr", jnp.einsum("kcw,wr->kcr", gradient, v[0]), u[0].astype(dtype))
    if kind == "rows":
        # As in the gather itself, a token outside the table reads nothing, and has no gradient.
        left = u[0].at[operand].get(mode="fill", fill_value=0, wrap_negative_indices=False).astype(dtype)
        return jnp.einsum("tr,ktr->kr", left, jnp.einsum("ktw,wr->ktr", b, v[0]))
    left = jnp.einsum("gtc,gcr->gtr", operand.astype(dtype), u.astype(dtype))
    return jnp.einsum("gtr,kgtr->kr", left, jnp.einsum("kgtw,gwr->kgtr", b, v))


def _slots(program: Program, groups: Sequence[str]) -> tuple[Slot, ...]:
    matrices, vectors = [], {}
    for index, block in enumerate(program.blocks):
        group = groups[block.leaf]
        if _matrix(program, block)[:2] == (1, 1):
            vectors.setdefault(group, []).append(index)
        else:
            matrices.append(Slot(group, (index,)))
    return (*matrices, *(Slot(group, tuple(blocks)) for group, blocks in vectors.items()))


def _matrix(program: Program, block: Block) -> tuple[int, int, int]:
    """Batch, rows and width of a block's gradient; a leaf that is explicit keeps its own last axis as width."""
    shape = program.closed.jaxpr.invars[block.leaf].aval.shape
    explicit = program.sites[block.sites[0]].kind == "explicit"
    return (1, block.size // shape[-1], shape[-1]) if explicit and len(shape) > 1 and block.size else block.sizes
