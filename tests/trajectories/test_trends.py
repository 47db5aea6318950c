from typing import Any

import numpy as np
import pytest
from scipy import stats

from ntkft._errors import InputError
from ntkft.trajectories import BAND, LEVEL, TRENDS, first_checkpoint, group_curves, token_trends
from tests.tolerances import CLOSED_FORM

TOKENS = 20_000
"""Fixed in advance: five standard errors of a rate of 2.5 % are 0.55 %."""


def trends(table, start=0.0):
    return token_trends(table, start=start, level=LEVEL, band=BAND)


def five_standard_errors(rate: float) -> float:
    return 5 * np.sqrt(rate * (1 - rate) / TOKENS)


@pytest.mark.parametrize(("checkpoints", "start"), [(3, 0.0), (12, 0.0), (40, 0.25)])
def test_slopes_and_p_values_are_those_of_a_regression_of_each_token(checkpoints, start):
    table = np.random.default_rng(0).lognormal(2, 0.7, (60, checkpoints)) * np.linspace(1, 2, checkpoints)[None]
    found = trends(table, start)
    for row, slope, p_value, label in zip(
        table[:, found.first :], found.slopes, found.p_values, found.labels, strict=True
    ):
        reference: Any = stats.linregress(np.arange(len(row)), row / row[0])
        np.testing.assert_allclose([slope, p_value], [reference.slope, reference.pvalue], rtol=1e-9)
        if reference.pvalue < LEVEL:
            assert label == ("upward" if reference.slope > 0 else "downward")
        else:
            still = np.abs(row[[0, -1]] / stats.gmean(row) - 1) <= BAND
            assert label == ("stagnated" if still.all() else "other")


def test_noise_without_a_trend_is_called_upward_or_downward_as_often_as_the_level_says():
    noise = np.random.default_rng(1).standard_normal((TOKENS, 16))
    found = trends(100 + noise)
    for trend in ("upward", "downward"):
        assert abs(found.fractions[trend] - LEVEL / 2) < five_standard_errors(LEVEL / 2)
    # Noise of 1 % leaves no token outside ±5 %, so all the others stagnate.
    assert found.counts["other"] == 0
    assert abs(found.fractions["stagnated"] - (1 - LEVEL)) < five_standard_errors(LEVEL)


@pytest.mark.parametrize("slope", [0.03, -0.05])
def test_a_known_trend_is_found_with_the_power_of_the_t_test(slope):
    checkpoints = 16
    x = np.arange(checkpoints)
    noise = np.random.default_rng(2).standard_normal((TOKENS, checkpoints))
    found = trends(100 + slope * x[None] + noise)
    # t is non-central with δ = b √Σ(x − x̄)² / σ.
    law = stats.nct(checkpoints - 2, slope * np.sqrt(np.sum((x - x.mean()) ** 2)))
    edge = stats.t.ppf(1 - LEVEL / 2, checkpoints - 2)
    for trend, rate in (("upward", law.sf(edge)), ("downward", law.cdf(-edge))):
        assert abs(found.fractions[trend] - rate) <= five_standard_errors(rate)
    assert 0.05 < max(law.sf(edge), law.cdf(-edge)) < 0.95  # a rate that can be missed on either side


def test_series_that_nobody_would_argue_about():
    x = np.arange(10)
    wave = np.array([1, -1, -1, 1, 1, -1, -1, 1, 1, -1.0])
    rows = [5 + x, 20 - x, np.full(10, 7.0), 100 + 0.1 * wave, 100 + 40 * wave]
    found = trends(np.array(rows, np.float64))
    assert list(found.labels) == ["upward", "downward", "stagnated", "stagnated", "other"]
    np.testing.assert_allclose(found.slopes[:2], [1 / 5, -1 / 20])
    assert found.p_values[0] < 1e-50
    assert found.p_values[2] == 1
    assert found.counts == {"upward": 1, "downward": 1, "stagnated": 2, "other": 1}
    assert tuple(found.counts) == TRENDS
    assert sum(found.fractions.values()) == pytest.approx(1)


def test_the_scale_of_a_token_does_not_matter():
    table = np.random.default_rng(3).lognormal(0, 0.1, (30, 9))
    scales = np.random.default_rng(4).lognormal(0, 3, (30, 1))
    one, other = trends(table), trends(table * scales)
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_allclose(one.p_values, other.p_values, rtol=CLOSED_FORM)


def test_a_random_walk_mostly_counts_as_a_trend():
    # The caveat of the module: noise that is not independent makes p-values too small.
    walk = np.cumsum(np.random.default_rng(5).standard_normal((2000, 30)), axis=1)
    found = trends(100 + 0.1 * walk)
    assert found.fractions["upward"] + found.fractions["downward"] > 0.6


def test_the_series_begins_at_a_share_of_training():
    assert first_checkpoint(10, start=0.0) == 0
    assert first_checkpoint(10, start=0.1) == 0  # the first of ten stands at a tenth
    assert first_checkpoint(10, start=0.11) == 1
    assert [first_checkpoint(100, start=i / 100) for i in range(1, 100)] == list(range(99))
    assert first_checkpoint(5, start=0.1, steps=[1, 10, 100, 1000, 5000]) == 3
    assert first_checkpoint(3, start=0.0, steps=[0, 1, 2]) == 0
    table = np.random.default_rng(6).lognormal(0, 1, (5, 6))
    late = token_trends(table, start=0.1, level=LEVEL, band=BAND, steps=[1, 4, 16, 64, 256, 512])
    np.testing.assert_array_equal(late.slopes, trends(table[:, 3:]).slopes)
    assert late.first == 3


def test_group_curves_are_geometric_means():
    table = np.random.default_rng(7).lognormal(1, 1, (6, 4))
    curves = group_curves(table, ["b", "a", "b", "b", "a", "b"])
    assert list(curves) == ["a", "b"]
    np.testing.assert_allclose(curves["a"], stats.gmean(table[[1, 4]], axis=0))
    np.testing.assert_allclose(curves["b"], stats.gmean(table[[0, 2, 3, 5]], axis=0))


TABLE = np.full((4, 5), 2.0)


def spoilt(value: float) -> np.ndarray:
    table = TABLE.copy()
    table[2, 4] = value
    return table


@pytest.mark.parametrize(
    ("table", "settings", "message"),
    [
        (spoilt(np.nan), {}, r"1 of 20 perplexities are NaN or infinite \(token 3 checkpoint 5, counted from 1\)"),
        (spoilt(np.inf), {}, "1 of 20 perplexities are NaN or infinite"),
        (spoilt(0), {}, r"1 of 20 perplexities are not positive \(token 3 checkpoint 5, counted from 1\)"),
        (-TABLE, {}, r"20 of 20 perplexities are not positive \(.*token 1 checkpoint 5, …, counted from 1\)"),
        (TABLE[0], {}, r"shape \[5\]; wanted \[tokens, checkpoints\]"),
        (TABLE[:0], {}, r"shape \[0, 5\]; wanted \[tokens, checkpoints\], at least one of each"),
        (TABLE[:, :2], {}, "2 of 2 checkpoints are at or after the share 0 of training; a line and its error take"),
        (TABLE, {"start": 0.7}, "2 of 5 checkpoints are at or after the share 0.7 of training"),
        (TABLE, {"start": 1}, "start is 1; wanted a share of training of at least 0 and below 1"),
        (TABLE, {"start": np.nan}, "start is nan; wanted a share of training"),
        (TABLE, {"level": 0}, "level is 0; wanted a probability between 0 and 1"),
        (TABLE, {"band": -0.1}, "band is -0.1; wanted a relative distance of at least 0"),
        (TABLE, {"level": 1, "band": np.nan}, "2 problems"),
        (TABLE, {"steps": [1, 2, 3]}, r"got steps \[3\] for 5 checkpoints; give one number for each"),
        (TABLE, {"steps": [1, 2, 2, 3, 4]}, "steps must be finite, at least 0 and ascending"),
        (TABLE, {"steps": [-1, 2, 3, 4, 5]}, "steps must be finite, at least 0 and ascending"),
    ],
)
def test_what_cannot_be_classified_is_refused(table, settings, message):
    with pytest.raises(InputError, match=message):
        token_trends(table, **({"start": 0.0, "level": LEVEL, "band": BAND} | settings))


def test_labels_must_fit_their_table():
    with pytest.raises(InputError, match=r"got labels \[3\] for 4 tokens; give one for each"):
        group_curves(TABLE, ["a", "b", "c"])
