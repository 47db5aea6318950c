"""Figures of the experiment: predicted against real risk, who ranks as fine-tuning does, and the laws."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.ntk_selection.claims import ADAMW, DESCENT, METHODS, Record, agreement, key
from experiments.ntk_selection.law import BRIDGE, KERNEL, WORTH, curves_of, predictions
from experiments.ntk_selection.setting import Setting
from ntkft.plots.style import BLUE, GREY, ORANGE, SERIES, SMALL, new_axes, new_grid

MARKERS = ("v", "s", "o", "^", "D", "P")
"""Of the stages of pretraining, the earliest first."""
SHOWN = (WORTH, BRIDGE, "pooled", "ats", KERNEL)


def predicted(rows: Sequence[Mapping[str, Any]], setting: Setting) -> Figure:
    """A panel for each task, a row for each way of fine-tuning: colours are sizes, markers stages of pretraining."""
    names = [name for name, _ in setting.tasks]
    title = "Risk of fine-tuning, 1 = predicting the mean: kernel and real\n"
    title += f"GPTs of experiments/pretrain, {setting.size['train']} training examples, seed {setting.seed}"
    figure, grid = new_grid(title, 2, len(names))
    for line, judge in zip(grid, (ADAMW, DESCENT), strict=True):
        score = key("kernel", judge)
        for axes, name in zip(line, names, strict=True):
            mine = [row for row in rows if row["task"] == name and judge in row]
            if not mine:
                axes.set_title(name, fontsize=SMALL, loc="left")
                axes.text(0.5, 0.5, "not run", transform=axes.transAxes, ha="center", color=GREY, fontsize=SMALL)
                continue
            for row in mine:
                axes.plot(row[judge], row[score], MARKERS[setting.stages.index(row["step"])], markersize=5,
                          color=SERIES[setting.models.index(row["size"])])  # fmt: skip
            rank = agreement(mine, "kernel", judge)["Spearman, mean over tasks"]
            axes.set_title(f"{name}, ρ = {rank:.2f}", fontsize=SMALL, loc="left")
            _equal(axes, [row[key] for row in mine for key in (judge, score)])
        line[0].set_ylabel(f"kernel, for {judge}", fontsize=SMALL)
    for axes in grid[-1]:
        axes.set_xlabel("real, test examples", fontsize=SMALL)
    corner = grid[0][0]
    handles = [
        *(corner.plot([], [], "o", color=c, label=name)[0] for name, c in zip(setting.models, SERIES, strict=False)),
        *(corner.plot([], [], m, color=GREY, label=f"step {step:,}")[0]
          for step, m in zip(setting.stages, MARKERS, strict=False)),
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", frameon=False, fontsize=SMALL, ncols=len(handles))
    return figure


def rankings(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Rank correlation of every method with real risk: a large mark for the mean over tasks, small ones for each."""
    figure, axes = new_axes("", "Spearman with real risk", "")
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    for judge, colour, shift in ((ADAMW, BLUE, 0.14), (DESCENT, ORANGE, -0.14)):
        for place, method in enumerate(METHODS):
            found = agreement(rows, method, judge)
            each = [agreement([row for row in rows if row["task"] == task], method, judge) for task in tasks]
            height = len(METHODS) - 1 - place + shift
            values = [one["Spearman, mean over tasks"] for one in each if one]
            axes.plot(values, [height] * len(values), "o", color=colour, markersize=3, alpha=0.5)
            if found:
                axes.plot(found["Spearman, mean over tasks"], height, "o", color=colour, markersize=8)
        axes.plot([], [], "o", color=colour, label=judge)
    figure.suptitle("Who ranks checkpoints as fine-tuning them does", x=0.01, ha="left", fontsize=11)
    axes.set_yticks(range(len(METHODS)), list(METHODS.values())[::-1], fontsize=SMALL)
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.set_xlim(-1.05, 1.05)
    figure.legend(loc="outside lower center", frameon=False, fontsize=SMALL, ncols=2)
    return figure


def laws(records: Mapping[str, Sequence[Record]], setting: Setting) -> Figure:
    """Risk on all training examples, predicted from smaller sets and from kernels, against real; a panel a task."""
    count, budget = setting.size["train"], setting.points[-1][0]
    figure, grid = new_grid(f"Risk of AdamW at n = {count} from n ≤ {budget}", 1, max(len(records), 2))
    for axes, (task, cells) in zip(grid[0], records.items(), strict=False):
        truth, found = curves_of(cells, setting)[1], predictions(cells, setting)
        for method, colour, marker in zip(SHOWN, SERIES, "os^vx", strict=False):
            if method in found:
                axes.plot(truth, found[method], marker, color=colour, markersize=4, label=method)
        _equal(axes, truth)
        axes.set_title(task, fontsize=SMALL, loc="left")
        axes.set_xlabel("real", fontsize=SMALL)
    for axes in grid[0][len(records) :]:
        axes.set_visible(False)
    grid[0][0].set_ylabel("predicted", fontsize=SMALL)
    figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside lower center", frameon=False, fontsize=SMALL,
                  ncols=3)  # fmt: skip
    return figure


def _equal(axes: Axes, values: Iterable[float]) -> None:
    known = list(values)
    edges = [min(known), max(known)]
    axes.plot(edges, edges, "--", color=GREY, linewidth=1)
