from fractions import Fraction

import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft.dynamics import gradient_descent, gradient_flow, heavy_ball, ridge
from tests.tolerances import CLOSED_FORM

STEP = 0.5
# ελ̂ below, at and above one (oscillating), next to the limit of two, tiny, and zero.
EIGENVALUES = np.array([3.99, 3.0, 2.0, 1.2, 0.3, 1e-3, 1e-9, 0.0])
STEPS = np.array([0, 1, 2, 3, 10, 57, 400])


def iterate(eigenvalues, steps, momentum):
    """Multipliers by running the algorithm: m ← m + v, v ← βv + ε(1 − λ̂m)."""
    multiplier, velocity, seen = np.zeros_like(eigenvalues), np.zeros_like(eigenvalues), []
    for step in range(int(max(steps)) + 1):
        if step in steps:
            seen.append(multiplier)
        velocity = momentum * velocity + STEP * (1 - eigenvalues * multiplier)
        multiplier = multiplier + velocity
    return np.stack(seen)


def test_gradient_descent_is_explicit_iteration():
    actual = gradient_descent(STEP)(EIGENVALUES, STEPS)
    np.testing.assert_allclose(actual, iterate(EIGENVALUES, STEPS, 0.0), rtol=CLOSED_FORM)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9, 0.99])
def test_heavy_ball_is_explicit_iteration(momentum):
    # Real, complex and (λ̂ = (1 − √β)²/ε) double roots of the recursion.
    eigenvalues = np.append(EIGENVALUES, (1 - np.sqrt(momentum)) ** 2 / STEP)
    actual = heavy_ball(STEP, momentum)(eigenvalues, STEPS)
    np.testing.assert_allclose(actual, iterate(eigenvalues, STEPS, momentum), rtol=CLOSED_FORM, atol=CLOSED_FORM)


def test_heavy_ball_without_momentum_is_gradient_descent():
    plain, heavy = gradient_descent(STEP)(EIGENVALUES, STEPS), heavy_ball(STEP, 0)(EIGENVALUES, STEPS)
    np.testing.assert_allclose(heavy, plain, rtol=CLOSED_FORM)


@pytest.mark.parametrize("exponent", [10, 30, 45, 60, 200])
def test_gradient_descent_is_exact_down_to_vanishing_eigenvalues(exponent):
    eigenvalue, steps = Fraction(1, 2**exponent), 999
    expected = float((1 - (1 - eigenvalue / 2) ** steps) / eigenvalue)
    actual = gradient_descent(STEP)(np.array([float(eigenvalue)]), [steps])
    np.testing.assert_allclose(actual, expected, rtol=1e-13)


@pytest.mark.parametrize("make", [gradient_descent, gradient_flow, ridge, lambda step: heavy_ball(step, 0.0)])
def test_every_filter_starts_at_zero_and_learns_zero_eigenvalues_at_rate_step_size(make):
    multipliers = make(STEP)(EIGENVALUES, STEPS)
    assert multipliers.shape == (len(STEPS), len(EIGENVALUES))
    np.testing.assert_array_equal(multipliers[0], 0)
    np.testing.assert_allclose(multipliers[:, -1], STEPS * STEP)
    np.testing.assert_allclose(multipliers[:, -2], STEPS * STEP, rtol=2e-7)  # continuous at zero


@pytest.mark.parametrize("make", [gradient_descent, gradient_flow, lambda step: heavy_ball(step, 0.5)])
def test_everything_is_learnt_in_the_end(make):
    learnt = make(STEP)(EIGENVALUES[:6], np.array([10**7])) * EIGENVALUES[None, :6]
    np.testing.assert_allclose(learnt, 1, rtol=1e-12)


def test_gradient_flow_is_the_limit_of_gradient_descent():
    flow = gradient_flow(STEP)(EIGENVALUES, STEPS)
    errors = [
        np.abs(gradient_descent(STEP / parts)(EIGENVALUES, STEPS * parts) - flow).max()
        for parts in (10**3, 10**4, 10**5)
    ]
    np.testing.assert_allclose(np.array(errors[:2]) / np.array(errors[1:]), 10, rtol=0.02)  # first order in the step


def test_ridge_and_flow_agree_to_first_order_in_time():
    eta = np.array([1e-3, 1e-4])
    difference = ridge(1.0)(np.array([1.0]), eta) - gradient_flow(1.0)(np.array([1.0]), eta)
    np.testing.assert_allclose(difference[:, 0], -(eta**2) / 2, rtol=1e-2)


def test_rounding_noise_below_zero_counts_as_zero():
    noisy = np.array([1.0, 0.1, -1e-12])
    np.testing.assert_array_equal(gradient_descent(STEP)(noisy, [5]), gradient_descent(STEP)(noisy.clip(0), [5]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: gradient_descent(0.5)(np.array([4.0, 1.0]), [1]),
            r"gradient_descent: step size 0\.5 is at or above the stability limit 2/λ̂₁ = 0\.5 \(λ̂₁ = 4\).*1/λ̂₁ = 0\.25",
        ),
        (lambda: heavy_ball(1, 0.5)(np.array([3.0]), [1]), r"stability limit 3/λ̂₁ = 1 "),
        (lambda: gradient_descent(0), r"gradient_descent: step size is 0; wanted a finite number above zero"),
        (lambda: gradient_flow(-1), r"gradient_flow: step size is -1"),
        (lambda: ridge(np.inf), r"ridge: step size is inf"),
        (lambda: heavy_ball(0.1, 1), r"momentum is 1; wanted 0 ≤ momentum < 1"),
        (lambda: gradient_descent(0.1)(np.ones(2), [1, 2.5]), r"step 2\.5 is not whole; use gradient_flow"),
        (lambda: gradient_flow(0.1)(np.ones(2), [1, -2]), r"got steps .*wanted a list of finite numbers"),
        (lambda: ridge(0.1)(np.array([1, np.nan]), [1]), r"ridge: 1 eigenvalues are NaN or infinite"),
    ],
)
def test_unusable_input_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
