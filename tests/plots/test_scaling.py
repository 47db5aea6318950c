"""The figures show every loss, both laws where there are any, and every method of every table."""

import numpy as np
import pytest

from ntkft.plots.scaling import law_fits, selection_by_budget
from ntkft.scaling import Rectified, fit_rectified, fit_vanilla, loss_curve
from tests.plots.drawn import assert_nothing_is_cut_off_or_overlaps, legend, line, points

SIZES = np.r_[0, 200.0 * 2 ** np.arange(12)]
BENT = Rectified(B=300.0, D_l=100.0, beta=0.5, E=1.0)  # knee 10,000; steepest 40,000


@pytest.fixture(scope="module")
def curves():
    straight = 9 * np.maximum(SIZES, 100.0) ** -0.1
    return [loss_curve("bent", SIZES, BENT.at(SIZES)), loss_curve("straight", SIZES, straight),
            loss_curve("flat", SIZES, np.full(13, 3.0))]  # fmt: skip


@pytest.fixture(scope="module")
def figure(curves):
    tuned = [curve.fine_tuned for curve in curves]
    return law_fits(curves, list(map(fit_rectified, tuned)), list(map(fit_vanilla, tuned)), "two laws")


def test_losses_are_drawn_where_they_were_fine_tuned(figure, curves):
    (axes,) = figure.axes
    assert axes.get_xscale() == axes.get_yscale() == "log"
    for curve in curves:
        np.testing.assert_array_equal(line(axes, curve.name), [SIZES[1:], curve.losses[1:]])
    key = ["rectified law", "vanilla law", "knee D$_l^{1/β}$", "steepest slope D*"]
    assert legend(figure) == ["bent", "straight", "flat", *key]
    assert_nothing_is_cut_off_or_overlaps(figure)


def test_laws_and_their_marks_are_drawn_where_they_are_determined(figure):
    (axes,) = figure.axes
    drawn = [[each for each in axes.get_lines() if each.get_label() == name] for name in ("_rectified", "_vanilla")]
    assert [len(each) for each in drawn] == [2, 2]  # none of the flat curve
    at, losses = points(drawn[0][0])
    np.testing.assert_allclose(losses, BENT.at(at), rtol=1e-5)
    same = [each for each in axes.get_lines() if each.get_color() == drawn[0][0].get_color()]
    places = {each.get_marker(): points(each)[:, 0] for each in same if each.get_marker() in ("D", "v")}
    np.testing.assert_allclose(places["D"], [BENT.knee, float(BENT.at(BENT.knee))], rtol=1e-3)
    np.testing.assert_allclose(places["v"], [BENT.steepest, float(BENT.at(BENT.steepest))], rtol=1e-3)


def test_every_method_has_one_colour_and_every_table_a_panel():
    fractions = [1 / 8, 1 / 64, 1 / 512]
    figure = selection_by_budget(
        fractions, {"one": {"a": [0.9, 0.5, -0.1], "b": [0.4, np.nan, 0.2]}, "two": {"b": [0.8, 0.7, 0.6]}}
    )
    first, second = figure.axes
    np.testing.assert_array_equal(line(first, "a"), [fractions, [0.9, 0.5, -0.1]])
    np.testing.assert_array_equal(line(first, "b")[1], [0.4, np.nan, 0.2])
    assert [label.get_text() for label in second.get_xticklabels()] == ["1/8", "1/64", "1/512"]
    (colours,) = {
        tuple(each.get_color() for axes in figure.axes for each in axes.get_lines() if each.get_label() == "b")
    }
    assert len(set(colours)) == 1
    assert [axes.get_ylabel() for axes in figure.axes] == ["PearCorr, one", "PearCorr, two"]
    assert legend(figure) == ["a", "b"]
    assert_nothing_is_cut_off_or_overlaps(figure)
