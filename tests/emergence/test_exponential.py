"""Exponential laws against what made the points, and against a general optimiser."""

import numpy as np
import pytest
from scipy.optimize import least_squares

from ntkft._errors import InputError
from ntkft.emergence import fit_decline, fit_exponential

X = np.linspace(2.3, 6.0, 35)


@pytest.mark.parametrize("coefficients", [(0.84, 3.05, 0.9), (0.86, 2.28, 0.72), (0.9, 500.0, 3.0)])
def test_the_law_that_made_the_points_is_found(coefficients):
    limit, scale, rate = coefficients
    found = fit_exponential(X, limit - scale * np.exp(-rate * X))
    # Near its minimum an RSS is flat: half of the digits of float64 in γ.
    np.testing.assert_allclose((found.limit, found.scale, found.rate), coefficients, rtol=1e-6)
    assert found.r_squared == pytest.approx(1, abs=1e-12)


def test_a_general_optimiser_finds_nothing_better():
    y = 0.84 - 3.05 * np.exp(-0.9 * X) + 0.01 * np.random.default_rng(0).standard_normal(len(X))
    found = fit_exponential(X, y)
    rival = least_squares(
        lambda c: y - c[0] + c[1] * np.exp(-c[2] * X), [0.8, 2, 0.7], xtol=1e-14, ftol=1e-14, gtol=1e-14
    )
    assert found.rss == pytest.approx(2 * rival.cost, rel=1e-9)
    np.testing.assert_allclose((found.limit, found.scale, found.rate), rival.x, rtol=1e-5)
    np.testing.assert_allclose(np.sum((y - found.at(X)) ** 2), found.rss, rtol=1e-9)
    assert found.r_squared == pytest.approx(1 - found.rss / np.sum((y - y.mean()) ** 2), rel=1e-12)


def test_a_decline_ends_at_chance():
    found = fit_decline(X, 4 * np.exp(-1.1 * X))
    np.testing.assert_allclose((found.limit, -found.scale, found.rate), (0, 4, 1.1), rtol=1e-6)
    np.testing.assert_allclose(found.at(X), 4 * np.exp(-1.1 * X), rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit_exponential(X[:3], X[:3]), "3 distinct losses; wanted at least 4"),
        (lambda: fit_exponential(X, np.ones_like(X)), "the errors are all the same"),
        (lambda: fit_exponential(X, 0.1 * X), "an end of its range; the points follow a line or a step"),
        (lambda: fit_exponential(-X, X), "fit_exponential: 35 losses are not above 0"),
        (lambda: fit_decline(np.full(5, 2.0), X[:5]), "the losses are all equal"),
    ],
)
def test_what_has_no_exponential_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
