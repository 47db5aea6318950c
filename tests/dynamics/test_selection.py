import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft.dynamics import (
    bias_variance,
    dual_coefficients,
    gcv,
    gradient_descent,
    gradient_flow,
    holdout_curve,
    outputs_at,
    ridge,
    sure,
)
from ntkft.spectra import spectrum_of_matrix
from tests.spectra.matrices import Record, full_kernel, min_kernel, prescribed, tent

MIN_100 = spectrum_of_matrix(min_kernel(100), precision="float64")
STEPS = np.array([0, 1, 5, 40, 300])


@pytest.mark.parametrize(
    ("sigma", "rule", "risk_at_rule", "oracle", "risk_at_oracle"),
    [(1, 10, 0.033356, 91, 0.020424), (0.1, 260, 0.000877, 594, 0.000546)],
)
def test_expected_risk_of_the_tent_at_the_rule_and_at_the_oracle(sigma, rule, risk_at_rule, oracle, risk_at_oracle):
    risk = bias_variance(MIN_100, tent(100), sigma, gradient_descent(0.25), np.arange(2000)).risk
    assert risk.best == oracle
    np.testing.assert_allclose(risk.values[[rule, oracle]], [risk_at_rule, risk_at_oracle], atol=5e-7)


def test_bias_and_variance_start_at_the_target_and_end_at_the_noise():
    parts = bias_variance(MIN_100, tent(100), 0.3, gradient_flow(0.5), [0, 1e12])
    np.testing.assert_allclose(parts.bias2, [float(np.mean(tent(100) ** 2)), 0], atol=1e-12)
    np.testing.assert_allclose(parts.variance, [0, 0.3**2], rtol=1e-10)


def estimates(kernel, target, sigma, spectral_filter, batches=200, columns=250):
    """Batch means of SURE and of the true in-sample error, [batches, s], over 50,000 draws of the noise."""
    spectrum = spectrum_of_matrix(kernel, precision="float64")
    generator = np.random.default_rng(0)
    estimated, true = [], []
    for _ in range(batches):
        residual = target[:, None] + sigma * generator.standard_normal((len(target), columns))
        estimated.append(sure(spectrum, residual, sigma, spectral_filter, STEPS).values / columns)
        dual = dual_coefficients(spectrum, residual, spectral_filter, STEPS)
        fitted = outputs_at(kernel, dual, np.zeros_like(residual))
        true.append(np.mean((fitted - target[None, :, None]) ** 2, axis=(1, 2)))
    return np.stack(estimated), np.stack(true)


def standard_errors_from(expected, samples):
    return np.abs(samples.mean(axis=0) - expected) / (samples.std(axis=0, ddof=1) / np.sqrt(len(samples)))


@pytest.mark.parametrize("spectral_filter", [gradient_descent(1.5), ridge(0.5)], ids=["descent", "ridge"])
def test_sure_and_bias_variance_are_the_expected_risk(spectral_filter):
    # 200 × 250 draws, fixed in advance: standard errors are 0.2 % of the risk or less, so 2 % of bias is seen.
    kernel = prescribed(np.arange(1, 31.0) ** -1.5, seed=0)
    target = np.random.default_rng(1).standard_normal(30)
    exact = bias_variance(spectrum_of_matrix(kernel, precision="float64"), target, 0.8, spectral_filter, STEPS)
    estimated, true = estimates(kernel, target, 0.8, spectral_filter)
    assert np.all(standard_errors_from(exact.risk.values, estimated) < 5)
    assert np.all(standard_errors_from(exact.risk.values[1:], true[:, 1:]) < 5)  # at t = 0 there is no noise in it
    np.testing.assert_allclose(true[:, 0], exact.risk.values[0], rtol=1e-12)
    assert np.all(standard_errors_from(exact.risk.values, 1.02 * estimated) > 5)
    assert np.all(standard_errors_from(exact.risk.values, 1.02 * true)[1:] > 5)


@pytest.mark.parametrize("outputs", ["shared", "full"])
def test_curves_over_several_outputs_are_those_of_the_one_flat_problem(outputs):
    kernel = min_kernel(6) if outputs == "shared" else full_kernel(6, 1, 3, seed=2)[0]
    flat = np.kron(kernel, np.eye(3)) if outputs == "shared" else kernel.reshape(18, 18)
    residual = np.random.default_rng(3).standard_normal((6, 3))
    many = spectrum_of_matrix(kernel, precision="float64")
    one = spectrum_of_matrix(3 * flat, precision="float64")  # 18 examples: divided by 18, not 6
    descent = gradient_descent(0.4)
    np.testing.assert_allclose(
        sure(many, residual, 0.3, descent, STEPS).values, 3 * sure(one, residual.ravel(), 0.3, descent, STEPS).values
    )
    np.testing.assert_allclose(
        gcv(many, residual, descent, STEPS).values, 3 * gcv(one, residual.ravel(), descent, STEPS).values
    )
    parts, expected = (bias_variance(s, r, 0.3, descent, STEPS) for s, r in ((many, residual), (one, residual.ravel())))
    np.testing.assert_allclose(parts.bias2, 3 * expected.bias2)
    np.testing.assert_allclose(parts.variance, 3 * expected.variance)


def test_gcv_is_its_definition_and_infinite_when_nothing_is_left():
    residual = np.random.default_rng(4).standard_normal(10)
    kernel = prescribed(np.arange(10, 0, -1), seed=4)
    spectrum = spectrum_of_matrix(kernel, precision="float64")
    smoother = np.linalg.matrix_power(np.eye(10) - 0.05 * kernel / 10, 7)
    expected = np.mean((smoother @ residual) ** 2) / (np.trace(smoother) / 10) ** 2
    curve = gcv(spectrum, residual, gradient_descent(0.05), [7, 10**6])
    np.testing.assert_allclose(curve.values, [expected, np.inf], rtol=1e-10)


def test_sure_and_gcv_pick_epochs_whose_risk_is_near_the_oracle():
    generator = np.random.default_rng(5)
    steps = np.arange(1500)
    risk = bias_variance(MIN_100, tent(100), 0.1, gradient_descent(0.25), steps).risk
    for _ in range(5):
        residual = tent(100) + 0.1 * generator.standard_normal(100)
        for curve in (
            sure(MIN_100, residual, 0.1, gradient_descent(0.25), steps),
            gcv(MIN_100, residual, gradient_descent(0.25), steps),
        ):
            assert risk.values[int(curve.best)] < 2 * risk.values.min()


@pytest.mark.parametrize("outputs", ["scalar", "trace", "full"])
def test_holdout_trains_on_the_rest_and_measures_on_what_it_held_out(outputs):
    k = 1 if outputs == "scalar" else 3
    full = full_kernel(20, 1, k, seed=6)[0]
    total = {"scalar": full[:, 0, :, 0], "trace": np.einsum("iaja->ij", full), "full": full}[outputs]
    matrix = {"scalar": total, "trace": np.kron(total / 3, np.eye(3)), "full": full.reshape(20 * k, 20 * k)}[outputs]
    generator = np.random.default_rng(7)
    y, f = generator.standard_normal((2, 20, k))
    curve = holdout_curve(
        Record(total, outputs), y, f, fraction=0.25, seed=8, spectral_filter=gradient_descent(0.2), steps=STEPS
    )
    order = np.random.default_rng(8).permutation(20)
    blocks = matrix.reshape(20, k, 20, k)
    kept, out = order[5:], order[:5]
    train = blocks[kept][:, :, kept].reshape(15 * k, 15 * k)
    cross = blocks[out][:, :, kept].reshape(5 * k, 15 * k)
    fitted, predicted, seen = f[kept].ravel(), f[out].ravel(), []
    for step in range(301):
        if step in STEPS:
            seen.append(np.sum((predicted - y[out].ravel()) ** 2) / 5)
        error = fitted - y[kept].ravel()
        fitted, predicted = fitted - 0.2 / 15 * train @ error, predicted - 0.2 / 15 * cross @ error
    np.testing.assert_allclose(curve.values, seen, rtol=1e-9)
    assert curve.best == STEPS[np.argmin(seen)]


def hold_out(targets, pretrained, fraction):
    holdout_curve(min_kernel(5), targets, pretrained, fraction=fraction, seed=0, spectral_filter=ridge(1.0), steps=[1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: hold_out(np.ones(5), np.zeros(5), 0.05),
            r"fraction 0\.05 of 5 examples holds out 0; wanted between 1",
        ),
        (lambda: hold_out(np.ones(5), np.zeros(5), 1), r"fraction 1 of 5 examples holds out 0"),
        (lambda: hold_out(np.ones(4), np.zeros(5), 0.2), r"targets: got shape \[4\], wanted \[5, k\]"),
        (
            lambda: hold_out(np.ones((5, 2)), np.zeros(5), 2),
            r"(?s)2 problems.*targets have shape \[5, 2\], pretrained outputs \[5, 1\].*fraction 2",
        ),
        (lambda: sure(MIN_100, np.ones(100), -1, ridge(1.0), [1]), r"sure: sigma is -1"),
        (lambda: bias_variance(MIN_100, np.ones(100), np.nan, ridge(1.0), [1]), r"bias_variance: sigma is nan"),
        (lambda: gcv(MIN_100, np.ones(99), ridge(1.0), [1]), r"got shape \[99\], wanted \[100, k\]"),
    ],
)
def test_unusable_input_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
