"""Kernels from a sample of rows (Nyström), and how far they are from the exact kernel.

    K̃ = C W⁺ Cᵀ,    C = Θ(x, landmarks) `[n, m]`,  W = Θ(landmarks, landmarks) `[m, m]`

replaces n² entries by nm and has rank m at most. E = K − K̃ is positive semi-definite (a Schur complement), so its
trace is its nuclear norm, known exactly from the diagonal of K; its Frobenius norm is estimated on sampled entries.
Landmarks are whole examples: with `outputs="full"` all k rows of each are taken.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Float, Int, Num

from ntkft._errors import InputError, refuse
from ntkft._tree import count_examples, take_examples
from ntkft._types import ApplyFn, Array, Outputs, PyTree
from ntkft.kernels.checks import check_form
from ntkft.kernels.kernel import Kernel
from ntkft.kernels.memory import budget_bytes
from ntkft.kernels.operator import batches, compile_within

# Pairs of examples differentiated at once; each holds two gradients.
_MICRO_BATCH = 4


@dataclass(frozen=True, eq=False)
class Nystrom:
    """An approximation K̃ = F Fᵀ of a kernel, unnormalised, in float64 on the host.

    factor:    F = C V_q D_q^{-1/2} `[n, q]`, or `[n·k, q]`, from the eigenpairs W = V D Vᵀ above the floor
    floor:     eps(precision)·d₁·√(order of W): smaller eigenvalues of W are rounding noise, whose inverses would
               swamp K̃, and are dropped
    n:         number of examples
    outputs:   which form of the kernel this approximates
    precision: floating type in which C and W were computed
    """

    factor: Float[np.ndarray, "r q"]
    floor: float
    n: int
    outputs: Outputs
    precision: str

    @property
    def rank(self) -> int:
        """Rank q of the approximation."""
        return self.factor.shape[1]

    def matrix(self) -> Float[np.ndarray, "r r"]:
        """K̃, dense. Cost: n² q multiply-adds."""
        return self.factor @ self.factor.T

    def eigenvalues(self) -> Float[np.ndarray, " r"]:
        """All eigenvalues of K̃/n, descending: q that are positive, then zeros. Cost: n q² + q³."""
        values = np.zeros(len(self.factor))
        values[: self.rank] = np.linalg.svd(self.factor, compute_uv=False) ** 2 / self.n
        return values


@dataclass(frozen=True)
class NystromError:
    """Distance of the exact kernel K from an approximation K̃, in the units of K.

    trace:          tr K − tr K̃, exact: the nuclear norm of K − K̃, and a bound on its Frobenius and spectral norms
    relative_trace: the same, divided by tr K
    frobenius:      ‖K − K̃‖_F, its diagonal exact and the rest estimated on `entries` sampled entries
    standard_error: of `frobenius`, from the spread of the sampled entries
    relative_frobenius: `frobenius`/‖K̃‖_F, a bound on the error relative to ‖K‖_F up to the standard error: ‖K̃‖_F is
                    not above ‖K‖_F, since K̃ and K − K̃ are positive semi-definite
    """

    trace: float
    relative_trace: float
    frobenius: float
    standard_error: float
    relative_frobenius: float
    entries: int


def sample_rows(n: int, count: int, *, seed: int, weights: Num[Array, "..."] | None = None) -> Int[np.ndarray, " m"]:
    """Indices of `count` of n examples, ascending, drawn without replacement.

    weights: `[n]` or `[n, k]`, probabilities up to a factor; None is uniform. The kernel's diagonal favours examples
    with large gradients (Drineas & Mahoney 2005 take its square); leverage scores favour those that no others explain
    (Gittens & Mahoney 2016). Raises `InputError` unless enough weights are positive.
    """
    probabilities = np.ones(n) if weights is None else np.asarray(weights, np.float64).reshape(n, -1).sum(axis=1)
    if not (np.all(probabilities >= 0) and np.isfinite(probabilities).all()):
        raise InputError("sample_rows: weights hold negative, NaN or infinite values; wanted probabilities")
    if not 0 < count <= np.sum(probabilities > 0):
        raise InputError(
            f"sample_rows: got count={count}; wanted 1 to {np.sum(probabilities > 0)}, the number of examples with a "
            "positive weight"
        )
    generator = np.random.default_rng(seed)
    return np.sort(generator.choice(n, count, replace=False, p=probabilities / probabilities.sum()))


def nystrom(cross: Kernel, landmarks: Kernel) -> Nystrom:
    """K̃ = C W⁺ Cᵀ from C = `cross`, the kernel of all examples with the landmarks, and W = `landmarks`, their own.

        rows = sample_rows(n, 256, seed=0)
        chosen = take_examples(x, rows)
        nystrom(empirical_ntk(f, params, x, chosen, outputs=...), empirical_ntk(f, params, chosen, outputs=...))

    Exact when the landmarks' gradients span those of all examples. Cost: ≈ 9m³ + 2nmq FLOPs in float64. Raises
    `InputError` for kernels that do not belong together, are not finite, or are zero on the landmarks.
    Source: Williams & Seeger 2001, *Using the Nyström method to speed up kernel machines*.
    """
    rectangle, square = (np.asarray(kernel.matrix(), np.float64) for kernel in (cross, landmarks))
    problems = []
    if cross.outputs != landmarks.outputs:
        problems.append(f"cross has outputs={cross.outputs!r}, landmarks {landmarks.outputs!r}; compute both alike")
    if not landmarks.symmetric or rectangle.shape[1] != square.shape[0]:
        problems.append(
            f"cross is {list(rectangle.shape)} and landmarks {list(square.shape)}; wanted the kernel of all examples "
            "with m landmarks, and that of the landmarks with themselves (x2=None)"
        )
    if not (np.isfinite(rectangle).all() and np.isfinite(square).all()):
        problems.append("the kernels hold NaN or infinity; compute them again with check=True")
    elif not square.any():
        problems.append("the kernel of the landmarks is zero; choose examples with a gradient")
    refuse("nystrom", problems)
    values, vectors = scipy.linalg.eigh(square, driver="evd")
    floor = float(jnp.finfo(landmarks.precision).eps) * max(float(values[-1]), 0.0) * float(np.sqrt(len(values)))
    kept = values > floor
    factor = rectangle @ (vectors[:, kept] / np.sqrt(values[kept])[None])
    return Nystrom(factor, floor, cross.total.shape[0], cross.outputs, landmarks.precision)


def nystrom_error(
    approximation: Nystrom,
    apply_fn: ApplyFn,
    params: PyTree,
    x: PyTree,
    *,
    entries: int,
    seed: int,
    memory: int | float | str | None = None,
) -> NystromError:
    """How far `approximation` is from the exact kernel of the examples x that it approximates.

    With E = K − K̃ of order r: ‖E‖_F² = Σ_u E_uu² + r(r−1)·mean of E_uv² over u ≠ v, the mean over `entries` pairs drawn
    uniformly with replacement, its standard error carried to ‖E‖_F to first order.

    Cost: `kernel_diagonal`, and `kernel_entries` for the sample. Raises `InputError` for fewer than two entries or for
    other examples than the approximation's.
    """
    order, n = len(approximation.factor), count_examples(x)
    problems = [] if entries >= 2 else [f"got entries={entries}; wanted two or more, so that they have a spread"]
    if n != approximation.n:
        problems.append(f"got {n} examples, the approximation is of {approximation.n}; pass the same x")
    if order < 2:
        problems.append("a kernel of one row has no other entries; it needs no approximation")
    refuse("nystrom_error", problems)
    factor, outputs = approximation.factor, approximation.outputs
    exact = kernel_diagonal(apply_fn, params, x, outputs=outputs, memory=memory).astype(np.float64).reshape(-1)
    diagonal = exact - np.sum(factor**2, axis=1)
    generator = np.random.default_rng(seed)
    rows = generator.integers(0, order, entries)
    columns = (rows + generator.integers(1, order, entries)) % order
    sampled = kernel_entries(apply_fn, params, x, rows, columns, outputs=outputs, memory=memory).astype(np.float64)
    squares = order * (order - 1) * (sampled - np.sum(factor[rows] * factor[columns], axis=1)) ** 2
    frobenius = float(np.sqrt(np.sum(diagonal**2) + squares.mean()))
    spread = float(squares.std(ddof=1) / np.sqrt(entries))
    return NystromError(
        trace=float(diagonal.sum()),
        relative_trace=float(diagonal.sum() / exact.sum()),
        frobenius=frobenius,
        standard_error=spread / (2 * frobenius) if frobenius else 0.0,
        relative_frobenius=frobenius / float(np.linalg.norm(factor.T @ factor)),
        entries=entries,
    )


def kernel_diagonal(
    apply_fn: ApplyFn, params: PyTree, x: PyTree, *, outputs: Outputs, memory: int | float | str | None = None
) -> Float[np.ndarray, "..."]:
    """The exact diagonal of the kernel: squared gradient norms ‖∂f_a(x_i)/∂θ‖².

    `[n, k]` for "full", summed over a `[n]` for "trace" and "scalar". Cost: one forward pass and k backward passes for
    each example; memory of one gradient for each example of a micro-batch. Raises `InputError` as `empirical_ntk` does.
    """
    k = check_form(apply_fn, params, x, outputs)
    basis = np.broadcast_to(np.eye(k), (count_examples(x), k, k))
    norms = _gradient_products(apply_fn, params, (x, basis), None, memory)
    return norms if outputs == "full" else norms.sum(axis=1)


def kernel_entries(
    apply_fn: ApplyFn,
    params: PyTree,
    x: PyTree,
    rows: Int[Array, " s"],
    columns: Int[Array, " s"],
    *,
    outputs: Outputs,
    memory: int | float | str | None = None,
) -> Float[np.ndarray, " s"]:
    """Exact single entries of the kernel matrix: at `rows[s]`, `columns[s]`, indices i·k + a for "full".

    Cost for each entry: two gradients, or 2k for "trace". Raises `InputError` for indices out of range, and as
    `empirical_ntk` does.
    """
    k = check_form(apply_fn, params, x, outputs)
    block = k if outputs == "full" else 1
    order = count_examples(x) * block
    both = [np.asarray(rows), np.asarray(columns)]
    if any(np.any((side < 0) | (side >= order)) for side in both):
        raise InputError(f"kernel_entries: got indices outside 0 … {order - 1}, the rows of the kernel matrix")
    every = np.broadcast_to(np.eye(k), (len(both[0]), k, k))
    first, second = (
        (take_examples(x, side // block), every if outputs == "trace" else np.eye(k)[side % block][:, None])
        for side in both
    )
    return _gradient_products(apply_fn, params, first, second, memory).sum(axis=1)


def _gradient_products(apply_fn, params, first, second, memory) -> np.ndarray:
    """⟨J(x_s)ᵀu_sc, J(x'_s)ᵀu'_sc⟩ `[s, c]`, examples with cotangents `[s, c, k]`; `second` None is `first` again."""
    dtype = jnp.promote_types(jnp.result_type(*jax.tree.leaves(params)), jnp.float32)

    def pullback_at(params, example):
        batch = jax.tree.map(lambda leaf: leaf[None], example)
        value, pullback = jax.vjp(lambda point: apply_fn(point, batch)[0], params)
        return lambda cotangent: jax.tree.leaves(pullback(cotangent.astype(value.dtype)))

    def of_pair(params, pair):
        (example, cotangents), other = pair
        gradient_of = pullback_at(params, example)
        other_of = None if other is None else pullback_at(params, other[0])

        def product(both):
            gradient = gradient_of(both[0])
            leaves = zip(gradient, gradient if other_of is None else other_of(both[1]), strict=True)
            return sum((jnp.vdot(a, b, preferred_element_type=dtype) for a, b in leaves), jnp.zeros((), dtype))

        return jax.lax.map(product, (cotangents, cotangents if other is None else other[1]))

    def of_pairs(params, pairs):
        with jax.default_matmul_precision("highest"):  # TensorFloat-32 is not float32
            return jax.lax.map(jax.vmap(lambda pair: of_pair(params, pair)), pairs)

    count = count_examples(first)
    program, micro_batch = compile_within(
        lambda micro_batch: jax.jit(of_pairs).lower(params, batches((first, second), micro_batch)),
        min(_MICRO_BATCH, count),
        budget_bytes(memory),
        "the gradients of one pair of examples",
    )
    products = np.asarray(program(params, batches((first, second), micro_batch)))
    return products.reshape(-1, products.shape[-1])[:count]
