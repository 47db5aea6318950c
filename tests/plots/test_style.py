import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg

from ntkft import plots
from ntkft.plots.style import SERIES, new_axes, new_figure


def draw():
    figure, axes = new_axes("Title", "x", "y")
    axes.plot(np.arange(5), np.arange(5) ** 2)
    return figure


def test_saving_twice_gives_the_same_bytes(tmp_path):
    first, second = (plots.save(draw(), tmp_path / name / "figure.png") for name in ("one", "two"))
    assert first.read_bytes() == second.read_bytes() == plots.png(draw())
    figure = draw()
    assert plots.png(figure) == plots.png(figure)


def test_different_data_give_different_bytes():
    figure, axes = new_axes("Title", "x", "y")
    axes.plot(np.arange(5), np.arange(5))
    assert plots.png(figure) != plots.png(draw())


def test_axes_below_one_another_share_x_and_their_heights_add_up():
    figure, (upper, lower) = new_figure("Title", "x", 3.0, 1.5)
    upper.plot([0, 7], [0, 1])
    assert figure.get_size_inches()[1] == 4.5
    assert lower.get_xlim() == upper.get_xlim()
    assert (upper.get_title("left"), lower.get_xlabel()) == ("Title", "x")


def test_what_a_figure_is_about_stands_above_its_title():
    figure = plots.about(draw(), "minilm, docs (stats, signal), n = 128, seed 0")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    above = figure.texts[0].get_window_extent(canvas.get_renderer())
    title = figure.axes[0].get_tightbbox(canvas.get_renderer())
    assert title is not None
    assert figure.get_suptitle() == "minilm, docs (stats, signal), n = 128, seed 0"
    assert title.y1 <= above.y0
    assert 0 <= above.x0 < above.x1 <= canvas.get_width_height()[0]
    assert above.y1 <= canvas.get_width_height()[1]


def test_series_have_a_colour_each():
    assert len(set(SERIES)) == len(SERIES) == 9
