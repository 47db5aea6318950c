import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft.hmm import fit_head, gaussian_hmm, head_risk, rotating_hmm, simulate_head

GENERATOR = np.random.default_rng(0)


@pytest.mark.parametrize(("n", "p"), [(12, 5), (5, 12), (7, 7)])
def test_the_head_is_that_of_least_squares_and_least_norm(n, p):
    x, y = GENERATOR.standard_normal((n, p)), GENERATOR.standard_normal((n, 3))
    np.testing.assert_allclose(fit_head(x, y, 0), np.linalg.pinv(x) @ y, atol=1e-10)
    for ridge in (1e-3, 0.5):
        expected = np.linalg.solve(x.T @ x + n * ridge * np.eye(p), x.T @ y)
        np.testing.assert_allclose(fit_head(x, y, ridge), expected, atol=1e-10)


def test_directions_of_rounding_noise_get_no_weight():
    low = GENERATOR.standard_normal((30, 3)) @ GENERATOR.standard_normal((3, 8))
    y = low @ GENERATOR.standard_normal((8, 2))
    fitted = fit_head(low, y, 0)
    np.testing.assert_allclose(low @ fitted, y, atol=1e-10)
    assert np.linalg.matrix_rank(fitted) == 2
    assert np.linalg.norm(fitted) < 10 * np.linalg.norm(y)
    assert not fit_head(np.zeros((4, 2)), np.ones((4, 1)), 0).any()


@pytest.mark.parametrize(("p", "ridge"), [(4, 0.0), (60, 0.0), (30, 0.5)])
def test_simulated_risk_agrees_with_theory_for_any_state_covariance(p, ridge):
    transition = np.array([[0.5, 0.4], [-0.7, 0.1]])
    model = gaussian_hmm(transition, np.random.default_rng(1).standard_normal((p, 2)), 0.8, 0.3)
    found = simulate_head(model, 30, ridge, reps=1500, seed=0)
    theory = head_risk(model, 30, ridge).excess
    exact = p < 30 and ridge == 0
    assert abs(found.excess - theory) < 5 * found.standard_error + (0 if exact else 0.04) * theory
    assert 0 < found.standard_error < 0.05 * found.excess


def test_the_same_seed_draws_the_same_and_the_error_shrinks_with_the_draws():
    model = rotating_hmm(3, 5, 0.9, 1.0, seed=0)
    first = simulate_head(model, 20, 0, reps=400, seed=1)
    assert simulate_head(model, 20, 0, reps=400, seed=1) == first
    assert simulate_head(model, 20, 0, reps=400, seed=2).excess != first.excess
    more = simulate_head(model, 20, 0, reps=6400, seed=1)
    assert 0.15 < more.standard_error / first.standard_error < 0.4  # a quarter, within the error of errors


def test_every_bad_number_is_named():
    model = rotating_hmm(3, 5, 0.9, 1.0, seed=0)
    with pytest.raises(InputError, match=r"(?s)n is 0; wanted at least 1.*reps is 1; wanted at least 2.*seed is -1"):
        simulate_head(model, 0, 0, reps=1, seed=-1)
    with pytest.raises(InputError, match="ridge is -1; wanted a finite number"):
        simulate_head(model, 5, -1, reps=2, seed=0)
    with pytest.raises(InputError, match="got 3 inputs and 2 targets; wanted the same number"):
        fit_head(np.ones((3, 2)), np.ones((2, 1)), 0)
