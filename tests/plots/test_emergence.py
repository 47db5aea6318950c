"""The figures show the points, both rivals and η where it is claimed, and their verdict."""

import numpy as np
import pytest

from ntkft.emergence import find_threshold
from ntkft.plots.emergence import score_over_loss, scores_over_loss
from tests.plots.drawn import assert_legend_names_every_series, assert_nothing_is_cut_off_or_overlaps, legend, line

X = np.linspace(1.8, 4.0, 35)


def find(scores):
    return find_threshold(X, scores, level=0.95, draws=199, seed=0)


@pytest.fixture(scope="module")
def scores():
    return 0.4 * np.maximum(2.6 - X, 0) + 0.01 * np.random.default_rng(0).standard_normal(len(X))


def test_a_threshold_is_drawn_with_its_rivals_and_its_interval(scores):
    found = find(scores)
    figure = score_over_loss(X, scores, found, "accuracy over loss")
    (axes,) = figure.axes
    np.testing.assert_array_equal(line(axes, "models"), [X, scores])
    assert found.hinge is not None
    assert found.line is not None
    np.testing.assert_array_equal(line(axes, "hinge")[0], [1.8, found.eta, 4.0])
    np.testing.assert_array_equal(line(axes, "hinge")[1], found.hinge.at(line(axes, "hinge")[0]))
    np.testing.assert_array_equal(line(axes, "line")[1], found.line.at(np.array([1.8, 4.0])))
    assert_legend_names_every_series(figure, ["η, 95% interval", "models", "line", "exponential", "hinge"])
    assert figure.legends[0].get_title().get_text().startswith(f"η = {found.eta:.2f} (")
    assert_nothing_is_cut_off_or_overlaps(figure)


def test_what_is_no_threshold_has_no_interval_and_says_why(scores):
    groups = {
        "a hinge": (X, scores, find(scores)),
        "a line": (X, 4.3 - X, find(4.3 - X)),
        "a curve": (X, np.exp(-2 * X), find(np.exp(-2 * X))),
        "two points": (X[:2], X[:2], find_threshold(X[:2], X[:2], level=0.95, draws=199, seed=0)),
    }
    figure = scores_over_loss(groups, "accuracy over loss")
    verdicts = [axes.get_title("left").split("\n")[1] for axes in figure.axes]
    starts = ("η = ", "no threshold: line", "no threshold: smooth", "not identified")
    assert len(figure.axes) == len(groups)
    assert all(verdict.startswith(start) for verdict, start in zip(verdicts, starts, strict=True))
    assert [bool(axes.patches) for axes in figure.axes] == [True, False, False, False]
    assert sorted(legend(figure)) == ["exponential", "hinge", "line", "models", "η, 95% interval"]
    assert_nothing_is_cut_off_or_overlaps(figure)
