import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft.spectra import spectrum_of_matrix, target_alignment
from tests.spectra.matrices import full_kernel, min_kernel, prescribed, random_basis
from tests.tolerances import CLOSED_FORM


def test_a_residual_along_one_eigenvector_has_all_its_energy_there():
    result = spectrum_of_matrix(prescribed(np.arange(6, 0, -1), seed=0), precision="float64")
    alignment = target_alignment(result, 3 * random_basis(6, seed=0)[:, 2])
    np.testing.assert_allclose(alignment.energy, np.eye(6)[2], atol=CLOSED_FORM)
    np.testing.assert_allclose(alignment.cumulative, [0, 0, 1, 1, 1, 1], atol=CLOSED_FORM)
    np.testing.assert_allclose(alignment.kernel_target, 4 / np.linalg.norm(np.arange(7)), atol=CLOSED_FORM)


@pytest.mark.parametrize("outputs", [1, 3])
def test_kernel_target_alignment_is_its_definition(outputs):
    residual = np.random.default_rng(1).standard_normal((20, outputs))
    kernel = min_kernel(20)
    expected = np.sum(kernel * (residual @ residual.T)) / np.linalg.norm(kernel) / np.sum(residual**2)
    alignment = target_alignment(spectrum_of_matrix(kernel, precision="float64"), residual)
    np.testing.assert_allclose(alignment.kernel_target, expected, rtol=1e-10)
    np.testing.assert_allclose(alignment.cumulative[-1], 1, rtol=1e-12)


def test_full_kernels_align_over_all_values_at_once():
    kernel, _ = full_kernel(6, 1, 2, seed=2)
    residual = np.random.default_rng(2).standard_normal((6, 2))
    flat, matrix = residual.ravel(), kernel.reshape(12, 12)
    alignment = target_alignment(spectrum_of_matrix(kernel, precision="float64"), residual)
    expected = flat @ matrix @ flat / np.linalg.norm(matrix) / (flat @ flat)
    np.testing.assert_allclose(alignment.kernel_target, expected, rtol=1e-10)
    assert alignment.energy.shape == (12,)


def test_a_kernel_made_of_the_residual_is_perfectly_aligned():
    residual = np.random.default_rng(3).standard_normal(9)
    alignment = target_alignment(spectrum_of_matrix(np.outer(residual, residual), precision="float64"), residual)
    np.testing.assert_allclose(alignment.kernel_target, 1, rtol=1e-12)


def test_nothing_to_align_is_refused():
    with pytest.raises(InputError, match="the residual is zero; the pretrained outputs already equal the targets"):
        target_alignment(spectrum_of_matrix(min_kernel(4), precision="float64"), np.zeros(4))
    with pytest.raises(InputError, match="the kernel is zero; check that some parameter is trainable"):
        target_alignment(spectrum_of_matrix(np.zeros((4, 4)), precision="float64"), np.ones(4))
