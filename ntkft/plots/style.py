"""One look for every figure: sizes, colours, and how a figure becomes a file."""

from io import BytesIO
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#2f6db3", "#d9822b", "#3a8f5c", "#c0392b", "#7d5ba6", "#8a8f98"
SERIES = (BLUE, ORANGE, GREEN, RED, PURPLE, "#17869e", "#b0578d", "#6b6b2f", GREY)
"""Colours told apart by people with colour-vision deficiencies when used in this order, up to nine series."""

SMALL = 9
"""Points, for legends and marks: the smallest that is read on a phone, where a figure is as wide as the screen."""
_WIDTH, _HEIGHT, _DPI = 5.4, 4.0, 200  # inches; sharp on paper and on screens with doubled pixels


def new_axes(title: str, x: str, y: str, *, height: float = _HEIGHT) -> tuple[Figure, Axes]:
    """A figure with one set of axes; `height` in inches."""
    figure, (axes,) = new_figure(title, x, height)
    axes.set_ylabel(y)
    return figure, axes


def new_figure(title: str, x: str, *heights: float) -> tuple[Figure, list[Axes]]:
    """A figure with axes below one another that share x, `heights` in inches; title on the left, light grid."""
    figure = Figure(figsize=(_WIDTH, sum(heights)), layout="constrained", dpi=_DPI)
    rows = list(figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0])
    for axes in rows:
        _tidy(axes)
    rows[0].set_title(title, loc="left", fontsize=11)
    rows[-1].set_xlabel(x)
    return figure, rows


def new_grid(title: str, rows: int, columns: int) -> tuple[Figure, list[list[Axes]]]:
    """Small multiples for a whole page: `rows` × `columns` axes that share x, and y within each row."""
    figure = Figure(figsize=(2.4 * columns + 0.6, 2.0 * rows + 0.9), layout="constrained", dpi=_DPI)
    grid = figure.subplots(rows, columns, sharex=True, sharey="row", squeeze=False)
    for axes in grid.ravel():
        _tidy(axes)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure, [list(row) for row in grid]


def about(figure: Figure, what: str) -> Figure:
    """The figure with a small line above its title: what its numbers are of, such as model, task, n and seed."""
    figure.suptitle(what, x=0.01, ha="left", fontsize=SMALL, color=GREY)
    return figure


def _tidy(axes: Axes) -> None:
    """Light grid behind the data, no frame."""
    axes.grid(visible=True, color="#e4e6ea", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=SMALL)


def png(figure: Figure) -> bytes:
    """The figure as a PNG; the same data and versions give the same bytes."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def save(figure: Figure, path: str | Path) -> Path:
    """Write the PNG of a figure, with the folders above it."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(png(figure))
    return target
