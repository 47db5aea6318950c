import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft.dynamics import bias_variance, gradient_descent, risk_bounds, stopping_time
from ntkft.spectra import critical_radius, local_rademacher, spectrum_of_matrix
from tests.spectra.matrices import min_kernel, tent

MIN_100 = spectrum_of_matrix(min_kernel(100), precision="float64")
STEPS = np.arange(5000)


@pytest.mark.parametrize("sigma", [0.1, 0.4, 1])
@pytest.mark.parametrize("norm", [0.5, 1, 3])
def test_the_exact_risk_keeps_every_bound(sigma, norm):
    exact = bias_variance(MIN_100, norm * tent(100), sigma, gradient_descent(0.5), STEPS)
    bounds = risk_bounds(MIN_100.eigenvalues, sigma, 0.5, STEPS, norm)
    assert np.all(exact.bias2 <= bounds.bias2)
    assert np.all(exact.variance <= bounds.variance / 5 * (1 + 1e-12))
    assert np.all(exact.risk.values <= bounds.upper)
    assert np.all(exact.risk.values >= bounds.lower)
    stop = int(stopping_time(MIN_100.eigenvalues, sigma, 0.5, norm))
    assert exact.risk.values[stop] <= bounds.at_stop
    np.testing.assert_array_equal(np.isfinite(bounds.upper[1:]), STEPS[1:] <= stop)
    np.testing.assert_array_equal(bounds.lower > 0, stop < STEPS)


def test_bounds_are_their_formulas():
    bounds = risk_bounds(MIN_100.eigenvalues, 0.3, 0.5, [4, 900], 2.0)
    complexity = np.asarray(local_rademacher(MIN_100.eigenvalues, 1 / np.sqrt(np.array([2, 450]))))
    np.testing.assert_allclose(bounds.bias2, 4 / np.e / np.array([2, 450]))
    np.testing.assert_allclose(bounds.variance, 5 * 0.09 * np.array([2, 450]) * complexity**2)
    np.testing.assert_allclose(bounds.upper, [4 * 4 / (np.e * 2), np.inf])
    np.testing.assert_allclose(bounds.lower, [0, 0.09 / 4 * 450 * complexity[1] ** 2])
    np.testing.assert_allclose(bounds.at_stop, 12 * 4 * critical_radius(MIN_100.eigenvalues, 0.3, 2) ** 2)


def test_units_of_the_targets_square_into_the_bounds():
    base, scaled = (risk_bounds(MIN_100.eigenvalues, 0.3 * c, 0.5, STEPS, 1.2 * c) for c in (1, 10))
    for name in ("bias2", "variance", "upper", "lower", "at_stop"):
        np.testing.assert_allclose(getattr(scaled, name), 100 * getattr(base, name), rtol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.3, 5, [1]), r"stability limit"),
        ((0.3, 0, [1]), r"risk_bounds: step size is 0"),
        ((-1, 0.5, [1]), r"risk_bounds: sigma is -1"),
        ((1, 0.5, [1], -2), r"risk_bounds: norm is -2"),
        ((1, 0.5, [1.5]), r"risk_bounds: step 1\.5 is not whole"),
    ],
)
def test_unusable_input_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        risk_bounds(MIN_100.eigenvalues, *arguments)
