"""Spectra from products alone, on matrices with a prescribed spectrum and on kernels of attention models."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import pytest

from ntkft import InputError
from ntkft.kernels.operator import KernelOperator
from ntkft.spectra.lanczos import spectral_density, top_eigenpairs
from tests.cases import CASES
from tests.references import dense_kernel
from tests.spectra.matrices import full_kernel, prescribed
from tests.tolerances import CLOSED_FORM


@dataclass
class Dense:
    """A kernel matrix that only multiplies."""

    matrix: np.ndarray
    n: int
    precision: str = "float64"

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the matrix."""
        return self.matrix.shape  # pyright: ignore[reportReturnType]

    def __call__(self, vectors: Any, /) -> Any:
        """The product."""
        return self.matrix @ vectors


def _prescribed(values, seed: int = 0) -> Dense:
    return Dense(prescribed(values, seed), len(values))


def test_top_eigenpairs_are_the_prescribed_ones_with_their_residuals():
    values = 0.8 ** np.arange(60)
    operator = _prescribed(values)
    top = top_eigenpairs(operator, 20, seed=0, tolerance=1e-12).check()
    np.testing.assert_allclose(top.eigenvalues, values[:20], rtol=1e-10)
    residuals = operator.matrix @ top.eigenvectors / 60 - top.eigenvectors * top.eigenvalues[None]
    np.testing.assert_allclose(top.residuals, np.linalg.norm(residuals, axis=0) / values[0], atol=1e-15)
    np.testing.assert_allclose(top.eigenvectors.T @ top.eigenvectors, np.eye(20), atol=1e-10)
    assert top.status == "ok"
    assert top.products >= 40
    np.testing.assert_allclose(top.floor, np.finfo(np.float64).eps * np.sqrt(60), rtol=1e-10)


@pytest.mark.parametrize("tolerance", [1e-2, 1e-6])
def test_an_eigenvalue_lies_within_the_residual_of_each_value(tolerance):
    values = np.random.default_rng(1).uniform(size=80)
    top = top_eigenpairs(_prescribed(values, seed=1), 10, seed=0, tolerance=tolerance)
    nearest = np.abs(top.eigenvalues[:, None] - values[None]).min(axis=1)
    assert np.all(nearest <= top.residuals * top.eigenvalues[0] + 1e-14)
    assert np.all(top.residuals * top.eigenvalues[0] <= tolerance * top.eigenvalues + top.floor)


def test_a_full_kernel_is_divided_by_its_examples_not_its_order():
    kernel, _ = full_kernel(10, 1, 3, seed=2)
    matrix = kernel.reshape(30, 30)
    top = top_eigenpairs(Dense(matrix, 10), 5, seed=0)
    np.testing.assert_allclose(top.eigenvalues, np.linalg.eigvalsh(matrix / 10)[::-1][:5], rtol=1e-6)


@pytest.mark.parametrize(("name", "outputs"), [("bert", "full"), ("gpt2", "trace")])
def test_float32_products_give_the_dense_eigenvalues_to_1e_5(name, outputs):
    case = CASES[name]()
    low = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), case.params)
    kernel = dense_kernel(case.apply_fn, case.params, case.inputs, None, outputs)
    order = int(np.prod(kernel.shape[: kernel.ndim // 2]))
    expected = np.linalg.eigvalsh(kernel.reshape(order, order) / 7)[::-1]
    operator = KernelOperator(case.apply_fn, low, case.inputs, outputs=outputs, check=False)
    top = top_eigenpairs(operator, 5, seed=0).check()
    np.testing.assert_allclose(top.eigenvalues, expected[:5], rtol=1e-5)
    assert top.residuals.max() <= 1e-6
    assert operator.products == top.products * (2 if outputs == "trace" else 1)


def test_an_iteration_that_stops_early_is_a_status_and_check_raises():
    values = 1 - 1e-3 * np.arange(300) / 300
    top = top_eigenpairs(_prescribed(values, seed=3), 3, seed=0, tolerance=1e-12, restarts=1)
    assert top.status == "not_converged"
    with pytest.raises(InputError, match=r"not converged after \d+ products: \d eigenpairs"):
        top.check()


@pytest.mark.parametrize("steps", [1, 3, 6])
def test_moments_below_twice_the_steps_are_exact_for_each_probe(steps):
    # Signs have unit coordinates in the eigenbasis of a diagonal matrix: every probe gives the trace itself.
    values = np.linspace(0.1, 1, 30)
    moments = spectral_density(Dense(np.diag(30 * values), 30), probes=2, steps=steps, seed=0).moments(2 * steps)
    expected = np.mean(values[None] ** np.arange(2 * steps)[:, None], axis=1)
    np.testing.assert_allclose(moments.value, expected, rtol=CLOSED_FORM)
    np.testing.assert_allclose(moments.standard_error, 0, atol=CLOSED_FORM)


def test_as_many_steps_as_rows_find_every_eigenvalue():
    values = np.array([2.0, 1.0, 0.5, 0.2, 0.1, 0.01])
    density = spectral_density(_prescribed(values, seed=4), probes=4, steps=6, seed=0)
    np.testing.assert_allclose(density.nodes, np.broadcast_to(values[::-1], (4, 6)), atol=1e-9)
    np.testing.assert_allclose(density.weights.sum(axis=1), 1, rtol=CLOSED_FORM)
    assert density.products == 24


def test_moments_and_counts_agree_with_the_spectrum_within_three_standard_errors():
    values = 1 / np.arange(1, 201) ** 1.5
    density = spectral_density(_prescribed(values, seed=5), probes=40, steps=40, seed=0)
    moments = density.moments(6)
    error = np.abs(moments.value - np.mean(values[None] ** np.arange(6)[:, None], axis=1))
    assert np.all(error <= 3 * moments.standard_error + 1e-12)
    assert np.all(moments.standard_error[1:] > 0)
    thresholds = np.array([0.5, 0.05, 0.005])  # between eigenvalues that forty steps tell apart, or nearly
    counts = density.count_above(thresholds)
    exact = np.sum(values[None] >= thresholds[:, None], axis=1)
    assert np.all(np.abs(counts.value - exact) <= 3 * counts.standard_error + 1)


def test_density_is_the_smoothed_spectrum_within_five_standard_errors_and_integrates_to_one():
    values = np.linspace(0.2, 1, 100)
    density = spectral_density(_prescribed(values, seed=6), probes=50, steps=40, seed=1)
    grid, width = np.linspace(-0.5, 1.7, 441), 0.05
    estimate = density.density(grid, width)
    np.testing.assert_allclose(estimate.value.sum() * (grid[1] - grid[0]), 1, rtol=1e-9)
    gaussians = np.exp(-(((grid[:, None] - values[None]) / width) ** 2) / 2) / (width * np.sqrt(2 * np.pi))
    assert np.all(np.abs(estimate.value - gaussians.mean(axis=1)) <= 5 * estimate.standard_error + 1e-6)


def test_a_kernel_of_low_rank_ends_its_krylov_space_without_harm():
    values = np.array([1.0, 0.3, 0.1] + [0.0] * 17)
    density = spectral_density(_prescribed(values, seed=7), probes=30, steps=20, seed=0)
    moments = density.moments(4)
    exact = np.mean(values[None] ** np.arange(4)[:, None], axis=1)
    assert np.all(np.abs(moments.value - exact) <= 3 * moments.standard_error + 1e-12)
    assert np.isfinite(density.nodes).all()
    count = density.count_above(np.array([0.01]))
    assert abs(count.value[0] - 3) <= 3 * count.standard_error[0]


def test_a_kernel_operator_has_the_moments_of_its_dense_kernel():
    case = CASES["mlp"]()
    kernel = dense_kernel(case.apply_fn, case.params, case.inputs, None, "full").reshape(14, 14) / 7
    operator = KernelOperator(case.apply_fn, case.params, case.inputs, outputs="full", check=False)
    density = spectral_density(operator, probes=30, steps=5, seed=0)
    moments = density.moments(4)
    exact = [np.trace(np.linalg.matrix_power(kernel, q)) / 14 for q in range(4)]
    assert np.all(np.abs(moments.value - exact) <= 3 * moments.standard_error + 1e-12)
    assert operator.products == density.products


def test_unusable_arguments_are_refused():
    operator = _prescribed([1.0, 0.5, 0.2])
    with pytest.raises(InputError, match="got r=3 for a kernel of order 3; wanted 1 to 2"):
        top_eigenpairs(operator, 3, seed=0)
    with pytest.raises(InputError, match=r"shape \[2, 3\]; wanted the kernel of one set"):
        top_eigenpairs(Dense(np.ones((2, 3)), 2), 1, seed=0)
    with pytest.raises(
        InputError, match=r"2 problems\n.*got probes=1; wanted two or more.*\n.*got steps=4; wanted 1 to 3"
    ):
        spectral_density(operator, probes=1, steps=4, seed=0)
    with pytest.raises(InputError, match="a product with the kernel holds NaN"):
        top_eigenpairs(Dense(np.full((4, 4), np.nan), 4), 1, seed=0)
    with pytest.raises(InputError, match=r"Starting vector is zero\. The kernel is zero"):
        top_eigenpairs(Dense(np.zeros((4, 4)), 4), 1, seed=0)
    with pytest.raises(InputError, match="got width=0; wanted the standard deviation"):
        spectral_density(operator, probes=2, steps=2, seed=0).density(np.zeros(1), 0)
