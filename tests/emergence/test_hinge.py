"""The least-squares hinge against a dense grid, and where it is exact."""

import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft.emergence import fit_hinge
from ntkft.emergence.hinge import best_eta
from tests.tolerances import CLOSED_FORM


def grid_search(x, y, within, weights=None):
    """The least weighted RSS over 20,001 values of η, each with its own slope a ≥ 0; (RSS, η)."""
    w, best = (
        np.ones_like(x) if weights is None else weights,
        (np.sum(y**2 * (1 if weights is None else weights)), np.nan),
    )
    for eta in np.linspace(within[0], within[1], 20_001):
        h = np.maximum(eta - x, 0)
        slope = max(np.sum(w * h * y) / max(np.sum(w * h * h), 1e-300), 0)
        best = min(best, (np.sum(w * (y - slope * h) ** 2), eta))
    return best


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("noise", [0.05, 0.5])
def test_no_eta_on_a_grid_is_better_and_the_best_is_near(seed, noise):
    generator = np.random.default_rng(seed)
    x = generator.uniform(1.5, 5, 20)
    x[3] = x[4]  # two models of one loss
    y = 0.4 * np.maximum(3 - x, 0) + noise * generator.standard_normal(20)
    within = (1.9, 4.5)
    found, (rss, eta) = fit_hinge(x, y, within=within), grid_search(x, y, within)
    if found is None:
        assert np.isnan(eta)
        return
    assert found.rss <= rss + CLOSED_FORM
    assert found.rss == pytest.approx(np.sum((y - found.at(x)) ** 2), rel=CLOSED_FORM)
    assert found.rss == pytest.approx(rss, rel=1e-4)  # the grid's step is 1.3e-4 of a loss
    assert abs(found.eta - eta) < 2e-4


def test_weights_count_points():
    generator = np.random.default_rng(0)
    x = np.sort(generator.uniform(1.5, 5, 15))
    y = 0.4 * np.maximum(3 - x, 0) + 0.1 * generator.standard_normal(15)
    counts = generator.multinomial(15, np.full(15, 1 / 15), size=20)
    found = best_eta(x, y, counts.astype(float), (2.0, 4.5))
    for eta, count in zip(found, counts, strict=True):
        repeated = fit_hinge(np.repeat(x, count), np.repeat(y, count), within=(2.0, 4.5))
        assert repeated is not None
        # By what they explain: one point below η is met by every η above it.
        h = np.maximum(eta - x, 0)
        rss = np.sum(count * y**2) - np.sum(count * h * y) ** 2 / np.sum(count * h * h)
        assert rss == pytest.approx(repeated.rss, rel=1e-9)


def test_an_exact_hinge_is_recovered_exactly_in_any_order_and_unit():
    generator = np.random.default_rng(1)
    x = generator.uniform(1.5, 5, 30)
    y = 0.3 * np.maximum(2.9 - x, 0)
    found = fit_hinge(x, y, within=(2.0, 4.5))
    assert found is not None
    assert (found.eta, found.slope) == pytest.approx((2.9, 0.3), abs=CLOSED_FORM)
    scaled = fit_hinge(7 * x[::-1], 2 * y[::-1], within=(14.0, 31.5))
    assert scaled is not None
    assert (scaled.eta, scaled.slope) == pytest.approx((7 * 2.9, 2 * 0.3 / 7), abs=1e-9)


def test_scores_that_are_never_above_chance_at_small_losses_have_no_hinge():
    x = np.arange(1.0, 11)
    assert fit_hinge(x, -np.maximum(5 - x, 0), within=(3, 8)) is None


def test_a_line_that_reaches_chance_beyond_the_range_puts_eta_at_its_very_end():
    x = np.linspace(1.7, 5.3, 23)
    found = fit_hinge(x, 9.1 - x, within=(x[2], x[-3]))
    assert found is not None
    assert found.eta == x[-3]


@pytest.mark.parametrize(
    ("losses", "scores", "within", "message"),
    [
        ([1, 2], [0, 1], (3, 2), "wanted low ≤ high"),
        ([1, 2], [0, 1], (0.5, 1), r"losses below it \(they begin at 1\)"),
        ([1, 2], [0], (1, 2), r"got losses \[2\] and scores \[1\]; wanted one of each"),
        ([1, 0], [0, np.nan], (1, 2), "(?s)2 problems.*1 of 2 scores are NaN.*1 losses are not above 0, such as 0"),
    ],
)
def test_what_has_no_hinge_is_refused(losses, scores, within, message):
    with pytest.raises(InputError, match=message):
        fit_hinge(np.array(losses, float), np.array(scores, float), within=within)
