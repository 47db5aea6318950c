import itertools

import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft.trajectories import double_descent


def deepest(series: np.ndarray) -> float:
    """The definition, over all quadruples of checkpoints."""
    depths = (min(p - a, b - a, b - q) for p, a, b, q in itertools.combinations(series.tolist(), 4))
    return max(0.0, *depths)


@pytest.mark.parametrize("checkpoints", [4, 5, 9])
def test_depth_is_that_of_the_definition(checkpoints):
    logs = np.random.default_rng(checkpoints).standard_normal((200, checkpoints))
    found = double_descent(np.exp(logs), tolerance=0.3)
    expected = np.array([deepest(series) for series in logs])
    np.testing.assert_allclose(found.depth, expected, atol=1e-12)
    np.testing.assert_array_equal(found.shows, expected > 0.3)
    assert found.share == np.mean(expected > 0.3)
    assert 0 < found.share < 1


def test_the_marked_turns_are_those_of_a_descent_of_that_depth():
    logs = np.random.default_rng(1).standard_normal((300, 10)).cumsum(axis=1)
    found = double_descent(np.exp(logs), tolerance=0.5)
    for row in np.flatnonzero(found.depth):
        a, b, series = found.minimum[row], found.maximum[row], logs[row]
        ways = series[:a].max() - series[a], series[b] - series[a], series[b] - series[b + 1 :].min()
        np.testing.assert_allclose(min(ways), found.depth[row], atol=1e-12)
        assert series[b] == series[a : b + 1].max()
        assert series[a] == series[a : b + 1].min()


def test_the_turning_points_are_where_the_series_turns():
    # Falls to 1 at checkpoint 2, rises to 4 at 4, falls to 2: the ways are 5, 3 and 2. Twice, at different places.
    logs = np.array([[6.0, 3, 1, 2, 4, 3, 2], [6.0, 1, 2, 3.5, 4, 3, 2]])
    found = double_descent(np.exp(logs), tolerance=1.9)
    np.testing.assert_allclose(found.depth, 2)
    np.testing.assert_array_equal(found.minimum, [2, 1])
    np.testing.assert_array_equal(found.maximum, [4, 4])
    assert found.shows.all()
    assert not double_descent(np.exp(logs), tolerance=2.1).shows.any()


@pytest.mark.parametrize(
    "series",
    [
        [5.0, 4, 3, 2, 1],  # only falls
        [1.0, 2, 3, 4, 5],  # only rises
        [5.0, 2, 1, 3, 4],  # turns once: no maximum inside
        [1.0, 3, 5, 4, 2],  # turns once: no minimum before the maximum
        [3.0, 3, 3, 3, 3],
    ],
)
def test_a_series_that_does_not_turn_twice_has_no_depth(series):
    found = double_descent(np.exp([series]), tolerance=0.0)
    assert found.depth == 0
    assert not found.shows


def test_ripples_below_the_tolerance_do_not_count():
    x = np.arange(40)
    ripples = -0.1 * x + 0.04 * (-1.0) ** x
    assert not double_descent(np.exp([ripples]), tolerance=0.1).shows
    wave = -0.01 * x + np.sin(x / 4)
    assert double_descent(np.exp([wave]), tolerance=0.1).shows


@pytest.mark.parametrize(
    ("table", "tolerance", "message"),
    [
        (np.ones((3, 3)), 0.1, "got 3 checkpoints; falling, rising and falling again takes at least 4"),
        (np.ones((3, 5)), -0.1, "tolerance is -0.1; wanted a difference of log perplexity"),
        (np.ones((3, 5)), np.inf, "tolerance is inf; wanted"),
        (np.zeros((3, 5)), 0.1, "double_descent: 15 of 15 perplexities are not positive"),
    ],
)
def test_what_cannot_turn_is_refused(table, tolerance, message):
    with pytest.raises(InputError, match=message):
        double_descent(table, tolerance=tolerance)
