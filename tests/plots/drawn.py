"""What a figure shows, read back from the figure."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D


def line(axes: Axes, label: str) -> np.ndarray:
    """Points `[2, s]` of the one line whose label starts so."""
    (found,) = [drawn for drawn in axes.get_lines() if str(drawn.get_label()).startswith(label)]
    return points(found)


def points(drawn: Line2D) -> np.ndarray:
    """Points `[2, s]` of a line."""
    return np.asarray(drawn.get_data(), np.float64)


def named_series(axes: Axes) -> list[str]:
    """Labels of everything drawn with one, in order; matplotlib's own start with an underscore."""
    labels = [str(drawn.get_label()) for drawn in [*axes.get_lines(), *axes.patches, *axes.collections]]
    return [label for label in labels if not label.startswith("_")]


def legend(figure: Figure) -> list[str]:
    """Entries of all legends, of the figure and of its axes."""
    legends = [*figure.legends, *[axes.get_legend() for axes in figure.axes]]
    return [entry.get_text() for each in legends if each is not None for entry in each.get_texts()]


def legend_title(axes: Axes) -> str:
    """Title of the legend of these axes."""
    found = axes.get_legend()
    assert found is not None
    return found.get_title().get_text()


def assert_legend_names_every_series(figure: Figure, series: Sequence[str]) -> None:
    assert sorted(legend(figure)) == sorted(named_series(figure.axes[0])) == sorted(series)


def assert_nothing_is_cut_off_or_overlaps(figure: Figure) -> None:
    """All texts lie inside the figure, and no two texts of one set of axes touch."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    width, height = figure.get_size_inches() * figure.dpi
    for axes in figure.axes:
        boxes = [text.get_window_extent(renderer) for text in axes.texts]
        for position, box in enumerate(boxes):
            assert box.x0 >= 0
            assert box.y0 >= 0
            assert box.x1 <= width
            assert box.y1 <= height
            assert not any(box.overlaps(other) for other in boxes[:position])
    for each in figure.legends:
        box = each.get_window_extent(renderer)
        assert box.x0 >= 0
        assert box.x1 <= width
        assert box.y0 >= 0
        filled = [axes.get_tightbbox(renderer) for axes in figure.axes]
        assert not any(box.overlaps(other) for other in filled if other is not None)
