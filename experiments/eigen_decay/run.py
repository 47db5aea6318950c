"""How fast the eigenvalues of real kernels fall, how much that depends on the fit, and whether it matters.

Claim     For all-MiniLM-L6-v2 on twelve binary tasks: (a) β, the decay of λ̂_k ≍ k^{−2β}, by window and form of the
          fit, by n, by readout and by parameter group; (b) rank correlations, over the tasks, of β with the learning
          curve that the same kernel predicts, with their uncertainty, beside those of kernel–target alignment.
Source    Sun & Raskutti 2026 (the fit of β, and the claim that a faster decay goes with a better learning curve);
          Cristianini et al. 2001 and Cortes, Mohri & Rostamizadeh 2012 (alignment, plain and centred)
Setting   `REAL`: for each task and readout the kernel of 128 + 96 examples in blocks, texts of 24 tokens, a fresh head
          on the mean token (scale 1, seed 0). β is that of the first 128. Risk: gradient descent at 0.5/λ̂₁ on 128 of
          the 224 examples, tested on the other 96, mean over 50 splits, at the best epoch of the mean.
Command   python -m experiments.eigen_decay.run                         (from the root of the repository)
Minutes   about 15 on two CPU cores, 4 GB; under one with --smoke. Kernels are kept in --out, and a command that was
          interrupted goes on where it was.
Expected  expected.toml
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments._check import check
from experiments.eigen_decay.measures import FORMS, Problem, correlations, measure, window_name
from ntkft import models
from ntkft.batched import compile_outputs
from ntkft.data import load_task, signed_targets, tokenize
from ntkft.kernels import empirical_ntk
from ntkft.plots.style import BLUE, GREY, ORANGE, RED, SERIES, SMALL, new_grid, save

FOLDER = Path(__file__).parent
PLAIN = "mean"
READOUTS = {
    PLAIN: models.regression(pool="mean", scale=1.0, seed=0),
    "first": models.regression(pool="first", scale=1.0, seed=0),
    "small": models.regression(pool="mean", scale=0.1, seed=0),
}
"""Of a fresh head: the mean token, the first token, and the mean token with a head a tenth as large."""
BAR = 1.645
"""Standard errors to either side in a central 90 % interval."""


@dataclass(frozen=True)
class Setting:
    """Tasks and sizes; each task is a name, a file below the folder of texts (or "docs"), and a pair of classes."""

    tasks: tuple[tuple[str, str, tuple[str, str]], ...]
    studied: tuple[str, ...]
    """Tasks for which all readouts are compared."""
    sizes: tuple[int, ...]
    """Of the subsets on which β and risk are followed; the last is the whole training set, n."""
    test: int
    tokens: int
    divisors: tuple[int, ...]
    """Windows of the fit are the first n′/divisor eigenvalues, whatever the size n′."""
    draws: int
    """Random subsets of each size, for means and errors of β."""
    splits: int
    """Of all examples into training and test set, for the learning curve."""
    last_epoch: int


REAL = Setting(
    tasks=(
        *((f"{one}|{other}", "docs", (one, other)) for one, other in
          (("special", "stats"), ("stats", "signal"), ("special", "sparse"), ("signal", "sparse"))),
        ("sst2", "sst2/train.tsv", ("0", "1")),
        ("cr", "cr/all.tsv", ("0", "1")),
        *((f"trec {one}|{other}", "trec/train.tsv", (one, other)) for one, other in
          (("0", "1"), ("1", "3"), ("0", "3"), ("4", "5"), ("1", "4"), ("3", "5"))),
    ),
    studied=("stats|signal", "sst2"),
    sizes=(32, 64, 128),
    test=96,
    tokens=24,
    divisors=(8, 4, 2, 1),
    draws=200,
    splits=50,
    last_epoch=2**16,
)  # fmt: skip
SMOKE = Setting(
    tasks=tuple((f"{one}|{other}", "docs", (one, other)) for one, other in
                (("special", "stats"), ("stats", "signal"))),
    studied=(),
    sizes=(12, 24),
    test=12,
    tokens=8,
    divisors=(4, 2, 1),
    draws=20,
    splits=3,
    last_epoch=64,
)  # fmt: skip


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Compute the kernels that are not there yet, measure, draw, compare with `expected.toml`, return the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/eigen_decay"))
    parser.add_argument("--texts", type=Path, default=Path("../shared/data/text"), help="folder of sst2, cr and trec")
    parser.add_argument("--smoke", action="store_true", help="two small tasks of documentation sentences")
    options = parser.parse_args(arguments)
    setting = SMOKE if options.smoke else REAL

    records = {}
    for name, readout, problem in problems(setting, options.texts, options.out):
        records[f"{name}, {readout}"] = measure(
            problem,
            sizes=setting.sizes,
            divisors=setting.divisors,
            draws=setting.draws,
            splits=setting.splits,
            last_epoch=setting.last_epoch,
        )
    plain = {name: records[f"{name}, {PLAIN}"] for name, _, _ in setting.tasks}
    found = correlations(list(plain.values()))
    results = claims(records, found)
    for name, figure in draw(plain, found, setting).items():
        save(figure, options.out / f"{name}.png")
    (options.out / "results.json").write_text(
        json.dumps({"results": results, "correlations": found, "records": records}, indent=1, ensure_ascii=False)
    )
    for name, value in results.items():
        print(f"{name:72} {value:.4g}")
    count = check(results, FOLDER / "expected.toml", ["smoke" if options.smoke else "real"])
    print(f"all {count} values as expected")
    return results


def claims(records: Mapping[str, dict], found: Mapping[str, dict]) -> dict[str, float]:
    """What `expected.toml` is compared with."""
    results: dict[str, float] = {"problems": len(records)}
    for problem, record in records.items():
        results |= {
            f"{problem}: β {FORMS[form]}, {window}": fits[form]
            for window, fits in record["decay"].items()
            for form in FORMS
        }
    return results | {
        f"{name}: Spearman's {key}": value
        for name, correlation in found.items()
        for key, value in (("ρ", correlation["spearman"]), ("p", correlation["p"]))
    }


def problems(setting: Setting, texts: Path, out: Path) -> Iterator[tuple[str, str, Problem]]:
    """Name, readout and problem of all tasks with the plain readout, and of the studied ones with the others."""
    for readout, head in READOUTS.items():
        model = models.load("minilm", readout=head)
        assert model.tokenizer is not None
        outputs = compile_outputs(model.apply_fn, 32)
        for name, file, labels in setting.tasks:
            if readout != PLAIN and name not in setting.studied:
                continue
            source = file if file == "docs" else texts / file
            task = load_task(source, n=setting.sizes[-1], validation=0, test=setting.test, seed=0,
                             kind="classification", labels=labels, drop_empty=True)  # fmt: skip
            train, test = (
                tokenize(part, model.tokenizer, max_length=setting.tokens).inputs for part in (task.train, task.test)
            )
            folder = out / "kernels" / readout / name.replace("|", "-")
            kernel = partial(empirical_ntk, model.apply_fn, model.params, outputs="scalar", groups=model.groups,
                             memory="2GB")  # fmt: skip
            blocks = (
                kernel(train, store=folder / "train.zarr"),
                kernel(test, train, store=folder / "cross.zarr"),
                kernel(test, store=folder / "test.zarr"),
            )
            y = np.concatenate([signed_targets(part.targets) for part in (task.train, task.test)])
            f = np.concatenate([np.asarray(outputs(model.params, inputs)) for inputs in (train, test)])
            yield name, readout, Problem(*blocks, y=y, f=f)


def draw(records: Mapping[str, dict], found: Mapping[str, dict], setting: Setting) -> dict[str, Figure]:
    """All figures, by file name."""
    return {
        "spectra": spectra(records, setting),
        "decay": decay_by_task(records, setting),
        "risk": risk_against(records, found, setting),
    }


def spectra(records: Mapping[str, dict], setting: Setting) -> Figure:
    """A panel for each task: eigenvalues, both power laws over a quarter of them, and the floor."""
    n, columns = setting.sizes[-1], min(4, len(records))
    window = window_name(4)
    title = f"Eigenvalues λ̂ₖ of the kernel, relative to the largest (all-MiniLM-L6-v2, n = {n}, seed 0)"
    figure, grid = new_grid(title, -(-len(records) // columns), columns)
    panels = [axes for row in grid for axes in row]
    for axes, (name, record) in zip(panels, records.items(), strict=False):
        values = np.array(record["eigenvalues"]) / record["eigenvalues"][0]
        axes.loglog(np.arange(1, n + 1), values, "o", color=BLUE, markersize=2, label="eigenvalues")
        for (form, label), colour in zip(FORMS.items(), (ORANGE, GREY), strict=True):
            ends = np.array(record["decay"][window]["lines"][form]) / record["eigenvalues"][0]
            axes.loglog([1, n // 4], ends, color=colour, linewidth=1.4, label=f"k$^{{−2β}}$ {label}, k ≤ n/4")
        axes.axhline(record["floor"] / record["eigenvalues"][0], color=RED, linestyle="--", linewidth=1, label="floor")
        rates = [record["decay"][window][form] for form in FORMS]
        axes.set_title(f"{name}: β = {rates[0]:.2f}, {rates[1]:.2f}", fontsize=SMALL, loc="left")
    for row in grid:
        row[0].set_ylabel("λ̂ₖ/λ̂₁", fontsize=SMALL)
    for axes in grid[-1]:
        axes.set_xlabel("index k", fontsize=SMALL)
    return _with_legend(figure, panels[0])


def decay_by_task(records: Mapping[str, dict], setting: Setting) -> Figure:
    """β by task: a row of panels for each form, a column for each window, a mark for each size."""
    title = (
        f"Decay β by task, form and window of the fit (all-MiniLM-L6-v2, seed 0; bars: 90 % at n = {setting.sizes[-1]})"
    )
    figure, grid = new_grid(title, len(FORMS), len(setting.divisors))
    figure.set_size_inches(figure.get_figwidth(), 1.2 + len(FORMS) * (0.6 + 0.2 * len(records)))
    place = np.arange(len(records))[::-1]
    for row, (form, label) in zip(grid, FORMS.items(), strict=True):
        for axes, divisor in zip(row, setting.divisors, strict=True):
            window = window_name(divisor)
            axes.set_title(f"{label}, {window}", fontsize=SMALL, loc="left")
            rates = np.array([record["decay"][window][form] for record in records.values()])
            half = BAR * np.array([record["errors"][window][form] for record in records.values()])
            axes.hlines(place, rates - half, rates + half, color=BLUE, linewidth=1.2)
            axes.plot(rates, place, "o", color=BLUE, markersize=4, label=f"n = {setting.sizes[-1]}")
            for size, mark in zip(setting.sizes[-2::-1], "sx", strict=False):
                means = [record["by_size"][str(size)][window][form] for record in records.values()]
                axes.plot(means, place, mark, color=ORANGE, markersize=3, label=f"n = {size}, mean of subsets")
        row[0].set_yticks(place, list(records), fontsize=SMALL)
        row[0].set_ylim(-0.6, len(records) - 0.4)
    for axes in grid[-1]:
        axes.set_xlabel("β", fontsize=SMALL)
    return _with_legend(figure, grid[0][0])


def risk_against(records: Mapping[str, dict], found: Mapping[str, dict], setting: Setting) -> Figure:
    """Lowest predicted risk over β, for each form and window, with the rank correlation of each."""
    title = (
        f"Lowest predicted test risk / that before training, over β (all-MiniLM-L6-v2, n = {setting.sizes[-1]}, seed 0)"
    )
    figure, grid = new_grid(title, len(FORMS), len(setting.divisors))
    figure.set_size_inches(figure.get_figwidth(), 3 * len(FORMS))
    marks = [(mark, colour) for mark in "os" for colour in SERIES]
    for row, (form, label) in zip(grid, FORMS.items(), strict=True):
        for axes, divisor in zip(row, setting.divisors, strict=True):
            window = window_name(divisor)
            correlation = found[f"lowest risk against β {label}, {window}"]
            axes.set_title(
                f"{label}, {window}: ρ = {correlation['spearman']:.2f}\n"
                f"({correlation['low']:.2f} … {correlation['high']:.2f}), p = {correlation['p']:.2f}",
                fontsize=SMALL, loc="left",
            )  # fmt: skip
            for (mark, colour), (name, record) in zip(marks, records.items(), strict=False):
                beta, risk = record["decay"][window][form], record["risk"]["relative"]
                axes.plot(beta, risk, mark, color=colour, markersize=4, label=name)
        row[0].set_ylabel("risk at the best epoch / at 0", fontsize=SMALL)
    for axes in grid[-1]:
        axes.set_xlabel("β", fontsize=SMALL)
    return _with_legend(figure, grid[0][0])


def _with_legend(figure: Figure, axes: Axes) -> Figure:
    """One legend below all panels."""
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", frameon=False, fontsize=SMALL, ncols=6)
    return figure


if __name__ == "__main__":
    main()
