from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from ntkft._errors import InputError
from ntkft.hmm import complexity_sweep, gaussian_hmm, head_risk, rotating_hmm, simulate_head, width_grid

SETTING: dict[str, Any] = {"n": 100, "d": 8, "rho": 0.9, "sigma_u": 1.0}
# Width: excess risk in theory, its last digit, Monte Carlo and its standard error, for one draw of W that is not ours.
PUBLISHED = {
    8: (0.3161, 1e-4, 0.3158, 0.0034),
    32: (0.8577, 1e-4, 0.8523, 0.005),
    80: (6.770, 1e-3, 6.739, 0.058),
    110: (15.94, 1e-2, 17.44, 0.22),
    200: (1.687, 1e-3, 1.689, 0.006),
    400: (0.643, 1e-3, 0.648, 0.004),
    1600: (0.2318, 1e-4, 0.2351, 0.003),
}


def drawn_excess(model, n, ridge, reps, seed):
    """Monte Carlo of the excess risk from dense matrices and the textbook estimators; all repetitions at once."""
    generator = np.random.default_rng(seed)
    p, d = model.emission.shape
    z = generator.multivariate_normal(np.zeros(d), model.state_covariance, (reps, n))
    x = z @ model.emission.T + model.sigma_u * generator.standard_normal((reps, n, p))
    y = z @ model.transition + np.sqrt(model.sigma_epsilon2) * generator.standard_normal((reps, n, d))
    penalty = np.sqrt(n * ridge) * np.eye(p)[: p if ridge else 0]  # p more examples with targets of zero
    rows = np.concatenate([x, np.tile(penalty, (reps, 1, 1))], axis=1)
    with threadpool_limits(1, "blas"):
        fitted = np.linalg.pinv(rows)[:, :, :n] @ y
    sigma = model.emission @ model.state_covariance @ model.emission.T + model.sigma_u**2 * np.eye(p)
    error = fitted - np.linalg.solve(sigma, model.emission @ model.state_covariance @ model.transition)
    return np.einsum("rpd,pq,rqd->r", error, sigma, error)


def assert_agrees(drawn, theory, relative):
    """Five standard errors at the sample size of the test, and a relative error where theory is a limit."""
    error = np.std(drawn, ddof=1) / np.sqrt(len(drawn))
    assert abs(np.mean(drawn) - theory) < 5 * error + relative * theory, (np.mean(drawn), error, theory)


@pytest.mark.parametrize("p", [1, 3, 6])
def test_with_fewer_features_than_examples_the_risk_is_exact(p):
    generator = np.random.default_rng(p)
    transition = np.array([[0.5, 0.4, 0.0], [-0.3, 0.6, 0.1], [0.2, 0.0, -0.7]])
    model = gaussian_hmm(transition, generator.standard_normal((p, 3)), 0.7, 0.4)
    found, drawn = head_risk(model, 20, 0), drawn_excess(model, 20, 0, 20_000, seed=p)
    assert found.regime == "classical"
    assert found.bias == 0
    assert_agrees(drawn, found.excess, 0)
    if p == 6:  # the test can fail: without the −1 of the exact formula, or with 3 % more, it would
        with pytest.raises(AssertionError):
            assert_agrees(drawn, found.noise * p / (20 - p), 0)
        with pytest.raises(AssertionError):
            assert_agrees(drawn, 1.03 * found.excess, 0)


@pytest.mark.parametrize(("p", "sigma_u"), [(80, 1.0), (120, 1.0), (120, 8.0), (200, 20.0)])
def test_with_more_features_than_examples_the_limit_is_within_four_percent(p, sigma_u):
    model = rotating_hmm(5, p, 0.9, sigma_u, seed=1)
    found = head_risk(model, 40, 0)
    assert found.regime == "interpolating"
    assert_agrees(drawn_excess(model, 40, 0, 300, seed=p), found.excess, 0.04)
    assert sigma_u < 5 or found.bias > 0.1 * found.variance  # noisy representations also show the bias


@pytest.mark.parametrize("ridge", [0.01, 1.0, 20.0])
@pytest.mark.parametrize("p", [10, 40, 80])
def test_with_a_penalty_the_limit_holds_at_every_width(p, ridge):
    model = rotating_hmm(5, p, 0.9, 2.0, seed=1)
    found = head_risk(model, 40, ridge)
    assert found.regime == "ridge"
    assert_agrees(drawn_excess(model, 40, ridge, 1000, seed=p), found.excess, 0.04)


@pytest.mark.parametrize("n", [1, 2, 3, 30])
def test_at_the_threshold_the_risk_is_infinite_and_never_nan(n):
    for p in range(max(n - 3, 1), n + 4):
        found = head_risk(rotating_hmm(3, p, 0.7, 1.0, seed=0), n, 0)
        assert (found.regime == "threshold") == (abs(p - n) <= 1) == np.isinf(found.excess) == np.isinf(found.total)
        assert not np.isnan([found.noise, found.bias, found.variance, found.excess, found.total]).any()
        assert np.isfinite(found.bias)
        assert np.isfinite(head_risk(rotating_hmm(3, p, 0.7, 1.0, seed=0), n, 1e-12).total)


@pytest.mark.parametrize("p", [32, 60])
def test_the_risk_is_continuous_as_the_penalty_vanishes(p):
    model = rotating_hmm(5, p, 0.9, 2.0, seed=1)
    limit, small = head_risk(model, 30, 0), head_risk(model, 30, 1e-9)
    np.testing.assert_allclose([small.bias, small.variance], [limit.bias, limit.variance], rtol=1e-6)


def test_below_the_threshold_it_tends_to_the_limit_that_lacks_one_example():
    model = rotating_hmm(5, 10, 0.9, 2.0, seed=1)
    exact, small = head_risk(model, 30, 0), head_risk(model, 30, 1e-12)
    np.testing.assert_allclose(small.excess, exact.noise * 10 / 20, rtol=1e-6)
    np.testing.assert_allclose(exact.excess, exact.noise * 10 / 19, rtol=1e-12)


@pytest.mark.parametrize("ridge", [0, 0.3])
def test_rotations_of_states_and_of_representations_change_no_risk(ridge):
    model = rotating_hmm(4, 50, 0.8, 1.5, seed=0)
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((50, 50)))[0]
    expected = head_risk(model, 30, ridge)
    for other in (
        replace(model, emission=turn @ model.emission),
        replace(model, transition=rotating_hmm(4, 50, 0.8, 1.5, seed=9).transition),
    ):
        found = head_risk(other, 30, ridge)
        np.testing.assert_allclose(
            [found.noise, found.bias, found.variance], [expected.noise, expected.bias, expected.variance], rtol=1e-10
        )


@pytest.mark.parametrize("p", PUBLISHED)
def test_independent_values_lie_within_the_spread_of_w(p):
    theory, digit, *_ = PUBLISHED[p]
    ours = [complexity_sweep([p], ridge=0, seed=seed, **SETTING)[0].excess for seed in range(30)]
    assert abs(theory - np.mean(ours)) < 4 * np.std(ours, ddof=1) + digit / 2


@pytest.mark.parametrize("p", [8, 32, 80, 110, 200])
def test_independent_simulations_are_met_by_ours(p):
    *_, excess, error = PUBLISHED[p]
    spread = np.std([complexity_sweep([p], ridge=0, seed=seed, **SETTING)[0].excess for seed in range(30)], ddof=1)
    found = simulate_head(rotating_hmm(8, p, 0.9, 1.0, seed=0), 100, 0, reps=150, seed=0)
    assert abs(found.excess - excess) < 4 * np.sqrt(error**2 + found.standard_error**2 + 2 * spread**2)


def test_excess_risk_is_lowest_at_no_width_and_total_risk_has_a_valley_below_the_threshold():
    sweep = complexity_sweep(range(1, 99), ridge=0, seed=0, **SETTING)
    excess, total = np.array([risk.excess for risk in sweep]), np.array([risk.total for risk in sweep])
    assert np.argmin(excess) == 0
    assert 8 < np.argmin(total) + 1 < 50
    noise = [risk.noise for risk in sweep]
    assert np.all(np.diff(noise) <= 1e-12)  # wider representations of one seed only ever say more


@pytest.mark.parametrize(("n", "largest"), [(100, 1600), (100, 30), (1, 5), (10, 1)])
def test_a_grid_for_curves_is_ascending_within_bounds_and_dense_at_the_threshold(n, largest):
    grid = width_grid(n, largest)
    assert grid == sorted(set(grid))
    assert grid[0] == 1
    assert grid[-1] == largest
    assert all(p in grid for p in (n - 2, n - 1, n, n + 1, n + 2) if 1 <= p <= largest)


def test_what_cannot_be_tuned_on_is_refused():
    model = rotating_hmm(2, 3, 0.5, 1.0, seed=0)
    with pytest.raises(InputError, match="n is 0; wanted at least one example"):
        head_risk(model, 0, 0)
    with pytest.raises(InputError, match="ridge is -1; wanted a finite number, zero or above"):
        head_risk(model, 5, -1)
    with pytest.raises(InputError, match="rho is 2; wanted 0 ≤ rho < 1"):
        complexity_sweep([3], ridge=0, seed=0, **(SETTING | dict[str, Any](rho=2.0)))
