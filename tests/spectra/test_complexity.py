import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft.spectra import (
    critical_radius,
    effective_dimension,
    entropy_rank,
    local_rademacher,
    participation_ratio,
    spectrum_of_matrix,
)
from tests.spectra.matrices import min_kernel

MIN_100 = spectrum_of_matrix(min_kernel(100), precision="float64").eigenvalues
RADII = np.geomspace(1e-4, 3, 50)
SPECTRA = {
    "min kernel": MIN_100,
    "power law": np.arange(1, 201.0) ** -1.5,
    "finite rank": np.concatenate([[3.0, 2.0, 2.0], np.zeros(17)]),
    "one value": np.array([0.7]),
    "flat": np.full(30, 0.2),
    "unsorted, with rounding noise": np.array([1e-3, 2.0, -1e-17, 0.5]),
}


@pytest.fixture(params=SPECTRA, ids=str)
def eigenvalues(request):
    return SPECTRA[request.param]


def test_local_rademacher_is_its_definition(eigenvalues):
    expected = [np.sqrt(np.mean(np.minimum(np.maximum(eigenvalues, 0), rho**2))) for rho in RADII]
    np.testing.assert_allclose(local_rademacher(eigenvalues, RADII), expected, rtol=1e-12)
    assert np.shape(local_rademacher(eigenvalues, RADII.reshape(5, 10))) == (5, 10)
    assert isinstance(local_rademacher(eigenvalues, 0.3), float)


def test_local_rademacher_rises_from_zero_to_the_root_mean_eigenvalue(eigenvalues):
    curve = local_rademacher(eigenvalues, RADII)
    assert np.all(np.diff(curve) >= 0)
    assert np.all(np.diff(curve / RADII) <= 1e-12)  # R̂(ρ)/ρ falls, which makes the critical radius unique
    assert local_rademacher(eigenvalues, 0) == 0
    np.testing.assert_allclose(local_rademacher(eigenvalues, np.inf), np.sqrt(np.mean(eigenvalues)))


def test_local_rademacher_scales_with_the_kernel(eigenvalues):
    scaled = local_rademacher(9 * eigenvalues, 3 * RADII)
    np.testing.assert_allclose(scaled, 3 * local_rademacher(eigenvalues, RADII), rtol=1e-12)


@pytest.mark.parametrize(("sigma", "expected"), [(0.1, 0.0153636), (1, 0.3716293)])
def test_critical_radius_of_the_min_kernel(sigma, expected):
    np.testing.assert_allclose(critical_radius(MIN_100, sigma) ** 2, expected, atol=5e-8)


@pytest.mark.parametrize("sigma", [1e-3, 0.1, 1, 30])
@pytest.mark.parametrize("norm", [0.2, 1, 7])
def test_critical_radius_meets_its_inequality_with_equality_and_nothing_smaller_does(eigenvalues, sigma, norm):
    radius = critical_radius(eigenvalues, sigma, norm)
    slope = norm / (2 * np.e * sigma)
    np.testing.assert_allclose(local_rademacher(eigenvalues, radius), slope * radius**2, rtol=1e-11)
    below = radius * np.linspace(0.01, 0.999, 200)
    assert np.all(local_rademacher(eigenvalues, below) > slope * below**2)


def test_critical_radius_depends_on_sigma_over_norm_and_scales_with_the_kernel(eigenvalues):
    radius = critical_radius(eigenvalues, 0.3, 2)
    np.testing.assert_allclose(critical_radius(eigenvalues, 0.15), radius, rtol=1e-12)
    np.testing.assert_allclose(critical_radius(4 * eigenvalues, 2 * 0.3, 2), 2 * radius, rtol=1e-12)


def test_critical_radius_at_its_limits():
    assert critical_radius(MIN_100, 0) == 0
    assert critical_radius(np.zeros(5), 1) == 0
    assert critical_radius(MIN_100, 1, norm=0) == np.inf
    assert critical_radius(MIN_100, 0, norm=0) == 0


def test_effective_ranks_count_equal_eigenvalues_and_ignore_zeros():
    flat = np.concatenate([np.full(7, 0.3), np.zeros(20)])
    np.testing.assert_allclose([participation_ratio(flat), entropy_rank(flat)], 7)
    # Entropy of (½, ¼, ¼) is 1.5 log 2; its sum of squares 3/8.
    uneven = np.array([2, 1, 1])
    np.testing.assert_allclose([participation_ratio(uneven), entropy_rank(uneven)], [8 / 3, 2**1.5])


def test_entropy_rank_lies_between_participation_ratio_and_count(eigenvalues):
    assert 1 - 1e-12 <= participation_ratio(eigenvalues) <= entropy_rank(eigenvalues) + 1e-12
    assert entropy_rank(eigenvalues) <= len(eigenvalues) + 1e-9


def test_effective_dimension_is_the_trace_of_the_ridge_smoother():
    kernel = min_kernel(30) / 30
    expected = [np.trace(kernel @ np.linalg.inv(kernel + nu * np.eye(30))) for nu in (1e-3, 0.1, 5)]
    values = spectrum_of_matrix(min_kernel(30), precision="float64").eigenvalues
    np.testing.assert_allclose(effective_dimension(values, np.array([1e-3, 0.1, 5])), expected, rtol=1e-9)
    np.testing.assert_allclose(effective_dimension(values, 1e-14), 30, rtol=1e-8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: local_rademacher(np.array([1.0]), -0.1), r"radius that is negative or NaN; wanted rho ≥ 0"),
        (lambda: local_rademacher(np.array([]), 0.1), r"got no eigenvalues; pass all eigenvalues"),
        (lambda: local_rademacher(np.array([np.nan, 1]), 0.1), r"1 eigenvalues are NaN or infinite"),
        (lambda: critical_radius(np.array([1, -0.5]), 1), r"critical_radius: eigenvalue -0\.5 is clearly negative"),
        (lambda: critical_radius(np.array([1.0]), -1), r"sigma is -1; wanted a finite number, zero or above"),
        (lambda: critical_radius(np.array([1.0]), 1, np.inf), r"norm is inf; wanted a finite number"),
        (lambda: participation_ratio(np.zeros(3)), r"participation_ratio: all eigenvalues are zero"),
        (lambda: entropy_rank(np.zeros(3)), r"entropy_rank: all eigenvalues are zero"),
        (lambda: effective_dimension(np.array([1.0]), 0), r"ridge that is not above zero; wanted ν > 0"),
    ],
)
def test_unusable_input_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
