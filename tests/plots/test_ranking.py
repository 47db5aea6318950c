"""The figure of a ranking shows every curve, names the best nine, and marks where each is lowest."""

import numpy as np

from ntkft.plots.ranking import ranking
from tests.plots.drawn import assert_nothing_is_cut_off_or_overlaps, legend

EPOCHS = np.array([0, 1, 2, 4, 8, 16, 1_000])


def test_every_curve_is_drawn_and_marked_where_it_is_lowest():
    curves = [1 + place + 0.1 * np.abs(np.arange(7) - place % 7) for place in range(11)]
    names = [f"checkpoints/{'a long folder/' * 5}step-{place}" for place in range(11)]
    figure = ranking(names, EPOCHS, curves, risk="GCV", task="docs, n = 8, seed 0")
    (axes,) = figure.axes
    lines = axes.get_lines()
    assert axes.get_title("left") == "Predicted risk of 11 checkpoints\ndocs, n = 8, seed 0"
    assert axes.get_ylabel() == "GCV"
    for place, curve in enumerate(curves):
        drawn, mark = lines[2 * place].get_xydata(), lines[2 * place + 1].get_xydata()
        np.testing.assert_array_equal(drawn, np.stack([EPOCHS, curve], axis=1))
        np.testing.assert_array_equal(mark, [[EPOCHS[place % 7], 1 + place]])
    assert len(legend(figure)) == 9
    assert legend(figure)[1].endswith(f"step-1: 2.000 at {EPOCHS[1]}")
    assert_nothing_is_cut_off_or_overlaps(figure)
