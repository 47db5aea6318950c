"""One look for every figure: sizes, colours, and how a figure becomes a file."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#2f6db3", "#d9822b", "#3a8f5c", "#c0392b", "#7d5ba6", "#8a8f98"
SERIES = (BLUE, ORANGE, GREEN, RED, PURPLE, "#17869e", "#b0578d", "#6b6b2f", GREY)
"""Colours told apart by people with colour-vision deficiencies when used in this order, up to nine series."""


def new_axes(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    """A figure that reads on a phone: 7.2 × 4.4 inches, title on the left, light grid."""
    figure = Figure(figsize=(7.2, 4.4), layout="constrained", dpi=150)
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(visible=True, color="#e4e6ea", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save(figure: Figure, path: str | Path) -> Path:
    """Write a PNG; the same data and versions give the same bytes."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, metadata={"Software": None})
    return target
