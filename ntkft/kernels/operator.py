"""Products with the kernel without the kernel: Θv = J(Jᵀv), streamed over the examples.

Jᵀv = Σ_i J_iᵀv_i is one vector-Jacobian product over all examples: a single array of the parameters' shape. Jg is one
Jacobian-vector product. Neither needs the gradient of a single example, so memory is that of the parameters and of one
micro-batch, whatever n. But this is paid again for every vector: `dense_or_matrix_free` says when it is cheaper.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Num
from scipy.sparse.linalg import LinearOperator

from ntkft._errors import InputError, refuse
from ntkft._tree import count_examples, leaf_paths
from ntkft._types import ApplyFn, Array, Outputs, PyTree
from ntkft.kernels.checks import check_apply_fn, check_form, check_outputs
from ntkft.kernels.memory import budget_bytes

# Examples differentiated together: enough rows in each weight gradient's GEMM to hide adding it to the sum.
_MICRO_BATCH = 32
# Arrays of the parameters' shape that one vector needs: the sum, a micro-batch's addend, and the loop's copy.
_COPIES = 3


class KernelOperator:
    """The kernel Θ[i,a,j,b] = ⟨∂f_a(x1_i)/∂θ, ∂f_b(x2_j)/∂θ⟩, unnormalised, as a linear map: call it on vectors.

    apply_fn: `(params, inputs) -> [n, k]`; row i depends on example i only
    x1, x2:   examples of the rows (n) and of the columns (m); `None` for x2 means x1
    outputs:  "full" is the matrix `[n·k, m·k]` in (example, output) order, "scalar" `[n, m]` for k = 1. "trace",
              `[n, m]`, is Σ_a J_a J_aᵀ: every output a has a Jᵀv of its own, so one vector takes k products
    group:    a regular expression over parameter paths: the kernel of the leaves in which it is found; None is all
    memory:   budget for the operator's own arrays, in bytes or as "4GB"; None is half of the free device memory. It
              settles how many vectors are multiplied together and how many examples form a micro-batch
    check:    refuse randomness, dependent rows and non-finite values first (one forward pass over x1)

    Cost of a product, for t tokens and p weights: 6ntp FLOPs for Jᵀv (forward, backward, weight gradients) and 6ntp
    for Jg (forward and its tangent); vectors multiplied together share the two forward passes, 4 of the 12. One
    compilation for each number of vectors. Computed in the parameters' type, matrix products at its full precision,
    sums over micro-batches in float32 at least; bfloat16 parameters round Jᵀv to bfloat16 in between.
    Raises `InputError` on unusable input; a product does when the budget does not hold one example.
    Source: Novak, Sohl-Dickstein & Schoenholz 2022, "Fast finite width neural tangent kernel" (NTK-vector products).
    """

    def __init__(
        self,
        apply_fn: ApplyFn,
        params: PyTree,
        x1: PyTree,
        x2: PyTree | None = None,
        *,
        outputs: Outputs,
        group: str | None = None,
        memory: int | float | str | None = None,
        check: bool = True,
    ):
        self.k = check_form(apply_fn, params, x1, outputs)
        if x2 is not None:
            check_form(apply_fn, params, x2, outputs)
        leaves = {path: jnp.asarray(leaf) for path, leaf in leaf_paths(params).items()}
        self._chosen = {path: leaf for path, leaf in leaves.items() if re.search(group or "", path)}
        self._fixed = {path: leaf for path, leaf in leaves.items() if path not in self._chosen}
        if not self._chosen:
            raise InputError(
                f"KernelOperator: group {group!r} matches no parameter; the first of {len(leaves)} paths is "
                f"{next(iter(leaves), '')!r}"
            )
        self._budget = budget_bytes(memory)
        if check:
            check_apply_fn(apply_fn, params, x1)
            check_outputs(apply_fn, params, x1)
        self._apply = _over_leaves(apply_fn, jax.tree.structure(params), list(leaves))
        self._examples, self._rectangular = (x1, x1 if x2 is None else x2), x2 is not None
        self.n, self.m = map(count_examples, self._examples)
        self.outputs, self.precision = outputs, str(jnp.result_type(*leaves.values()))
        self._block = self.k if outputs == "full" else 1
        self._programs: dict[tuple[int, bool], tuple[Any, int]] = {}
        self._products, self._micro_batch = 0, 0

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the matrix: `(n·k, m·k)` for "full", else `(n, m)`."""
        return self.n * self._block, self.m * self._block

    @property
    def products(self) -> int:
        """Products J(Jᵀv) made so far: one for each vector, k for "trace"."""
        return self._products

    @property
    def micro_batch(self) -> int:
        """Examples differentiated together in the latest product, settled by the memory budget; 0 before the first."""
        return self._micro_batch

    def __call__(self, vectors: Num[Array, "..."]) -> Float[np.ndarray, "..."]:
        """Θv for one vector `[m·k]` or `[m, k]`, or for b of them `[m·k, b]`; n takes the place of m."""
        return self._multiply(vectors, adjoint=False)

    def adjoint(self, vectors: Num[Array, "..."]) -> Float[np.ndarray, "..."]:
        """Θᵀv, with n and m exchanged; the same as Θv when x2 is None."""
        return self._multiply(vectors, adjoint=self._rectangular)

    def scipy(self) -> LinearOperator:
        """The same map for SciPy's solvers."""
        operations = {"matvec": self, "matmat": self, "rmatvec": self.adjoint, "rmatmat": self.adjoint}
        return LinearOperator(shape=self.shape, dtype=np.dtype(_at_least_float32(self.precision)), **operations)

    def _multiply(self, vectors: Array, adjoint: bool) -> np.ndarray:
        block, (n, m) = self._block, (self.m, self.n) if adjoint else (self.n, self.m)
        by_example = block > 1 and vectors.shape == (m, block)
        if not by_example and (vectors.ndim not in (1, 2) or vectors.shape[0] != m * block or not vectors.size):
            alternative = f", or one vector as [{m}, {block}]" if block > 1 else ""
            raise InputError(
                f"KernelOperator: got vectors of shape {list(vectors.shape)}; wanted [{m * block}] or "
                f"[{m * block}, b]{alternative}"
            )
        stacked = np.asarray(vectors).reshape(m, block, 1 if by_example else -1)
        if self.outputs == "trace":
            # A copy for each output a, zero on the others: column (a, c) of [m, k, k·b] is vector c as seen by J_a.
            stacked = np.einsum("ab,ic->iabc", np.eye(self.k), stacked[:, 0]).reshape(m, self.k, -1)
        product = self._stream(stacked, adjoint)
        if self.outputs == "trace":
            product = np.einsum("iaac->ic", product.reshape(n, self.k, self.k, -1))
        return product.reshape(n if by_example else n * block, *vectors.shape[1:])

    def _stream(self, stacked: np.ndarray, adjoint: bool) -> np.ndarray:
        """J₁J₂ᵀ on `[m, k, b]`; as many of the b vectors together as half of the budget holds."""
        size = sum(leaf.size for leaf in self._chosen.values()) * _at_least_float32(self.precision).itemsize
        chunks = -(-stacked.shape[2] // max(1, self._budget // (2 * _COPIES * size)))
        width = -(-stacked.shape[2] // chunks)  # equal chunks: one program
        n = self.m if adjoint else self.n
        parts = []
        for start in range(0, stacked.shape[2], width):
            part = stacked[:, :, start : start + width]
            product = self._run(np.pad(part, ((0, 0), (0, 0), (0, width - part.shape[2]))), adjoint)
            parts.append(product.reshape(-1, self.k, width)[:n, :, : part.shape[2]])
        self._products += stacked.shape[2]
        return np.concatenate(parts, axis=2)

    def _run(self, stacked: np.ndarray, adjoint: bool) -> np.ndarray:
        width = stacked.shape[2]
        targets, sources = reversed(self._examples) if adjoint else self._examples

        def arguments(micro_batch: int) -> tuple:
            batched = [batches(examples, micro_batch) for examples in (targets, sources)]
            # Zero cotangents: what fills up the last micro-batch adds nothing.
            padded = np.pad(stacked, ((0, -len(stacked) % micro_batch), (0, 0), (0, 0)))
            cotangents = padded.reshape(-1, micro_batch, self.k, width).astype(_at_least_float32(self.precision))
            return self._chosen, self._fixed, *batched, cotangents

        if (width, adjoint) not in self._programs:
            function = jax.jit(partial(_product, self._apply))
            self._programs[width, adjoint] = compile_within(
                lambda micro_batch: function.lower(*arguments(micro_batch)),
                min(_MICRO_BATCH, max(self.n, self.m)),
                self._budget,
                "one example's forward and backward pass beside the sum of gradients",
            )
        program, self._micro_batch = self._programs[width, adjoint]
        return np.asarray(program(*arguments(self._micro_batch)))


@dataclass(frozen=True)
class Choice:
    """Which way to products with a kernel is cheaper, in floating-point operations.

    flops_dense, flops_matrix_free: floors of the two costs
    kernel_bytes: memory of the dense kernel, held twice while it is summed up
    fits:         whether that is within the budget
    choice:       the cheaper one, except that a kernel that does not fit leaves only "matrix_free"
    sentence:     all of this in words
    """

    flops_dense: float
    flops_matrix_free: float
    kernel_bytes: int
    fits: bool
    choice: Literal["dense", "matrix_free"]
    sentence: str


def dense_or_matrix_free(
    n: int,
    k: int,
    tokens: int,
    parameters: int,
    products: int,
    *,
    precision: str = "float32",
    memory: int | float | str | None = None,
) -> Choice:
    """Compare the floors of computing the full kernel once and of `products` matrix-free products with it.

    n examples of T = `tokens` tokens each, k outputs, P = `parameters` weights that every token passes through (tables
    of embeddings do not count); m = `products` as counted by `KernelOperator.products`.

    One matrix product with all weights, over all tokens of all examples, is 2nTP FLOPs, and so are its two
    derivatives, one by the tokens and one by the weights. Hence

        dense         2nTP            forward, once
                    + 2nTP·k          backward by the tokens, for every output
                    + 2nTP·k          forming the gradients of every example and output
                    + (nk)²P          their symmetric product: half of 2(nk)²P
        matrix-free  10nTP·m          forward 2, backward 2, weight gradients 2, and the tangent of a product of two
                                      factors, 4

    and dense is cheaper while nk² < (10m − 4k − 2)T. These are floors of both: the tangent can share the forward pass
    only if all activations are kept, and streaming repeats it (12 instead of 10). What follows on the dense kernel is
    left out: each product with it takes 2(nk)² and its eigenvalues ≈ 9(nk)³, small while nk ≪ P.

    Raises `InputError` unless all five numbers are positive. Cost: none.
    """
    counts = {"n": n, "k": k, "tokens": tokens, "parameters": parameters, "products": products}
    refuse(
        "dense_or_matrix_free",
        [f"{name} is {count}; wanted a number above zero" for name, count in counts.items() if not count > 0],
    )
    sweep = float(n) * tokens * parameters
    flops = {"dense": (2 + 4 * k) * sweep + (float(n) * k) ** 2 * parameters, "matrix_free": 10 * products * sweep}
    names = {"dense": "the dense kernel", "matrix_free": f"{products:,} matrix-free products"}
    cheaper, dearer = sorted(flops, key=lambda name: flops[name])
    held, budget = 2 * (n * k) ** 2 * jnp.dtype(precision).itemsize, budget_bytes(memory)
    fits = held <= budget
    sentence = (
        f"{names[cheaper]}: {flops[cheaper]:.2g} FLOPs, {flops[dearer] / flops[cheaper]:.3g} times fewer than "
        f"{names[dearer]}; K, held twice, is {held / 1e9:.3g} GB and {'fits' if fits else 'does not fit'} the budget "
        f"of {budget / 1e9:.3g} GB" + ("" if fits else ", which leaves the matrix-free products")
    )
    choice = "dense" if fits and cheaper == "dense" else "matrix_free"
    return Choice(flops["dense"], flops["matrix_free"], held, fits, choice, sentence)


def compile_within(lower: Callable[[int], Any], widest: int, budget: int, what: str) -> tuple[Any, int]:
    """The compiled program of the widest micro-batch, halved from `widest`, that fits in `budget` bytes; and its width.

    lower: micro-batch → lowered program; what: what a single example needs, for the `InputError` when it does not fit.
    XLA's own accounting of temporary memory and results decides. Cost: one compilation for every width tried.
    """
    micro_batch = widest
    while True:
        compiled = lower(micro_batch).compile()
        usage = compiled.memory_analysis()
        need = usage.temp_size_in_bytes + usage.output_size_in_bytes if usage is not None else 0
        if need <= budget:
            return compiled, micro_batch
        if micro_batch == 1:
            raise InputError(
                f"memory: {what} needs {need / 1e9:.3g} GB, the budget is {budget / 1e9:.3g} GB; raise memory"
            )
        micro_batch //= 2


def batches(examples: PyTree, micro_batch: int) -> PyTree:
    """Examples as `[batches, micro_batch, ...]`, the last batch filled up with the first examples."""
    n = count_examples(examples)
    rows = np.arange(-(-n // micro_batch) * micro_batch) % n
    return jax.tree.map(lambda leaf: np.asarray(leaf)[rows].reshape(-1, micro_batch, *np.shape(leaf)[1:]), examples)


def _product(apply_leaves, chosen, fixed, targets, sources, cotangents):
    """J_targets J_sourcesᵀ on cotangents `[batches, micro_batch, k, b]`, batch by batch."""

    def down(total, batch):
        examples, cotangent = batch
        value, pullback = jax.vjp(lambda leaves: apply_leaves(leaves, fixed, examples), chosen)
        (gradients,) = jax.vmap(pullback, in_axes=-1)(cotangent.astype(value.dtype))
        return jax.tree.map(lambda t, g: t + g.astype(t.dtype), total, gradients), None

    def up(examples):
        def along(tangent):
            return jax.jvp(lambda leaves: apply_leaves(leaves, fixed, examples), (chosen,), (tangent,))[1]

        return jax.vmap(along, out_axes=-1)(direction).astype(cotangents.dtype)

    width = cotangents.shape[-1]
    zero = jax.tree.map(lambda leaf: jnp.zeros((width, *leaf.shape), _at_least_float32(leaf.dtype)), chosen)
    total, _ = jax.lax.scan(down, zero, (sources, cotangents))
    direction = jax.tree.map(lambda t, leaf: t.astype(leaf.dtype), total, chosen)
    return jax.lax.map(up, targets)


def _over_leaves(apply_fn: ApplyFn, structure: Any, order: list[str]) -> Callable[..., jax.Array]:
    """`apply_fn` as a function of the leaves chosen, the leaves fixed and the inputs, at full precision."""

    def apply_leaves(chosen, fixed, inputs):
        leaves = chosen | fixed
        with jax.default_matmul_precision("highest"):  # TensorFloat-32 is not float32
            return apply_fn(jax.tree.unflatten(structure, [leaves[path] for path in order]), inputs)

    return apply_leaves


def _at_least_float32(dtype) -> np.dtype:
    return jnp.promote_types(dtype, jnp.float32)
