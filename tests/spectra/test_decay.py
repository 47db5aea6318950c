import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft.spectra import decay_interval, decay_over_n, fit_decay, spectrum_of_matrix
from tests.spectra.matrices import full_kernel, grid, min_kernel, prescribed

MIN_100 = spectrum_of_matrix(min_kernel(100), precision="float64").eigenvalues


@pytest.mark.parametrize(
    ("window", "through", "intercept"), [(20, 1.2614, 1.1582), (50, 1.1935, 1.0650), (100, 1.1316, 0.9504)]
)
def test_min_kernel_fits_have_their_known_biases(window, through, intercept):
    fit = fit_decay(MIN_100, window=window)
    np.testing.assert_allclose([fit.through_origin.rate, fit.with_intercept.rate], [through, intercept], atol=5e-5)


def test_random_features_bias_both_fits_downwards():
    # 10,000 Gaussian features with variances k^−1.02 (β = 0.51): the slow tail lifts all 100 eigenvalues alike.
    features = np.random.default_rng(0).standard_normal((100, 10_000)) * np.arange(1, 10_001)[None] ** -0.51
    fit = fit_decay(spectrum_of_matrix(features @ features.T, precision="float64").eigenvalues, window=50)
    np.testing.assert_allclose([fit.through_origin.rate, fit.with_intercept.rate], [0.39, 0.36], atol=0.04)


@pytest.mark.parametrize("window", [(1, 100), (5, 40), 30])
def test_a_power_law_is_recovered_by_both_forms(window):
    values = 3.0 * np.arange(1, 101.0) ** (-2 * 0.8)
    fit = fit_decay(values, window=window)
    for line in (fit.through_origin, fit.with_intercept):
        np.testing.assert_allclose([line.rate, np.exp(line.log_scale), line.r_squared], [0.8, 3, 1], rtol=1e-10)
        np.testing.assert_allclose(line.at(np.arange(1, 101)), values, rtol=1e-9)
    assert fit.preferred == "polynomial"
    assert fit.aic_difference > 10


def test_an_exponential_is_recovered_and_preferred():
    values = 2.0 * np.exp(-0.3 * np.arange(1, 41))
    fit = fit_decay(values, window=40)
    np.testing.assert_allclose([fit.exponential.rate, np.exp(fit.exponential.log_scale)], [0.3, 2], rtol=1e-10)
    np.testing.assert_allclose(fit.exponential.at(7), values[6], rtol=1e-10)
    assert fit.preferred == "exponential"


def test_fits_are_ordinary_least_squares():
    values = np.sort(np.random.default_rng(0).lognormal(size=30))[::-1]
    index, logs = np.arange(1, 31), np.log(values)
    fit = fit_decay(values, window=30)
    slope, origin = np.polyfit(np.log(index), logs, 1)
    np.testing.assert_allclose([fit.with_intercept.rate, fit.with_intercept.log_scale], [-slope / 2, origin])
    residuals = logs - slope * np.log(index) - origin
    np.testing.assert_allclose(fit.with_intercept.r_squared, 1 - residuals.var() / logs.var())
    np.testing.assert_allclose(fit.with_intercept.aic, 30 * np.log(np.mean(residuals**2)) + 6)
    (through,), *_ = np.linalg.lstsq(np.log(index)[:, None], logs - logs[0], rcond=None)
    np.testing.assert_allclose(fit.through_origin.rate, -through / 2)


def test_aic_charges_for_the_second_coefficient():
    fit = fit_decay(np.arange(1, 21.0) ** -1.0 * np.exp(0.01 * (-1.0) ** np.arange(20)), window=20)
    gain = 20 * np.log((1 - fit.through_origin.r_squared) / (1 - fit.with_intercept.r_squared))
    np.testing.assert_allclose(fit.through_origin.aic - fit.with_intercept.aic, gain - 2)


def test_rounding_noise_is_left_out_and_counted():
    clean = np.arange(1, 51.0) ** -2
    noisy = np.concatenate([clean[:30], np.full(20, 1e-9)])
    fit = fit_decay(noisy, window=50, floor=1e-8)
    assert (fit.window, fit.used, fit.below_floor) == ((1, 50), 30, 20)
    np.testing.assert_allclose(fit.with_intercept.rate, 1, rtol=1e-10)
    assert fit_decay(np.append(clean, [0.0, -1e-20]), window=52).below_floor == 2


def test_decay_depends_on_n_but_not_on_how_the_subset_is_ordered():
    kernel = np.minimum.outer(grid(80), grid(80))
    sample = decay_over_n(kernel, [20, 40, 80], window=10, precision="float64", draws=4, seed=0)
    direct = fit_decay(spectrum_of_matrix(kernel, precision="float64").eigenvalues, window=10)
    np.testing.assert_allclose(sample.through_origin[2], direct.through_origin.rate, rtol=1e-10)
    assert np.ptp(sample.with_intercept[2]) < 1e-10 < np.ptp(sample.with_intercept[0])
    again = decay_over_n(kernel, np.array([20, 40, 80]), window=10, precision="float64", draws=4, seed=0)
    np.testing.assert_array_equal(sample.with_intercept, again.with_intercept)
    other = decay_over_n(kernel, [20, 40, 80], window=10, precision="float64", draws=4, seed=1)
    assert not np.array_equal(sample.with_intercept[0], other.with_intercept[0])


def test_subsets_of_a_full_kernel_keep_the_outputs_of_an_example_together():
    kernel, _ = full_kernel(12, 1, 2, seed=1)
    sample = decay_over_n(kernel, [8], window=10, precision="float64", draws=1, seed=3)
    rows = np.sort(np.random.default_rng(3).permutation(12)[:8])
    subset = spectrum_of_matrix(kernel[rows][:, :, rows], precision="float64")
    expected = fit_decay(subset.eigenvalues, window=10).with_intercept.rate
    np.testing.assert_allclose(sample.with_intercept[0, 0], expected, rtol=1e-9)


def test_the_interval_holds_its_share_of_the_subsample_fits():
    kernel = prescribed(np.arange(1, 61.0) ** -1.4, seed=2)
    arguments = {"window": 15, "precision": "float64", "draws": 40, "seed": 5}
    interval = decay_interval(kernel, size=40, level=0.8, **arguments)
    sample = decay_over_n(kernel, [40], **arguments)
    for (low, high), rates in (
        (interval.through_origin, sample.through_origin),
        (interval.with_intercept, sample.with_intercept),
    ):
        assert np.mean((rates >= low) & (rates <= high)) == 0.8
    assert (interval.size, interval.draws, interval.level) == (40, 40, 0.8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit_decay(MIN_100, window=101), r"window \(1, 101\) does not fit 100 eigenvalues"),
        (lambda: fit_decay(MIN_100, window=(5, 5)), r"wanted 1 ≤ first < last ≤ 100"),
        (lambda: fit_decay(MIN_100, window=(0, 5)), r"window \(0, 5\) does not fit"),
        (lambda: fit_decay(MIN_100[::-1], window=9), r"not descending; sort them, largest first"),
        (lambda: fit_decay(MIN_100, window=50, floor=0.04), r"holds 2 eigenvalues above the floor 0\.04; wanted at"),
        (lambda: fit_decay(MIN_100, window=50, floor=1), r"largest eigenvalue 0\.409 is not above the floor 1"),
        (lambda: fit_decay(MIN_100, window=50, floor=-1), r"floor is -1; wanted a finite number, zero or above"),
        (lambda: fit_decay(np.array([1, np.nan, 0.2]), window=3), r"1 eigenvalues are NaN or infinite"),
        (
            lambda: decay_over_n(min_kernel(9), [0, 4, 10], window=5, precision="float64", draws=0, seed=0),
            r"(?s)4 problems.*size 0 is outside 1 … n = 9.*size 10 is.*size 4 has 4 eigenvalues.*draws is 0",
        ),
        (
            lambda: decay_interval(
                min_kernel(9), size=8, window=5, precision="float64", draws=2, seed=0, level=95
            ),
            r"level is 95; wanted a share between 0 and 1",
        ),
    ],
)  # fmt: skip
def test_unusable_input_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
