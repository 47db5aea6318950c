"""Spectra from products alone: the largest eigenpairs, and the density of all eigenvalues.

For kernels that are too large to form. Lanczos' method turns s products with K = 𝕂/n and a start vector q into a
tridiagonal matrix T `[s, s]`. Its eigenvalues approach the extreme ones of K; and with the squared first components of
its eigenvectors as weights they are the nodes of the Gauss quadrature Σ_j w_j g(θ_j) of qᵀ g(K) q, exact for
polynomials g of degree below 2s (Golub & Welsch 1969). Averaged over random q this is (1/r) tr g(K), r the order of K:
stochastic Lanczos quadrature (Ubaru, Chen & Saad 2017), whose standard errors are those of the mean over q.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, SupportsFloat, runtime_checkable

import numpy as np
from jaxtyping import Float, Num
from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, LinearOperator, eigsh

from ntkft._errors import InputError, refuse
from ntkft._types import Array
from ntkft.spectra.eigen import machine_epsilon


@runtime_checkable
class SymmetricOperator(Protocol):
    """What is needed of a kernel that is never formed; `ntkft.kernels.KernelOperator` with x2 = None is one."""

    @property
    def shape(self) -> tuple[int, int]:
        """Shape `(r, r)` of the matrix."""
        ...

    n: int
    """Number of examples, by which the kernel is normalised."""

    precision: str
    """Floating type in which products are computed."""

    def __call__(self, vectors: Num[Array, "..."], /) -> Num[Array, "..."]:
        """𝕂v, unnormalised, for one vector `[r]` or b of them `[r, b]`."""
        ...


@dataclass(frozen=True, eq=False)
class TopEigenpairs:
    """The largest eigenpairs of K = 𝕂/n, descending, with what is known of their error.

    eigenvalues:  `[r]`; fewer than asked for when the iteration stopped early
    eigenvectors: `[n, r]` (or `[n·k, r]`), orthonormal
    residuals:    `[r]`, ‖K u − λ̂ u‖/λ̂₁, computed with one more product each: an eigenvalue of K lies within
                  residual·λ̂₁ of each λ̂
    floor:        eps(precision)·λ̂₁·√(order of K), below which eigenvalues and residuals are rounding noise
    n:            number of examples
    products:     vectors multiplied, those for the residuals included
    seconds:      wall-clock time
    tolerance:    what was asked of each residual, relative to its own λ̂
    status:       "ok" when all pairs asked for are there and ‖K u − λ̂ u‖ ≤ tolerance·λ̂ + floor for each
    """

    eigenvalues: Float[np.ndarray, " r"]
    eigenvectors: Float[np.ndarray, "n r"]
    residuals: Float[np.ndarray, " r"]
    floor: float
    n: int
    products: int
    seconds: float
    tolerance: float
    status: Literal["ok", "not_converged"]

    def check(self) -> "TopEigenpairs":
        """Return the record itself, or raise `InputError` when it is not converged."""
        if self.status == "not_converged":
            worst = f"the largest residual is {self.residuals.max():.2g} λ̂₁" if self.residuals.size else "none is final"
            raise InputError(
                f"top_eigenpairs: not converged after {self.products:,} products: {len(self.eigenvalues)} eigenpairs, "
                f"{worst}; allow more restarts, ask for fewer eigenpairs or raise tolerance ({self.tolerance:.1g})"
            )
        return self


def top_eigenpairs(
    operator: SymmetricOperator, r: int, *, seed: int, tolerance: float = 1e-6, restarts: int = 100
) -> TopEigenpairs:
    """The r largest eigenpairs of K = 𝕂/n by implicitly restarted Lanczos, ARPACK through SciPy, in float64.

    operator:  the unnormalised kernel 𝕂 of one set of examples; r: below its order
    seed:      of the start vector
    tolerance: wanted ‖K u − λ̂ u‖/λ̂; the relative error of λ̂ is at most that (to rounding of the products)
    restarts:  each costs about r products

    Cost: 2r products at least, r more for the residuals, max(2r + 1, 20) float64 vectors. Raises `InputError` for an
    operator that is not square, for r that is not below its order, for products that are not finite and for a kernel
    that is zero. An iteration that ends early is a `status`: look, or call `.check()`.
    Source: Lehoucq, Sorensen & Yang 1998, *ARPACK users' guide*.
    """
    order = _order("top_eigenpairs", operator)
    if not 0 < r < order:
        raise InputError(
            f"top_eigenpairs: got r={r} for a kernel of order {order}; wanted 1 to {order - 1} (form the kernel and "
            "call spectrum for all of them)"
        )
    started, products = time.perf_counter(), 0

    def multiply(vectors: np.ndarray) -> np.ndarray:
        nonlocal products
        products += 1 if vectors.ndim == 1 else vectors.shape[1]
        return _product("top_eigenpairs", operator, vectors)

    linear = LinearOperator(shape=(order, order), dtype=np.dtype(np.float64), matvec=multiply)  # pyright: ignore[reportCallIssue]
    start, complete = np.random.default_rng(seed).standard_normal(order), True
    try:
        values, vectors = eigsh(linear, r, which="LA", v0=start, tol=tolerance, maxiter=restarts)  # pyright: ignore[reportArgumentType]
    except ArpackNoConvergence as stopped:
        values, vectors, complete = stopped.eigenvalues, stopped.eigenvectors, False
    except ArpackError as error:
        raise InputError(f"top_eigenpairs: {error} The kernel is zero, or nearly; look at its diagonal") from error
    descending = np.argsort(values)[::-1]
    values, vectors = values[descending], vectors[:, descending]
    largest = float(values[0]) if values.size else 0.0
    floor = machine_epsilon(operator.precision) * largest * float(np.sqrt(order))
    errors = np.zeros(0)
    if values.size:
        errors = np.linalg.norm(multiply(vectors) - vectors * values[None], axis=0)
    converged = complete and bool(np.all(errors <= tolerance * np.abs(values) + floor))
    return TopEigenpairs(
        eigenvalues=values,
        eigenvectors=vectors,
        residuals=errors / largest if largest else errors,
        floor=floor,
        n=operator.n,
        products=products,
        seconds=time.perf_counter() - started,
        tolerance=tolerance,
        status="ok" if converged else "not_converged",
    )


@dataclass(frozen=True, eq=False)
class Estimate:
    """A mean over probes, and its standard error, of one shape."""

    value: Float[np.ndarray, "..."]
    standard_error: Float[np.ndarray, "..."]


@dataclass(frozen=True, eq=False)
class SpectralDensity:
    """The distribution of all eigenvalues of K = 𝕂/n, as one Gauss quadrature for each random probe.

    nodes:    `[b, s]` for b probes and s Lanczos steps
    weights:  `[b, s]`, non-negative, summing to one over s
    order:    number of eigenvalues of K, r
    n:        number of examples
    products: vectors multiplied, b·s

    Standard errors are those of the mean over probes. They leave out the quadrature's own error, which vanishes for
    polynomials of degree below 2s and falls exponentially in s for smooth functions (Ubaru, Chen & Saad 2017, thm 4.1);
    a count, which is not smooth, resolves no finer than the distance between nodes.
    """

    nodes: Float[np.ndarray, "b s"]
    weights: Float[np.ndarray, "b s"]
    order: int
    n: int
    products: int

    def mean_of(self, function: Callable[[np.ndarray], np.ndarray]) -> Estimate:
        """(1/r) tr g(K) for g applied to eigenvalues `[b, s]`, giving `[..., b, s]`."""
        probes = np.sum(self.weights * function(self.nodes), axis=-1)
        spread = probes.std(axis=-1, ddof=1) / np.sqrt(probes.shape[-1])
        return Estimate(np.asarray(probes.mean(axis=-1)), np.asarray(spread))

    def moments(self, count: int) -> Estimate:
        """(1/r) tr K^q for q = 0 … count − 1."""
        return self.mean_of(lambda nodes: nodes[None] ** np.arange(count)[:, None, None])

    def density(self, grid: Num[Array, " g"], width: SupportsFloat) -> Estimate:
        """Density (1/r) Σ_j N(t; λ̂_j, width²) at the points t of `grid`, per unit of eigenvalue."""
        sigma = float(width)
        if not sigma > 0:
            raise InputError(f"density: got width={width}; wanted the standard deviation of the Gaussians, above zero")
        points = np.asarray(grid, np.float64)[:, None, None]
        peak = 1 / (sigma * np.sqrt(2 * np.pi))
        return self.mean_of(lambda nodes: peak * np.exp(-(((points - nodes[None]) / sigma) ** 2) / 2))

    def count_above(self, thresholds: Num[Array, " g"]) -> Estimate:
        """Number of eigenvalues λ̂ ≥ t for each threshold t."""
        points = np.asarray(thresholds, np.float64)[:, None, None]
        return self.mean_of(lambda nodes: self.order * (nodes[None] >= points))


def spectral_density(operator: SymmetricOperator, *, probes: int, steps: int, seed: int) -> SpectralDensity:
    """Stochastic Lanczos quadrature of K = 𝕂/n with `probes` random sign vectors and `steps` Lanczos steps each.

    operator: the unnormalised kernel 𝕂 of one set of examples; seed: of the probes

    Cost: probes·steps products, taken `probes` at a time, probes·steps float64 vectors, and 4·probes·steps²·r FLOPs of
    full reorthogonalisation. Raises `InputError` for fewer than two probes (no standard error), for steps outside 1 to
    the order of K, for an operator that is not square, and for products that are not finite.
    Source: Ubaru, Chen & Saad 2017, algorithm 1; Golub & Welsch 1969.
    """
    order = _order("spectral_density", operator)
    problems = [] if probes >= 2 else [f"got probes={probes}; wanted two or more, so that they have a spread"]
    if not 0 < steps <= order:
        problems.append(f"got steps={steps}; wanted 1 to {order}, the order of the kernel")
    refuse("spectral_density", problems)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (order, probes))
    diagonal, beside = _tridiagonal(
        lambda vectors: _product("spectral_density", operator, vectors),
        signs / np.sqrt(order),
        steps,
        machine_epsilon(operator.precision) * float(np.sqrt(order)),
    )
    matrices = np.zeros((probes, steps, steps))
    index = np.arange(steps)
    matrices[:, index, index] = diagonal.T
    matrices[:, index[1:], index[:-1]] = beside[:-1].T  # eigh reads the lower triangle
    nodes, vectors = np.linalg.eigh(matrices)
    return SpectralDensity(nodes, vectors[:, 0] ** 2, order, operator.n, probes * steps)


def _tridiagonal(
    product: Callable[[np.ndarray], np.ndarray], start: np.ndarray, steps: int, relative_floor: float
) -> tuple[np.ndarray, np.ndarray]:
    """Lanczos from each column of `start` `[r, b]` at once: diagonals and off-diagonals `[s, b]` of T.

    Every new vector is orthogonalised against all before it, twice (Parlett 1998, §6.9). A column whose Krylov space is
    exhausted goes on with zero vectors: T gets a block of zeros that no weight reaches.
    """
    basis = np.zeros((steps, *start.shape))
    diagonal, beside = np.zeros((2, steps, start.shape[1]))
    vectors, scale = start, np.zeros(start.shape[1])
    for step in range(steps):
        basis[step] = vectors
        image = product(vectors)
        diagonal[step] = np.sum(vectors * image, axis=0)
        for _ in range(2):
            overlap = np.einsum("jrb,rb->jb", basis[: step + 1], image)
            image = image - np.einsum("jrb,jb->rb", basis[: step + 1], overlap)
        norm = np.linalg.norm(image, axis=0)
        scale = np.maximum(scale, np.maximum(np.abs(diagonal[step]), norm))
        beside[step] = np.where(norm > relative_floor * scale, norm, 0.0)
        vectors = np.where(beside[step] > 0, image / np.where(beside[step] > 0, norm, 1.0), 0.0)
    return diagonal, beside


def _order(what: str, operator: SymmetricOperator) -> int:
    rows, columns = operator.shape
    if rows != columns:
        raise InputError(
            f"{what}: got an operator of shape {[rows, columns]}; wanted the kernel of one set of examples with itself"
        )
    return rows


def _product(what: str, operator: SymmetricOperator, vectors: np.ndarray) -> np.ndarray:
    """K v in float64."""
    image = np.asarray(operator(vectors), np.float64) / operator.n
    if not np.isfinite(image).all():
        raise InputError(f"{what}: a product with the kernel holds NaN or infinity; check parameters and inputs")
    return image
