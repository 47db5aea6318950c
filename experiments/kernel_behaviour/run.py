"""Does fine-tuning with few examples behave like its kernel? The two checks of Malladi et al., and kernel solvers.

Claim     For all-MiniLM-L6-v2 with a fresh head, 16 examples of each of two classes, three tasks × the five published
          seeds: (a) the linearised model recovers at least half of what full-batch gradient descent gains in test
          accuracy (and, less noisy, in squared error); (b) entries of the kernel move by a mean relative distance below
          2. Both together are kernel behaviour. The test accuracy of kernel solvers stands beside real fine-tuning's.
Source    Malladi, Wettig, Yu, Chen & Arora 2023, *A kernel-based view of language model fine-tuning*: thresholds,
          solvers, penalties and seeds. They use label words of masked language models; here the head is fresh, on the
          mean token, as long as there is no checkpoint with label words.
Setting   `REAL`. Step size 0.5/λ̂₁ and 40 epochs for gradient descent, real and linearised; AdamW 10⁻⁴ for 10 epochs in
          batches of 16; squared loss, targets ±1; penalties chosen on 16 validation examples of each class; 128 test
          examples. Training by signs, one example a step, on the first two seeds.
Command   python -m experiments.kernel_behaviour.run                    (from the root of the repository)
Minutes   about 15 on two CPU cores, 4 GB; one with --smoke. Every record is kept in --out as soon as it is done, and a
          command that was interrupted goes on where it was.
Expected  expected.toml
"""

import argparse
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from experiments._check import check
from experiments._kept import claim, kept
from experiments.kernel_behaviour.runs import Setting, build, predicted, real, signs
from ntkft.dynamics import KernelBehaviour, decide, measure_kernel_behaviour
from ntkft.dynamics.kernel_behaviour import MOVED, RECOVERED
from ntkft.plots.style import BLUE, GREY, ORANGE, SERIES, SMALL, new_axes, new_grid, save

FOLDER = Path(__file__).parent
REAL = Setting(
    tasks=(
        ("sst2", "sst2/train.tsv", None),
        ("cr", "cr/all.tsv", None),
        ("trec", "trec/train.tsv", ("0", "1")),
    ),
    seeds=(13, 21, 42, 87, 100),
    sign_seeds=(13, 21),
    shots=16,
    test=128,
    max_length=24,
    epochs=40,
    step=0.5,
    adamw=(1e-4, 10),
    sign_epochs=3,
)
SMOKE = Setting(
    tasks=(("docs", "docs", ("special", "stats")),),
    seeds=(13,),
    sign_seeds=(13,),
    shots=4,
    test=16,
    max_length=8,
    epochs=6,
    step=0.5,
    adamw=(1e-4, 2),
    sign_epochs=1,
)
METHODS = (
    ("before training", "pretrained", GREY),
    ("gradient descent", "descent", "black"),
    ("AdamW", "adamw", "black"),
    ("first-order descent", "first-order descent", BLUE),
    ("kernel ridge", "ridge", BLUE),
    ("kernel logistic", "logistic", BLUE),
    ("asymmetric machine", "machine", ORANGE),
    ("training by signs", "signs", "black"),
    ("by signs, predicted", "signs, predicted", ORANGE),
)
"""In the figure's order: what it is called, the name of its outputs, its colour (black is real training)."""
SCORES = ("accuracy", "squared error")


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Run what is not there yet, draw, compare with `expected.toml`, return the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/kernel_behaviour"))
    parser.add_argument("--texts", type=Path, default=Path("../shared/data/text"), help="folder of sst2, cr and trec")
    parser.add_argument("--smoke", action="store_true", help="eight documentation sentences")
    options = parser.parse_args(arguments)
    setting = SMOKE if options.smoke else REAL
    claim(options.out, setting)

    rows = compute(setting, options.texts, options.out)
    results = claims(rows)
    save(accuracies(rows, setting), options.out / "accuracies.png")
    save(behaviours(rows, setting), options.out / "behaviour.png")
    (options.out / "results.json").write_text(
        json.dumps({"results": results, "rows": rows}, indent=1, default=dataclasses.asdict)
    )
    for name, value in results.items():
        print(f"{name:72} {value:.4g}")
    count = check(results, FOLDER / "expected.toml", ["smoke" if options.smoke else "real"])
    print(f"all {count} values as expected")
    return results


def compute(setting: Setting, texts: Path, out: Path) -> list[dict]:
    """One row for each task and seed; training by signs, the dearest, after all others."""
    keys = [(name, seed) for seed in setting.seeds for name, *_ in setting.tasks]
    sources = {name: (file, labels) for name, file, labels in setting.tasks}

    def record(kind: str, name: str, seed: int, make: Callable[..., dict], *more) -> dict:
        path = out / f"{name}-{seed}-{kind}.json"
        return kept(path, lambda: make(build(*sources[name], setting, seed, texts), setting, *more))

    rows = []
    for name, seed in keys:
        said = record("predicted", name, seed, predicted)
        done = record("real", name, seed, real, said["step_size"])
        rows.append({"task": name, "seed": seed} | row(said, done))
    for found, (name, seed) in zip(rows, keys, strict=True):
        if seed in setting.sign_seeds:
            outputs = record("signs", name, seed, signs)["outputs"]
            start = np.array(found["outputs"]["pretrained"])
            changes = [(np.array(outputs[kind]) - start)[:, 0] for kind in ("signs, predicted", "signs")]
            found["signs correlation"] = float(np.corrcoef(np.stack(changes))[0, 1])
            found["accuracy"] |= scores(outputs, found["targets"])[0]
    return rows


def row(said: dict, done: dict) -> dict:
    """Scores of every method, and both checks, with gradient descent as the fine-tuning, for each score."""
    outputs, behaviour = said["outputs"] | done["outputs"], {}
    right, error = scores(outputs, said["targets"])
    for name, score in zip(SCORES, (right, {method: -value for method, value in error.items()}), strict=True):
        if score["descent"] > score["pretrained"]:  # else there is no gain of which a share could be recovered
            behaviour[name] = measure_kernel_behaviour(
                pretrained=score["pretrained"],
                finetuned=score["descent"],
                linearised=score["first-order descent"],
                before=np.array(said["kernel"]),
                after=np.array(done["kernel"]),
            )
    return {"outputs": outputs, "targets": said["targets"], "accuracy": right, "error": error, "behaviour": behaviour}


def scores(outputs: Mapping[str, list], targets: list) -> tuple[dict[str, float], dict[str, float]]:
    """Test accuracy and mean squared error of every method."""
    y = np.array(targets)
    right = {name: float(np.mean(decide(np.array(f)) == decide(y))) for name, f in outputs.items()}
    return right, {name: float(np.mean((np.array(f) - y) ** 2)) for name, f in outputs.items()}


def claims(rows: Sequence[dict]) -> dict[str, float]:
    """What `expected.toml` is compared with."""
    results: dict[str, float] = {"runs": len(rows)}
    found: list[KernelBehaviour] = []
    for score in SCORES:
        found = [row["behaviour"][score] for row in rows if score in row["behaviour"]]
        results |= {
            f"{score}: runs in which fine-tuning gained": len(found),
            f"{score}: share of the gain recovered, median": _median(found, "recovered"),
            f"{score}: at least half recovered, % of those": 100 * _mean(found, "linearised"),
            f"{score}: kernel behaviour, % of those": 100 * _mean(found, "holds"),
        }
    results |= {  # a fresh head's squared error always falls: all runs
        "mean relative distance of entries, median": _median(found, "distance"),
        "mean relative distance of entries, largest": max((one.distance for one in found), default=np.nan),
        "mean relative distance below 2, % of runs": 100 * _mean(found, "fixed_features"),
        "change of the kernel in Frobenius norm, median": _median(found, "change"),
    }
    for name in sorted({row["task"] for row in rows}):
        for title, method, _ in METHODS:
            known = [row["accuracy"][method] for row in rows if row["task"] == name and method in row["accuracy"]]
            results[f"{name}: accuracy, {title}, %"] = 100 * float(np.mean(known)) if known else np.nan
    signed = [row["signs correlation"] for row in rows if "signs correlation" in row]
    return results | {"training by signs: lowest correlation of changes, predicted and real": min(signed)}


def _mean(found: Sequence[KernelBehaviour], name: str) -> float:
    return float(np.mean([getattr(one, name) for one in found])) if found else np.nan


def _median(found: Sequence[KernelBehaviour], name: str) -> float:
    return float(np.median([getattr(one, name) for one in found])) if found else np.nan


def accuracies(rows: Sequence[dict], setting: Setting) -> Figure:
    """A panel for each task: test accuracy of every method and seed, and the mean over seeds."""
    names = [name for name, *_ in setting.tasks]
    title = f"all-MiniLM-L6-v2, fresh head: {setting.shots} examples of each class, {len(setting.seeds)} seeds"
    figure, (panels,) = new_grid(title, 1, len(names))
    for axes, name in zip(panels, names, strict=True):
        axes.set_title(f"{name}, {setting.test} test examples", fontsize=SMALL, loc="left")
        for place, (_, method, colour) in enumerate(METHODS):
            mine = [row["accuracy"] for row in rows if row["task"] == name]
            known = [100 * right[method] for right in mine if method in right]
            axes.plot(known, [place] * len(known), "o", color=colour, markersize=3.5, alpha=0.5, markeredgewidth=0)
            axes.plot([np.mean(known)], [place], "|", color=colour, markersize=14, markeredgewidth=2)
        axes.axvline(50, color=GREY, linewidth=0.8, linestyle="--")
        axes.set_xlabel("test accuracy, %", fontsize=SMALL)
    panels[0].set_yticks(range(len(METHODS)), [title for title, *_ in METHODS], fontsize=SMALL)
    panels[0].invert_yaxis()
    return figure


def behaviours(rows: Sequence[dict], setting: Setting) -> Figure:
    """Both measurements of every run, with the thresholds: kernel behaviour is the lower right."""
    figure, axes = new_axes(
        f"Kernel behaviour of all-MiniLM-L6-v2, {2 * setting.shots} training examples",
        "share of the gain that the linearised model recovers",
        "mean relative distance of kernel entries",
    )
    for colour, (name, *_) in zip(SERIES, setting.tasks, strict=False):
        for mark, score in zip("ox", SCORES, strict=True):
            found = [row["behaviour"][score] for row in rows if row["task"] == name and score in row["behaviour"]]
            points = [one.recovered for one in found], [one.distance for one in found]
            axes.plot(*points, mark, color=colour, markersize=4.5, label=f"{name}, by {score}")
    axes.axvline(RECOVERED, color=GREY, linestyle="--", linewidth=1)
    axes.axhline(MOVED, color=GREY, linestyle="--", linewidth=1, label="thresholds")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=SMALL, edgecolor="none")
    return figure


if __name__ == "__main__":
    main()
