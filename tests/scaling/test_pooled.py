"""One exponent for all models: recovered where it made the points, and better than a line on both tables."""

from functools import partial

import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft.scaling import Rectified, fit_pooled, loss_curve, pearson, predict_pooled, select

FULL = 1_638_400
BETA = 0.35
LEVELS = np.array([3.0, 5.0, 2.0, 8.0, 4.0])
KNEES = np.array([300.0, 2_000.0, 5e3, 3e4, 1e5])
STARTS = (200.0, 150.0, 1_000.0, 300.0, 77.0)
COUNTS = (8, 6, 7, 9, 5)


def made(beta=BETA, scale=1.0):
    """Curves without floor and noise, each at sizes of its own."""
    sizes = [start * 2.0 ** np.arange(count) for start, count in zip(STARTS, COUNTS, strict=True)]
    return [loss_curve(f"model {i}", D, scale * LEVELS[i] / (1 + (D / KNEES[i]) ** beta)) for i, D in enumerate(sizes)]


def truth(size):
    return LEVELS / (1 + (size / KNEES) ** BETA)


@pytest.mark.parametrize("points", [3, 5])
def test_exponent_levels_and_knees_are_those_that_made_the_points(points):
    found = fit_pooled(made(), points=points)
    assert found.identified
    assert found.points == points
    assert found.names == tuple(f"model {i}" for i in range(5))
    # Sums of squares are flat at their minimum: β to half of the digits at best, knees by what that moves them.
    assert found.beta == pytest.approx(BETA, rel=1e-4)
    np.testing.assert_allclose(np.exp(found.level), LEVELS, rtol=1e-3)
    np.testing.assert_allclose(np.exp(found.log_knee), KNEES, rtol=3e-3)
    np.testing.assert_allclose(found.at(1e6), truth(1e6), rtol=1e-4)
    assert found.rss < 1e-9


def test_no_exponent_knee_or_level_nearby_is_better():
    generator = np.random.default_rng(0)
    curves = [
        loss_curve(c.name, c.sizes, c.losses * np.exp(0.02 * generator.standard_normal(len(c.sizes)))) for c in made()
    ]
    found = fit_pooled(curves, points=5)

    def rss(beta, level, log_knee):
        return sum(
            np.sum((np.log(c.losses[-5:]) - level[i] + np.log1p((c.sizes[-5:] / np.exp(log_knee[i])) ** beta)) ** 2)
            for i, c in enumerate(curves)
        )

    assert found.rss == pytest.approx(rss(found.beta, found.level, found.log_knee), rel=1e-9)
    for step in 0.05 * generator.standard_normal((50, 11)):
        moved = found.beta * np.exp(step[0]), found.level + step[1:6], found.log_knee + step[6:]
        assert rss(*moved) > found.rss


def test_only_the_last_points_and_no_loss_at_zero_are_used():
    curves = [loss_curve(c.name, np.r_[0, c.sizes], np.r_[99.0, 50.0 * c.losses[:1], c.losses[1:]]) for c in made()]
    found, expected = fit_pooled(curves, points=4), fit_pooled(made(), points=4)
    np.testing.assert_array_equal(found.at(1e6), expected.at(1e6))


def test_the_order_of_the_models_does_not_matter():
    found, other = fit_pooled(made()), fit_pooled(made()[::-1])
    assert other.beta == pytest.approx(found.beta, rel=1e-6)
    np.testing.assert_allclose(other.at(1e6)[::-1], found.at(1e6), rtol=1e-6)


def test_a_unit_of_loss_changes_the_unit_of_the_prediction_only():
    found, scaled = predict_pooled(made(), 1e6, level=0.9), predict_pooled(made(scale=7.0), 1e6, level=0.9)
    np.testing.assert_allclose(scaled.losses, 7 * found.losses, rtol=1e-5)
    np.testing.assert_allclose(scaled.fit.log_knee, found.fit.log_knee, atol=1e-3)


def test_flat_curves_do_not_identify_the_exponent_and_stay_flat():
    sizes = 200.0 * 2 ** np.arange(6)
    found = fit_pooled([loss_curve(f"model {i}", sizes, np.full(6, i + 1.0)) for i in range(4)])
    assert not found.identified
    np.testing.assert_allclose(found.at(FULL), np.arange(1, 5), rtol=1e-3)


def test_power_laws_are_continued():
    sizes = 200.0 * 2 ** np.arange(6)
    found = fit_pooled([loss_curve(f"model {i}", sizes, (i + 1) * sizes**-0.2) for i in range(4)])
    assert found.beta == pytest.approx(0.2, rel=1e-4)
    np.testing.assert_allclose(found.at(FULL), np.arange(1, 5) * FULL**-0.2, rtol=1e-3)


# Three points, the default, at all seven published budgets; other numbers at every other budget, for time.
@pytest.mark.parametrize(("points", "parts"), [
    (3, (8, 16, 32, 64, 128, 256, 512)), (4, (8, 32, 128, 512)), (5, (8, 32, 128, 512)), (6, (8, 32, 128)),
])  # fmt: skip
@pytest.mark.parametrize("table", ["flan", "wmt19"])
def test_it_orders_the_models_of_both_tables_better_than_accept_then_stop(tables, table, points, parts):
    curves = tables[table]
    true = np.array([curve.at(FULL) for curve in curves])
    pooled = [
        pearson(fit_pooled([c.up_to(FULL / part) for c in curves], points=points).at(FULL), true) for part in parts
    ]
    line = [pearson(select(curves, method="ats", budget=FULL / part, target=FULL).scores, true) for part in parts]
    assert np.mean(pooled) > np.mean(line)


def test_intervals_hold_what_follows_on_curves_with_a_floor():
    sizes, held = 200.0 * 2 ** np.arange(9), []
    for seed in range(4):
        generator = np.random.default_rng(seed)
        worth = np.exp(generator.uniform(4.5, 5.7, 10))
        start, beta, floor = (generator.uniform(*ends, 10) for ends in ((2.5, 4), (0.35, 0.5), (0.5, 1.3)))
        laws = [Rectified(*each) for each in zip(start * worth, worth, beta, floor, strict=True)]
        noise = np.exp(0.005 * generator.standard_normal((10, 9)))
        curves = [loss_curve(f"model {i}", sizes, law.at(sizes) * noise[i]) for i, law in enumerate(laws)]
        found = predict_pooled(curves, FULL, level=0.9)
        true = np.array([float(law.at(FULL)) for law in laws])
        assert np.all((found.low < found.losses) & (found.losses < found.high))
        held += list((found.low <= true) & (true <= found.high))
    # Errors of one table's models go together: four tables are hardly more than four draws, so no closer bound.
    assert np.mean(held) >= 0.7


def test_intervals_widen_with_level_and_distance_and_need_a_point_to_hide():
    generator = np.random.default_rng(1)
    curves = [
        loss_curve(c.name, c.sizes, c.losses * np.exp(0.02 * generator.standard_normal(len(c.sizes)))) for c in made()
    ]

    def width(size, level):
        found = predict_pooled(curves, size, level=level)
        assert found.low is not None
        assert found.high is not None
        return np.log(found.high / found.low)

    assert np.all(width(1e6, 0.5) < width(1e6, 0.9))
    assert np.all(width(1e6, 0.9) < width(1e7, 0.9))
    found = predict_pooled([curve.up_to(curve.sizes[2]) for curve in curves], 1e6, level=0.9)
    assert (found.low, found.high) == (None, None)
    assert np.all(np.isfinite(found.losses))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit_pooled([]), "fit_pooled: got no curves"),
        (lambda: fit_pooled(made(), points=2), "points is 2; wanted at least 3, one more than each model has numbers"),
        (lambda: fit_pooled(made(), points=6), "model 4 has 5 points with D > 0; wanted at least 6: raise the budget"),
        (partial(predict_pooled, size=0, level=0.9), "got size 0, level 0.9; wanted size > 0 and 0 < level < 1"),
        (partial(predict_pooled, size=1e6, level=1), r"got size 1e\+06, level 1"),
    ],
)
def test_what_cannot_be_pooled_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(made()) if isinstance(call, partial) else call()
