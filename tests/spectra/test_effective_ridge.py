import jax.numpy as jnp
import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft.kernels import empirical_ntk
from ntkft.spectra import effective_dimension, effective_ridge, ridge_risk, second_effective_dimension

N = 20
SPECTRA = {
    "power law": np.arange(1, 201.0) ** -1.5,
    "flat": np.full(50, 0.2),
    "spikes on a floor": np.concatenate([[300.0, 100.0, 20.0], np.ones(60)]),
    "one more than examples": np.linspace(0.5, 3, N + 1),
    "thirty decades, unsorted": 10.0 ** -np.arange(30.0)[::-1],
    "rounding noise": np.concatenate([[2.0, -1e-17], np.full(40, 1e-3)]),
    "fewer than examples": np.array([2.0, 1.0, 0.3, 0.0]),
}
RICH = {name: values for name, values in SPECTRA.items() if np.sum(values > 0) > N}


@pytest.mark.parametrize("ridge", [1e-9, 1e-3, 0.1, 5, 1e6])
@pytest.mark.parametrize("name", SPECTRA)
def test_the_effective_ridge_solves_its_equation(name, ridge):
    kappa = effective_ridge(SPECTRA[name], N, ridge)
    values = np.maximum(SPECTRA[name], 0)
    # n − nλ/κ is a difference; in κ itself the equation reads κ = λ + (κ/n) Σ s/(s + κ).
    np.testing.assert_allclose(ridge + kappa / N * np.sum(values / (values + kappa)), kappa, rtol=1e-12)
    assert kappa >= ridge


@pytest.mark.parametrize("name", RICH)
def test_without_a_ridge_the_degrees_of_freedom_are_the_examples(name):
    kappa = effective_ridge(SPECTRA[name], N, 0)
    assert kappa > 0
    np.testing.assert_allclose(effective_dimension(SPECTRA[name], kappa), N, rtol=1e-12)
    assert second_effective_dimension(SPECTRA[name], kappa) < N


@pytest.mark.parametrize("name", SPECTRA)
def test_the_second_dimension_is_a_sum_of_squares_below_the_first(name):
    values = np.maximum(SPECTRA[name], 0)
    second = second_effective_dimension(SPECTRA[name], 0.3)
    np.testing.assert_allclose(second, sum((s / (s + 0.3)) ** 2 for s in values), rtol=1e-12)
    assert second <= effective_dimension(SPECTRA[name], 0.3)


@pytest.mark.parametrize("ridge", [0, 0.01, 0.7])
def test_a_flat_spectrum_has_the_root_of_a_quadratic(ridge):
    s, m = 0.2, 50
    linear = N * s - N * ridge - m * s  # nκ² + (ns − nλ − ms) κ − nλs = 0
    expected = (-linear + np.sqrt(linear**2 + 4 * N**2 * ridge * s)) / (2 * N)
    np.testing.assert_allclose(effective_ridge(np.full(m, s), N, ridge), expected, rtol=1e-12)


@pytest.mark.parametrize("ridge", [0, 0.05])
@pytest.mark.parametrize("name", RICH)
def test_the_effective_ridge_scales_with_the_spectrum(name, ridge):
    kappa = effective_ridge(SPECTRA[name], N, ridge)
    np.testing.assert_allclose(effective_ridge(7 * SPECTRA[name][::-1], N, 7 * ridge), 7 * kappa, rtol=1e-11)


@pytest.mark.parametrize("name", [name for name in RICH if name != "thirty decades, unsorted"])
def test_the_effective_ridge_is_continuous_in_the_ridge_and_its_slope_is_the_inflation(name):
    values = SPECTRA[name]
    kappa = effective_ridge(values, N, 0)
    np.testing.assert_allclose(effective_ridge(values, N, 1e-10 * kappa), kappa, rtol=1e-6)
    ridge, step = 0.1 * kappa, 1e-5 * kappa
    slope = (effective_ridge(values, N, ridge + step) - effective_ridge(values, N, ridge - step)) / (2 * step)
    df2 = second_effective_dimension(values, effective_ridge(values, N, ridge))
    np.testing.assert_allclose(slope, N / (N - df2), rtol=1e-6)  # second order in the step, rounding of κ over it


def test_with_few_features_the_effective_ridge_vanishes_with_the_ridge():
    values, ridge = SPECTRA["fewer than examples"], 1e-9
    np.testing.assert_allclose(effective_ridge(values, N, ridge), ridge * N / (N - 3), rtol=1e-6)


def test_an_isotropic_interpolator_has_its_textbook_risk():
    p, noise = 50, 1.7
    found = ridge_risk(np.full(p, 0.2), np.full(p, 0.3), noise, N, 0)
    np.testing.assert_allclose(found.variance, noise * N / (p - N), rtol=1e-12)
    np.testing.assert_allclose(found.bias, 0.3 * p * (1 - N / p), rtol=1e-12)
    np.testing.assert_allclose([found.df1, found.df2], [N, N**2 / p], rtol=1e-12)


def test_the_risk_does_not_cancel_where_all_examples_are_used_up():
    found = ridge_risk(np.ones(N), np.ones(N), 1.0, N, 1e-24)  # κ ≈ √λ, n − df2 ≈ 2n√λ
    np.testing.assert_allclose(found.variance, 1 / (2 * 1e-12), rtol=1e-6)


def test_noise_and_target_add_up_and_a_target_outside_the_features_is_never_learnt():
    values, energy = np.array([3.0, 1.0, 0.5, 0.0]), np.array([1.0, 2.0, 0.5, 0.7])
    both = ridge_risk(values, energy, 0.4, N, 0.1)
    assert both.bias == ridge_risk(values, energy, 0, N, 0.1).bias
    assert both.variance == ridge_risk(values, 0 * energy, 0.4, N, 0.1).variance
    missed = ridge_risk(values, np.array([0, 0, 0, 0.7]), 0, N, 0.1)
    np.testing.assert_allclose(missed.bias, 0.7 * N / (N - missed.df2), rtol=1e-12)


@pytest.fixture(scope="module")
def pool():
    """The NTK of a small network on a pool of 300 points, and a target on them."""
    generator = np.random.default_rng(0)
    params = {"in": jnp.asarray(generator.standard_normal((3, 16))), "out": jnp.asarray(generator.standard_normal(16))}
    x = jnp.asarray(generator.standard_normal((300, 3)))

    def network(params, inputs):
        return (jnp.tanh(inputs @ params["in"]) @ params["out"])[:, None] / 4

    kernel = np.asarray(empirical_ntk(network, params, x, outputs="scalar").total, np.float64)
    return kernel, np.sin(2 * np.asarray(x)[:, 0]) + np.asarray(x)[:, 1]


def test_an_empirical_ntk_predicts_kernel_ridge_regression_on_examples_drawn_from_its_pool(pool):
    kernel, target = pool
    size, n, ridge, sigma, draws = len(kernel), 60, 0.05, 0.3, 400
    values, vectors = np.linalg.eigh(kernel / size)
    found = ridge_risk(values, np.square(vectors.T @ target) / size, sigma**2, n, ridge)

    generator, risks, kappas = np.random.default_rng(1), [], []
    for _ in range(draws):
        rows = generator.integers(0, size, n)
        sample = kernel[np.ix_(rows, rows)]
        noisy = target[rows] + sigma * generator.standard_normal(n)
        fitted = kernel[:, rows] @ np.linalg.solve(sample + n * ridge * np.eye(n), noisy)
        risks.append(np.mean(np.square(fitted - target)))
        kappas.append(1 / np.mean(1 / (np.linalg.eigvalsh(sample / n) + ridge)))
    # Five standard errors, and the O(1/n) of a deterministic equivalent: here 3/n of the value.
    for drawn, theory in ((risks, found.bias + found.variance), (kappas, found.kappa)):
        assert abs(np.mean(drawn) - theory) < 5 * np.std(drawn) / np.sqrt(draws) + 3 / n * theory


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones(5), 0, 0.1), "n is 0; wanted at least one example"),
        ((np.ones(5), 3, -0.1), "ridge is -0.1; wanted a finite number"),
        ((np.ones(5), 5, 0.0), "got ridge 0 and 5 positive eigenvalues for n = 5; wanted more than n of them"),
        ((np.array([1.0, np.nan]), 1, 0.1), "1 eigenvalues are NaN or infinite"),
    ],
)
def test_an_equation_without_a_root_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        effective_ridge(*arguments)


def test_unusable_energies_noise_and_ridges_are_refused():
    with pytest.raises(InputError, match=r"got energies of shape \[2\] for 3 eigenvalues"):
        ridge_risk(np.ones(3), np.ones(2), 1, 2, 0.1)
    with pytest.raises(InputError, match="wanted one for each, finite and at least zero"):
        ridge_risk(np.ones(3), np.array([1.0, -1.0, 0.0]), 1, 2, 0.1)
    with pytest.raises(InputError, match="noise is -1"):
        ridge_risk(np.ones(3), np.ones(3), -1, 2, 0.1)
    with pytest.raises(InputError, match="got a ridge that is not above zero; wanted ν > 0"):
        second_effective_dimension(np.ones(3), 0)
