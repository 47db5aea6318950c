"""Figures of the experiment: quantities over perplexity, spectra and group shares along training, who settles first."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, NullFormatter

from experiments.ntk_along_pretraining.claims import by_size, columns
from experiments.ntk_along_pretraining.setting import GROUPS_SHOWN, Setting
from ntkft.plots.style import GREY, SERIES, SMALL, new_grid

Records = Mapping[tuple[str, str], Sequence[Mapping[str, Any]]]
"""(task, size) → its records in the order of steps."""

PANELS = {
    "decay": "decay exponent β",
    "effective_dimension": "effective dimension",
    "alignment": "alignment, centred",
    "risk": "predicted test risk",
}


def over_perplexity(rows: Sequence[Mapping[str, Any]], records: Records, setting: Setting) -> Figure:
    """A row of panels for each quantity, a column for each task, a line for each size; training runs to the right."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    figure, grid = new_grid(_title("The tangent kernel along pretraining", setting), len(PANELS), len(tasks))
    for line, (name, title) in zip(grid, PANELS.items(), strict=True):
        line[0].set_ylabel(title, fontsize=SMALL)
        for axes, task in zip(line, tasks, strict=True):
            for colour, (size, some) in zip(
                SERIES, by_size([row for row in rows if row["task"] == task]).items(), strict=False
            ):
                perplexity, values = columns(some, "perplexity", name)
                axes.plot(perplexity, values, "o-", color=colour, markersize=2.5, linewidth=1.3, label=size)
                if name == "decay":
                    low, high = np.array([each["all"]["decay_interval"] for each in records[task, size]]).T
                    axes.fill_between(perplexity, low, high, color=colour, alpha=0.1, linewidth=0)
                if name == "risk":
                    axes.plot(perplexity, columns(some, "head_risk")[0], "--", color=colour, linewidth=1)
            if name == "risk":
                axes.axhline(1, color=GREY, linewidth=1, linestyle=":")
    for axes, task in zip(grid[0], tasks, strict=True):
        axes.set_title(task, fontsize=SMALL, loc="left")
    for axes in grid[-1]:
        axes.set_xlabel("held-out perplexity", fontsize=SMALL)
    _log_perplexity(grid[-1][0])
    grid[-1][0].plot([], [], "--", color=GREY, linewidth=1, label="head alone")
    grid[-1][0].plot([], [], ":", color=GREY, linewidth=1, label="mean of the targets")
    _legend_below(figure, grid[-1][0], len(tasks))
    return figure


def spectra(records: Records, size: str, setting: Setting) -> Figure:
    """Eigenvalues as shares of the trace at every checkpoint of one size, from dark to light, a panel for each task."""
    mine = {task: found for (task, of), found in records.items() if of == size}
    figure, grid = new_grid(_title(f"Spectrum along pretraining, {size}", setting), 1, len(mine))
    for axes, (task, found) in zip(grid[0], mine.items(), strict=True):
        axes.set_title(task, fontsize=SMALL, loc="left")
        axes.set_xlabel("index k", fontsize=SMALL)
        for place, record in enumerate(found):
            values = np.array(record["all"]["eigenvalues"])
            shares = values / values.sum()
            colour = colormaps["viridis"](0.95 * place / max(len(found) - 1, 1))
            kept = shares > np.finfo(np.float32).eps * shares[0] * np.sqrt(len(shares))
            axes.loglog(1 + np.flatnonzero(kept), shares[kept], color=colour, linewidth=1.2,
                        label=f"{record['step']} ({record['perplexity']:.0f})")  # fmt: skip
    grid[0][0].set_ylabel("λ̂ₖ / trace", fontsize=SMALL)
    _legend_below(figure, grid[0][0], 1 + len(mine), title="step (perplexity)")
    return figure


def group_shares(records: Records, setting: Setting) -> Figure:
    """Share of every parameter group in the kernel's trace over the steps: a row for each task, a column for sizes."""
    tasks, sizes = (list(dict.fromkeys(key[position] for key in records)) for position in (0, 1))
    figure, grid = new_grid(_title("Group shares of the trace", setting), len(tasks), len(sizes))
    for line, task in zip(grid, tasks, strict=True):
        line[0].set_ylabel(f"{task}: share", fontsize=SMALL)
        for axes, size in zip(line, sizes, strict=True):
            found = records[task, size]
            places = _places([record["step"] for record in found])
            for colour, name in zip(SERIES, GROUPS_SHOWN, strict=False):
                shares = [record["shares"][name] for record in found]
                axes.plot(places, shares, "o-", color=colour, markersize=2.5, linewidth=1.3, label=name)
    for axes, size in zip(grid[0], sizes, strict=True):
        axes.set_title(size, fontsize=SMALL, loc="left")
    for axes in grid[-1]:
        _log_steps(axes)
    grid[0][0].set_ylim(0, None)
    _legend_below(figure, grid[0][0], 1 + len(sizes))
    return figure


def settling(rows: Sequence[Mapping[str, Any]], setting: Setting) -> Figure:
    """What is left of the way to the last kernel (solid) and the last loss (dashed), a panel for each task."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    figure, grid = new_grid(_title("Way left to the last checkpoint", setting), 1, len(tasks))
    for axes, task in zip(grid[0], tasks, strict=True):
        axes.set_title(task, fontsize=SMALL, loc="left")
        mine = by_size([row for row in rows if row["task"] == task])
        for colour, (size, some) in zip(SERIES, mine.items(), strict=False):
            step, loss, left = columns(some, "step", "loss", "to_final")
            axes.plot(_places(step), left / left[0], "o-", color=colour, markersize=2.5, linewidth=1.3, label=size)
            axes.plot(_places(step), (loss - loss[-1]) / (loss[0] - loss[-1]), "--", color=colour, linewidth=1)
        axes.axhline(setting.settled, color=GREY, linewidth=1, linestyle=":")
        _log_steps(axes)
    grid[0][0].set_ylabel("share of the first", fontsize=SMALL)
    grid[0][0].plot([], [], "-", color=GREY, label="kernel distance")
    grid[0][0].plot([], [], "--", color=GREY, label="held-out loss")
    grid[0][0].plot([], [], ":", color=GREY, label="settled")
    _legend_below(figure, grid[0][0], len(tasks))
    return figure


def _title(what: str, setting: Setting) -> str:
    n = dict(setting.sizes)["train"]
    return f"{what}\nGPTs of experiments/pretrain, {n} training examples, seed {setting.seed}"


def _places(steps) -> np.ndarray:
    """Steps on a log axis, the start where half a step would be."""
    return np.maximum(np.asarray(steps, np.float64), 0.5)


def _log_steps(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.set_xlabel("step of pretraining (leftmost: 0)", fontsize=SMALL)


def _log_perplexity(axes: Axes) -> None:
    """Log axis with plain numbers, reversed; all panels share it."""
    axes.set_xscale("log")
    axes.invert_xaxis()
    high, low = axes.get_xlim()
    axes.xaxis.set_major_formatter(LogFormatter())
    axes.xaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)) if high < 30 * low else NullFormatter())
    axes.tick_params(axis="x", which="minor", labelsize=SMALL)


def _legend_below(figure: Figure, axes: Axes, columns: int, *, title: str | None = None) -> None:
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", frameon=False, fontsize=SMALL,
                  ncols=columns, title=title, title_fontsize=SMALL)  # fmt: skip
