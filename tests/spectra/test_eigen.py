import re

import jax.numpy as jnp
import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft.spectra import coordinates, spectrum, spectrum_of_matrix
from tests.spectra.matrices import Record, full_kernel, min_kernel, prescribed, random_basis
from tests.tolerances import CLOSED_FORM


def test_min_kernel_has_its_known_leading_eigenvalues():
    values = spectrum(Record(min_kernel(100), "scalar")).eigenvalues
    np.testing.assert_allclose(values[:5], [0.409356, 0.045491, 0.016382, 0.008362, 0.005062], atol=5e-7)


def test_min_kernel_agrees_with_its_closed_form_at_every_index():
    # 𝕂⁻¹ is n times a second difference with mixed ends, so λ(𝕂) = 1/(4n sin²((2j−1)π/(4n+2))).
    n = 60
    angle = (2 * np.arange(1, n + 1) - 1) * np.pi / (4 * n + 2)
    expected = 1 / (4 * n * np.sin(angle) ** 2) / n
    np.testing.assert_allclose(spectrum(Record(min_kernel(n), "scalar")).eigenvalues, expected, rtol=1e-10)


def test_prescribed_eigenvalues_and_vectors_are_recovered():
    values = 0.5 ** np.arange(12)
    result = spectrum_of_matrix(prescribed(values, seed=0), precision="float64")
    np.testing.assert_allclose(result.eigenvalues, values, atol=CLOSED_FORM)
    overlap = np.abs(np.sum(result.eigenvectors * random_basis(12, seed=0), axis=0))
    np.testing.assert_allclose(overlap, 1, atol=1e-8)


def test_eigenpairs_rebuild_the_normalised_matrix():
    kernel, _ = full_kernel(7, 1, 3, seed=1)
    result = spectrum(Record(kernel, "full"))
    rebuilt = (result.eigenvectors * result.eigenvalues[None]) @ result.eigenvectors.T
    np.testing.assert_allclose(rebuilt, kernel.reshape(21, 21) / 7, atol=CLOSED_FORM)
    assert result.n == 7


def test_groups_have_their_own_spectra_and_traces_that_add_up():
    parts = {"head": prescribed(np.arange(6, 0, -1), seed=2), "backbone": prescribed(np.ones(6), seed=3)}
    result = spectrum(Record(parts["head"] + parts["backbone"], "scalar", groups=parts))
    np.testing.assert_allclose(result.groups["head"], np.arange(6, 0, -1), atol=CLOSED_FORM)
    np.testing.assert_allclose(sum(g.sum() for g in result.groups.values()), result.eigenvalues.sum(), rtol=1e-12)


@pytest.mark.parametrize("precision", ["float64", "float32", "bfloat16"])
def test_floor_is_epsilon_times_largest_eigenvalue_times_root_order(precision):
    result = spectrum_of_matrix(prescribed(np.arange(9, 0, -1), seed=4), precision=precision)
    np.testing.assert_allclose(result.floor, float(jnp.finfo(precision).eps) * 9 * 3, rtol=1e-12)


def test_rounding_to_float32_leaves_noise_below_the_floor_only():
    generator = np.random.default_rng(5)
    features = generator.standard_normal((200, 20)).astype(np.float32)
    result = spectrum(Record(jnp.asarray(features @ features.T), "scalar", "float32"))
    assert result.count_above_floor == 20
    assert result.status == "ok"


def test_a_materially_negative_eigenvalue_is_a_status_and_check_raises():
    values = np.array([1.0, 0.5, -0.2])
    result = spectrum_of_matrix(prescribed(values, seed=6), precision="float32")
    assert result.status == "negative"
    with pytest.raises(InputError, match=r"smallest eigenvalue -0\.2 is far below zero"):
        result.check()
    fine = spectrum_of_matrix(prescribed([1.0, 0.5, -1e-8], seed=6), precision="float32")
    assert fine.check() is fine


def test_coordinates_keep_the_norm_and_undo_with_the_eigenvectors():
    generator = np.random.default_rng(7)
    shared = spectrum_of_matrix(prescribed(np.arange(5, 0, -1), seed=7), precision="float64")
    values = generator.standard_normal((5, 3))
    np.testing.assert_allclose(shared.eigenvectors @ coordinates(shared, values), values, atol=CLOSED_FORM)
    full = spectrum_of_matrix(full_kernel(5, 1, 3, seed=7)[0], precision="float64")
    assert coordinates(full, values).shape == (15, 1)
    np.testing.assert_allclose(np.linalg.norm(coordinates(full, values)), np.linalg.norm(values), rtol=1e-12)


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (np.ones((3, 4)), r"shape \[3, 4\]; wanted a square \[n, n\] or \[n, k, n, k\]"),
        (np.ones((3, 2, 3, 1)), r"shape \[3, 2, 3, 1\]; wanted a square"),
        (np.ones((0, 0)), r"shape \[0, 0\]; wanted a square"),
        (np.array([[1.0, 0.5], [0.4, 1.0]]), r"not symmetric: the entries of examples 0 and 1 differ by 0\.1"),
    ],
)
def test_a_matrix_that_is_no_kernel_is_refused(kernel, message):
    with pytest.raises(InputError, match=message):
        spectrum_of_matrix(kernel, precision="float64")


def test_examples_with_nan_are_named_and_innocent_ones_are_not():
    kernel = min_kernel(6)
    kernel[2], kernel[:, 2] = np.nan, np.nan
    with pytest.raises(InputError, match=re.escape("11 NaN or infinite entries, from examples 2; look")):
        spectrum_of_matrix(kernel, precision="float64")
    full, _ = full_kernel(4, 1, 2, seed=8)
    full[3, 1] = np.inf
    full[:, :, 3, 1] = np.inf
    with pytest.raises(InputError, match="from examples 3; look"):
        spectrum_of_matrix(full, precision="float64")
    pair = min_kernel(6)
    pair[1, 4] = pair[4, 1] = np.inf
    with pytest.raises(InputError, match="2 NaN or infinite entries, from examples 1, 4; look"):
        spectrum_of_matrix(pair, precision="float64")


def test_a_bad_group_is_named():
    record = Record(min_kernel(3), "scalar", groups={"mlp": np.full((3, 3), np.nan)})
    with pytest.raises(InputError, match="spectrum of group 'mlp': kernel holds 9 NaN"):
        spectrum(record)


def test_an_unknown_precision_is_refused():
    with pytest.raises(InputError, match="'int8' is no floating type"):
        spectrum_of_matrix(min_kernel(3), precision="int8")
    with pytest.raises(InputError, match="'float33' is no floating type"):
        spectrum_of_matrix(min_kernel(3), precision="float33")


def test_values_of_another_shape_are_refused():
    full = spectrum_of_matrix(full_kernel(4, 1, 2, seed=9)[0], precision="float64")
    with pytest.raises(InputError, match="got 1 outputs per example for a full kernel of 2"):
        coordinates(full, np.ones(4))
    with pytest.raises(InputError, match=r"got shape \[5, 2\], wanted \[4, k\]"):
        coordinates(full, np.ones((5, 2)))
    with pytest.raises(InputError, match="examples 1 hold NaN or infinity"):
        coordinates(full, np.array([[0, 1], [np.nan, 1], [1, 1], [1, 1.0]]))
