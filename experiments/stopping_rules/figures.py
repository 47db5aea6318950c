"""Figures of the experiment: regret by rule, and what the plug-ins estimate."""

import numpy as np
from matplotlib.figure import Figure

from experiments.risk_prediction.setting import Setting
from ntkft.plots.style import BLUE, GREEN, GREY, ORANGE, SMALL, new_axes


def regrets(rows: list[dict], setting: Setting) -> Figure:
    """One row for each rule, one dot for each run, a bar at the median."""
    rules = list(dict.fromkeys(rule for row in rows for which in row["regret"].values() for rule in which))
    sizes = f"n = {setting.sizes[0]} … {setting.sizes[-1]}"
    title = (
        f"Regret of stopping rules: all-MiniLM-L6-v2\n{len(setting.tasks)} tasks, {sizes}, {len(setting.seeds)} seeds"
    )
    figure, axes = new_axes(title, "risk at the rule's epoch / lowest risk − 1", "", height=0.9 + 0.5 * len(rules))
    generator = np.random.default_rng(0)
    for which, colour, shift in (("predicted", ORANGE, 0.16), ("real", "black", -0.16)):
        for place, rule in enumerate(rules):
            values = np.array([row["regret"][which][rule] for row in rows if rule in row["regret"].get(which, {})])
            if not values.size:
                continue
            jitter = place + shift + 0.08 * generator.uniform(-1, 1, values.size)
            label = f"{which} curves ({values.size} runs)" if place == 0 else None
            axes.plot(np.maximum(values, 1e-4), jitter, "o", color=colour, markersize=2.5, alpha=0.6, label=label)
            median = max(float(np.median(values)), 1e-4)
            axes.plot([median] * 2, [place + shift - 0.15, place + shift + 0.15], color=colour, linewidth=2)
    axes.axvline(0.05, color=GREY, linestyle="--", linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks(range(len(rules)), rules, fontsize=SMALL)
    axes.invert_yaxis()
    figure.legend(loc="outside lower center", frameon=False, fontsize=SMALL, ncols=2)
    return figure


def plug_ins(simulated: list[dict]) -> Figure:
    """Estimates relative to the truth over redrawn noise, against the noise."""
    title = f"Plug-ins on the kernel of {simulated[0]['n']} documentation sentences"
    figure, axes = new_axes(title, "noise σ / rms of the target", "estimate / truth, median and 90 % of 50 draws")
    series = (
        ("sigma", BLUE, "σ̂ / σ"),
        ("plug_in", ORANGE, "plug-in C_H / C_H"),
        ("corrected", GREEN, "C_H less noise / C_H"),
    )
    for shift, (name, colour, label) in enumerate(series):
        x = np.array([row["noise"] for row in simulated]) * (1 + 0.06 * (shift - 1))
        low, middle, high = (np.array([np.quantile(row[name], q) for row in simulated]) for q in (0.05, 0.5, 0.95))
        axes.errorbar(x, middle, [middle - low, high - middle], fmt="o-", color=colour, capsize=3, label=label)
    axes.axhline(1, color=GREY, linestyle="--", linewidth=1)
    axes.set_xscale("log")
    axes.set_xticks([row["noise"] for row in simulated], [f"{row['noise']:g}" for row in simulated])
    axes.set_yscale("log")
    axes.set_yticks([0.25, 0.5, 1, 2, 4], ["¼", "½", "1", "2", "4"])
    axes.minorticks_off()
    axes.legend(fontsize=SMALL, edgecolor="none")
    return figure
