import numpy as np
import pytest

from ntkft.plots import trajectories as figures
from ntkft.trajectories import BAND, LEVEL, TRENDS, double_descent, group_curves, token_trends
from tests.plots.drawn import assert_nothing_is_cut_off_or_overlaps, legend, line

CHECKPOINTS = [f"step {2**i}" for i in range(14)]


@pytest.fixture(scope="module")
def table() -> np.ndarray:
    x, noise = np.arange(14), np.random.default_rng(0).lognormal(0, 0.01, (40, 14))
    wave = 40 * np.exp(np.linspace(0.2, 1, 10)[:, None] * np.cos(x * 3 * np.pi / 13)[None])
    means = [np.tile(each, (10, 1)) for each in (50.0 + 9 * x, 300 * np.exp(-0.3 * x), np.full(14, 20.0))]
    return np.concatenate([*means, wave]) * noise


def test_bars_are_the_shares_of_each_trend():
    rows = {"small": (0.1, 0.5, 0.35, 0.05), "large": (0.2, 0.6, 0.2, 0.0)}
    figure = figures.trend_fractions({name: dict(zip(TRENDS, row, strict=True)) for name, row in rows.items()})
    (axes,) = figure.axes
    for position, container in enumerate(axes.containers):
        widths = [bar.get_width() for bar in container]  # pyright: ignore[reportGeneralTypeIssues]
        np.testing.assert_allclose(widths, [row[position] for row in rows.values()])
    assert [label.get_text() for label in axes.get_yticklabels()] == list(rows)
    assert legend(figure) == list(TRENDS)
    assert [text.get_text() for text in axes.texts] == ["10%", "20%", "50%", "60%", "35%", "20%"]
    assert_nothing_is_cut_off_or_overlaps(figure)


def test_curves_are_drawn_by_trend_on_a_log_axis_from_the_first_checkpoint_of_training(table):
    trends = token_trends(table, start=0.2, level=LEVEL, band=BAND)
    curves = group_curves(table, trends.labels)
    figure = figures.group_perplexity(curves, trends.counts, CHECKPOINTS, first=trends.first)
    (axes,) = figure.axes
    for trend, curve in curves.items():
        np.testing.assert_allclose(line(axes, trend), [np.arange(14), curve])
    assert axes.get_yscale() == "log"
    (before,) = axes.patches
    assert before.get_extents().transformed(axes.transData.inverted()).x1 == pytest.approx(trends.first - 0.5)
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert (names[0], names[-1]) == (CHECKPOINTS[0], CHECKPOINTS[-1])
    assert_nothing_is_cut_off_or_overlaps(figure)


@pytest.mark.parametrize("first", [0, 2])
def test_examples_are_the_deepest_descents_with_their_turns(table, first):
    found = double_descent(table[:, first:], tolerance=0.1)
    names = [f"word {row}" for row in range(40)]
    figure = figures.double_descent_tokens(table, found, names, CHECKPOINTS, first=first, examples=3)
    drawn = [axes for axes in figure.axes if axes.get_visible()]
    assert len(drawn) == 3
    for axes, row in zip(drawn, np.argsort(-found.depth)[:3], strict=True):
        assert axes.get_title("left") == f"word {row} (depth {found.depth[row]:.2f})"
        series, turns = (np.asarray(each.get_data()) for each in axes.get_lines())
        np.testing.assert_array_equal(series[1], table[row])
        np.testing.assert_array_equal(turns[0], [first + found.minimum[row], first + found.maximum[row]])
        np.testing.assert_array_equal(turns[1], table[row][turns[0].astype(int)])


def test_a_table_without_double_descent_says_so(table):
    found = double_descent(table[:10], tolerance=0.1)
    figure = figures.double_descent_tokens(table[:10], found, ["w"] * 10, CHECKPOINTS, first=0)
    (axes,) = figure.axes
    assert "0.0% of tokens" in axes.texts[0].get_text()
