"""Figures of the experiment: learning curves beside reality, and predicted against real risk."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from experiments.risk_prediction.claims import horizon
from experiments.risk_prediction.runs import best
from experiments.risk_prediction.setting import Setting
from ntkft.plots.style import BLUE, GREY, ORANGE, SERIES, SMALL, new_axes, new_grid

Records = Mapping[tuple[str, int, int], Mapping[str, dict]]
"""(task, n, seed) → the records of one run."""


def curves(records: Records, setting: Setting, seed: int) -> Figure:
    """A row of panels for each task, a column for each n: both predictions and what really happened, of one seed."""
    names = [name for name, _ in setting.tasks]
    title = f"Test risk of fine-tuning all-MiniLM-L6-v2, predicted and real (seed {seed}, {setting.test} test examples)"
    figure, grid = new_grid(title, len(names), len(setting.sizes))
    for row, name in zip(grid, names, strict=True):
        for axes, n in zip(row, setting.sizes, strict=True):
            axes.set_title(f"{name}, n = {n}", fontsize=SMALL, loc="left")
            if (name, n, seed) not in records:
                continue
            record = records[name, n, seed]
            real, anchored, first = record["real"], record["anchored"], record["first_order"]["mse"]
            last = real["epochs"][-1]
            shown = [i for i, epoch in enumerate(anchored["epochs"]) if epoch <= last]
            axes.axvspan(0, min(horizon(record, setting).epoch, last), color=GREY, alpha=0.15, linewidth=0,
                         label="trust horizon")  # fmt: skip
            axes.plot(range(last + 1), first[: last + 1], color=ORANGE, linewidth=1.4, label="first-order kernel")
            axes.plot([anchored["epochs"][i] for i in shown], [anchored["mse"][i] for i in shown], color=BLUE,
                      linewidth=1.4, label=f"re-anchored, {anchored['kernels']} kernels")  # fmt: skip
            axes.plot(real["epochs"], real["mse"], "o", color="black", markersize=2.5, label="real")
            epoch, risk = best(real)
            axes.plot([epoch], [risk], "*", color="black", markersize=8, label="real optimum")
        row[0].set_ylabel("test squared error", fontsize=SMALL)
    for axes in grid[-1]:
        axes.set_xlabel("epoch", fontsize=SMALL)
    figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside lower center", frameon=False, fontsize=SMALL,
                  ncols=5)  # fmt: skip
    return figure


def agreement(rows: list[dict], setting: Setting) -> Figure:
    """Lowest risk of every run, predicted against real."""
    size = f"n = {setting.sizes[0]} … {setting.sizes[-1]}, {len(setting.seeds)} draws"
    title = f"Lowest test risk of all-MiniLM-L6-v2: {len(rows)} runs, {size}"
    figure, axes = new_axes(title, "real, at its best epoch", "predicted, at its best epoch")
    for colour, (name, _) in zip(SERIES, setting.tasks, strict=False):
        mine = [row for row in rows if row["task"] == name]
        real = [row["real_risk"] for row in mine]
        axes.plot(real, [row["predicted_risk"] for row in mine], "o", color=colour, markersize=4, label=name)
        axes.plot(real, [row["first_order_risk"] for row in mine], "x", color=colour, markersize=4)
    edges = [f(row[key] for row in rows for key in ("real_risk", "first_order_risk")) for f in (min, max)]
    axes.plot(edges, edges, "--", color=GREY, linewidth=1, label="equal")
    axes.plot([], [], "x", color=GREY, label="first-order kernel")
    axes.legend(fontsize=SMALL, edgecolor="none")
    return figure
