import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft.dynamics import estimate_noise, estimate_target_norm, gcv, gradient_descent, ridge
from ntkft.spectra import spectrum_of_matrix
from tests.spectra.matrices import full_kernel, min_kernel, prescribed, tent
from tests.tolerances import CLOSED_FORM

MIN_100 = spectrum_of_matrix(min_kernel(100), precision="float64")


def test_noise_is_the_residual_sum_of_squares_per_degree_of_freedom_left():
    kernel = prescribed(np.arange(8, 0, -1), seed=0)
    residual = np.random.default_rng(0).standard_normal((8, 2))
    smoother = np.linalg.inv(np.eye(8) + 3 * kernel / 8)
    expected = np.sqrt(np.sum((smoother @ residual) ** 2) / (2 * np.trace(smoother @ smoother)))
    actual = estimate_noise(spectrum_of_matrix(kernel, precision="float64"), residual, ridge(1.0), 3)
    np.testing.assert_allclose(actual, expected, rtol=CLOSED_FORM)


def test_noise_variance_is_unbiased_when_there_is_nothing_to_learn():
    # 10,000 columns of pure noise at once, 90-odd degrees of freedom each: σ̂² has a standard error of 0.15 %.
    noise = 0.7 * np.random.default_rng(1).standard_normal((100, 10_000))
    estimate = estimate_noise(MIN_100, noise, gradient_descent(0.25), 50) ** 2
    assert abs(estimate / 0.7**2 - 1) < 5 * 0.0015 < 0.02


def test_noise_is_found_beside_a_target_at_the_step_that_gcv_picks():
    residual = tent(100)[:, None] + 0.1 * np.random.default_rng(2).standard_normal((100, 200))
    step = gcv(MIN_100, residual, gradient_descent(0.25), np.arange(1, 2000)).best
    np.testing.assert_allclose(estimate_noise(MIN_100, residual, gradient_descent(0.25), step), 0.1, rtol=0.02)


def test_the_tent_without_noise_has_norm_one():
    # Piecewise linear with its kink on the grid, so it interpolates itself: rᵀ𝕂⁻¹r is exactly ∫ f′² = 1.
    norm = estimate_target_norm(MIN_100, tent(100), ridge=0, sigma=0)
    np.testing.assert_allclose([norm.plug_in, norm.corrected], 1, rtol=1e-9)


def test_norm_is_the_quadratic_form_and_a_ridge_bends_it_down():
    residual = np.random.default_rng(3).standard_normal((100, 2))
    inverse = np.linalg.inv(min_kernel(100) + 0.4 * np.eye(100))
    expected = np.sum(residual * (inverse @ residual)) / 2
    norm = estimate_target_norm(MIN_100, residual, ridge=0.4, sigma=0)
    np.testing.assert_allclose(norm.plug_in**2, expected, rtol=1e-9)
    norms = [estimate_target_norm(MIN_100, tent(100), ridge=value, sigma=0).plug_in for value in (0, 1e-3, 0.1, 10)]
    assert np.all(np.diff(norms) < 0)


def test_noise_inflates_the_plug_in_and_the_correction_takes_it_out():
    residual = tent(100)[:, None] + 0.1 * np.random.default_rng(4).standard_normal((100, 20_000))
    noisy = estimate_target_norm(MIN_100, residual, ridge=0.05, sigma=0.1)
    clean = estimate_target_norm(MIN_100, tent(100), ridge=0.05, sigma=0).plug_in
    assert noisy.plug_in > 2 * clean
    np.testing.assert_allclose(noisy.corrected, clean, rtol=0.02)
    assert estimate_target_norm(MIN_100, tent(100), ridge=0.05, sigma=50).corrected == 0


@pytest.mark.parametrize("sigma", [0, 0.2])
def test_norms_of_several_outputs_are_root_mean_squares(sigma):
    kernel, residual = full_kernel(6, 1, 3, seed=5)[0], np.random.default_rng(5).standard_normal((6, 3))
    full = estimate_target_norm(spectrum_of_matrix(kernel, precision="float64"), residual, ridge=0.3, sigma=sigma)
    shifted = np.linalg.inv(kernel.reshape(18, 18) + 0.3 * np.eye(18))
    expected = residual.ravel() @ shifted @ residual.ravel() / 3
    np.testing.assert_allclose(full.plug_in**2, expected, rtol=1e-9)
    np.testing.assert_allclose(full.corrected**2, expected - sigma**2 * np.trace(shifted) / 3, rtol=1e-9)
    shared = spectrum_of_matrix(min_kernel(6), precision="float64")
    together = estimate_target_norm(shared, residual, ridge=0.3, sigma=sigma)
    apart = [estimate_target_norm(shared, column, ridge=0.3, sigma=sigma) for column in residual.T]
    np.testing.assert_allclose(together.plug_in**2, np.mean([norm.plug_in**2 for norm in apart]))
    np.testing.assert_allclose(together.corrected**2, np.mean([norm.corrected**2 for norm in apart]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: estimate_noise(MIN_100, np.ones(100), gradient_descent(0.25), 10**9),
            r"step 1e\+09 fits the targets completely and leaves nothing to tell noise by",
        ),
        (
            lambda: estimate_target_norm(
                spectrum_of_matrix(np.ones((4, 4)), precision="float32"), np.ones(4), ridge=0, sigma=0
            ),
            r"kernel is singular and the ridge zero.*such as n·floor = 9\.5",
        ),
        (lambda: estimate_target_norm(MIN_100, np.ones(100), ridge=-1, sigma=0), r"ridge is -1; wanted a finite"),
        (lambda: estimate_target_norm(MIN_100, np.ones(100), ridge=1, sigma=-1), r"sigma is -1; wanted a finite"),
    ],
)
def test_unusable_input_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
