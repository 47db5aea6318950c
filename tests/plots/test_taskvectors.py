import itertools

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from ntkft import plots
from tests.plots.drawn import assert_nothing_is_cut_off_or_overlaps

TASKS = ("mood", "tense", "topic")
NAMES = ("predicted", "real", "predicted, later")


@pytest.fixture
def records():
    """Three records with different numbers."""
    generator = np.random.default_rng(0)
    return {
        name: {
            "cosine": generator.uniform(-1, 1, (3, 3)).tolist(),
            "addition": {"normalised": dict(zip(TASKS, generator.uniform(0.5, 1.1, 3).tolist(), strict=True))},
        }
        for name in NAMES
    }


def drawn_bars(axes):
    """The bars, series by series."""
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


def test_every_cosine_is_a_colour_and_a_number(records):
    figure = plots.task_cosines(TASKS, records, "tiny, n = 4, seed 0")
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title("left") for axes in panels] == list(NAMES)
    for axes, record in zip(panels, records.values(), strict=True):
        (image,) = axes.get_images()
        np.testing.assert_array_equal(np.asarray(image.get_array()), record["cosine"])
        assert image.get_clim() == (-1, 1)
        assert [text.get_text() for text in axes.texts] == [f"{value:.2f}" for value in np.ravel(record["cosine"])]
    assert_nothing_is_cut_off_or_overlaps(figure)


def test_addition_is_a_group_of_bars_for_each_task(records):
    figure = plots.task_addition(records, "tiny, n = 4, seed 0")
    (axes,) = figure.axes
    bars = drawn_bars(axes)
    heights = [bar.get_height() for bar in bars]
    expected = [record["addition"]["normalised"][task] for record in records.values() for task in TASKS]
    np.testing.assert_array_equal(heights, expected)
    edges = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars)
    assert all(left[1] <= right[0] for left, right in itertools.pairwise(edges))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(NAMES)
    assert_nothing_is_cut_off_or_overlaps(figure)


def test_a_share_of_nothing_is_a_missing_bar(records):
    records["real"]["addition"]["normalised"]["tense"] = None  # null in JSON: the task's own accuracy is zero
    (axes,) = plots.task_addition(records, "tiny, n = 4, seed 0").axes
    assert np.isnan([bar.get_height() for bar in drawn_bars(axes)]).sum() == 1
