"""Which of thirty models to fine-tune, from a small part of the data: curves fitted together against one by one.

Claim     (a) Accept-then-Stop and the baselines give the published PearCorr and RelAcc on FLAN and WMT19 at all seven
          budgets. (b) `pooled` has a higher PearCorr than Accept-then-Stop in the mean over the budgets, on both
          tables, with its only choice (how many points of each curve) made on one table and judged on the other.
          (c) That is due to what it leaves out: with floors or exponents of each model's own, or the loss at D = 0, it
          is far worse on both. (d) Its 90 % intervals hold 92 % of the true losses of both tables, but a fifth of
          them at 1/128 on WMT19.
Source    Lin et al. 2024, arXiv 2402.02314 (losses, Accept-then-Stop, published values); `pooled` is this project's.
Setting   `REAL`: 30 models, true losses at 1,638,400 examples, budgets 1/8 … 1/512 of them.
Command   python -m experiments.model_selection.run                     (from the root of the repository)
Minutes   2 on one CPU core, 3 with --held-out; seconds with --smoke
Expected  expected.toml
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments._check import check
from experiments.model_selection.variants import VARIANTS, predict
from ntkft.cli.loss_table import read_loss_table
from ntkft.plots.scaling import selection_by_budget
from ntkft.plots.style import save
from ntkft.report.record import to_json
from ntkft.scaling import (
    LossCurve,
    Rectified,
    fit_pooled,
    loss_curve,
    pearson,
    predict_pooled,
    relative_accuracy,
    select,
)
from ntkft.scaling.selection import Selector

FOLDER = Path(__file__).parent
TABLES = ("flan", "wmt19")
METHODS: tuple[Selector, ...] = ("pooled", "ats", "subtuning", "zeroshot", "size", "rectified", "vanilla")
LEVEL = 0.9


@dataclass(frozen=True)
class Setting:
    """parts: budgets are the target divided by these; points: tried for `pooled`; ablated: points of the ablation."""

    parts: tuple[int, ...]
    points: tuple[int, ...]
    ablated: tuple[int, ...]


REAL = Setting(parts=(8, 16, 32, 64, 128, 256, 512), points=(3, 4, 5, 6), ablated=(3, 5))
SMOKE = Setting(parts=(16, 64), points=(3, 4), ablated=(3,))


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Select, draw, compare with `expected.toml`, return the results (all correlations and accuracies in %)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/model_selection"))
    folder = Path("../shared/data/rectified_scaling_law")
    parser.add_argument("--tables", type=Path, default=folder, help="folder of flan.csv and wmt19.csv")
    parser.add_argument("--held-out", type=Path, help="one more table, such as gigaword.csv, that nothing is chosen on")
    parser.add_argument("--smoke", action="store_true", help="two small tables of curves with a known law")
    options = parser.parse_args(arguments)
    setting = SMOKE if options.smoke else REAL
    if options.smoke:
        tables = {name: synthetic(seed) for seed, name in enumerate(("first", "second"))}
    else:
        tables = {name: read_loss_table(options.tables / f"{name}.csv") for name in TABLES}
    held_out = {} if options.held_out is None else {"held-out": read_loss_table(options.held_out)}

    results, correlations = {}, {}
    for name, curves in (tables | held_out).items():
        found, correlations[name] = by_method(curves, METHODS, setting)
        results |= {f"{name}, {key}": value for key, value in found.items()}
        print(f"{name}: all methods", flush=True)
        results |= {f"{name}, {key}": value for key, value in pooled(curves, setting).items()}
        results |= {f"{name}, {key}": value for key, value in ablation(curves, setting).items()}
        print(f"{name}: pooled and its variants", flush=True)
    results |= choice(results, list(tables), setting)
    save(selection_by_budget([1 / part for part in setting.parts], correlations), options.out / "correlation.png")
    (options.out / "results.json").write_text(to_json({"results": results}))
    for name, value in results.items():
        print(f"{name:72} {value:.4g}")
    sections = ["smoke"] if options.smoke else ["published", "real", *held_out]
    count = check(results, FOLDER / "expected.toml", sections)
    print(f"all {count} values as expected")
    return results


def by_method(
    curves: Sequence[LossCurve], methods: Sequence[Selector], setting: Setting
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """PearCorr and RelAcc of every method at every budget; and PearCorr (a share) by method, in their order."""
    target, truth = target_of(curves)
    results: dict[str, float] = {}
    correlations: dict[str, list[float]] = {}
    for method in methods:
        correlations[method] = []
        for part in setting.parts:
            scores = select(curves, method=method, budget=target / part, target=target).scores
            correlations[method].append(pearson(scores, truth))
            results[f"{method}, 1/{part}: PearCorr, %"] = 100 * correlations[method][-1]
            results[f"{method}, 1/{part}: RelAcc, %"] = 100 * relative_accuracy(scores, truth)
        results[f"{method}: mean PearCorr, %"] = 100 * float(np.mean(correlations[method]))
        results[f"{method}: mean RelAcc, %"] = mean(results, f"{method}, 1/{{}}: RelAcc, %", setting)
    return results, correlations


def pooled(curves: Sequence[LossCurve], setting: Setting) -> dict[str, float]:
    """Mean PearCorr of `pooled` by the number of points, and how many intervals hold the loss at its default."""
    target, truth = target_of(curves)
    results: dict[str, float] = {}
    for points in setting.points:
        found = [
            pearson(fit_pooled(shown, points=available(shown, points)).at(target), truth)
            for shown in within(curves, target, setting)
        ]
        results[f"pooled, {points} points: mean PearCorr, %"] = 100 * float(np.mean(found))
    for part, shown in zip(setting.parts, within(curves, target, setting), strict=True):
        said = predict_pooled(shown, target, level=LEVEL)
        assert said.low is not None  # there are more sizes than points at every budget
        assert said.high is not None
        results[f"pooled, 1/{part}: intervals that hold the loss, %"] = 100 * float(
            np.mean((said.low <= truth) & (truth <= said.high))
        )
        results[f"pooled, 1/{part}: median ratio of the interval's ends"] = float(np.median(said.high / said.low))
    results["pooled: intervals that hold the loss, %"] = mean(
        results, "pooled, 1/{}: intervals that hold the loss, %", setting
    )
    return results


def ablation(curves: Sequence[LossCurve], setting: Setting) -> dict[str, float]:
    """Mean PearCorr over the budgets of every variant of `pooled`."""
    target, truth = target_of(curves)
    return {
        f"{name}, {points} points: mean PearCorr, %": 100
        * float(
            np.mean(
                [
                    pearson(predict(variant, shown, target, available(shown, points)), truth)
                    for shown in within(curves, target, setting)
                ]
            )
        )
        for name, variant in VARIANTS.items()
        if name != "pooled"
        for points in setting.ablated
    }


def choice(results: Mapping[str, float], tables: Sequence[str], setting: Setting) -> dict[str, float]:
    """The number of points that is best on one table, judged on the other, beside Accept-then-Stop there."""
    found = {}
    for here, there in (tables, tables[::-1]):
        best = max(setting.points, key=lambda points: results[f"{here}, pooled, {points} points: mean PearCorr, %"])
        judged = results[f"{there}, pooled, {best} points: mean PearCorr, %"]
        found[f"points chosen on {here}"] = float(best)
        found[f"{there}, points chosen on {here}: mean PearCorr, %"] = judged
        found[f"{there}, points chosen on {here}: beyond ats, %"] = judged - results[f"{there}, ats: mean PearCorr, %"]
    return found


def target_of(curves: Sequence[LossCurve]) -> tuple[float, np.ndarray]:
    """The largest size, and the true losses there."""
    return float(curves[0].sizes[-1]), np.array([curve.losses[-1] for curve in curves])


def within(curves: Sequence[LossCurve], target: float, setting: Setting) -> list[list[LossCurve]]:
    """The curves up to each budget."""
    return [[curve.up_to(target / part) for curve in curves] for part in setting.parts]


def available(curves: Sequence[LossCurve], points: int) -> int:
    """`points`, or as many as the budget has: at 1/512 there are five."""
    return min(points, *(len(curve.fine_tuned.sizes) for curve in curves))


def mean(results: Mapping[str, float], key: str, setting: Setting) -> float:
    """Of the entries `key` with every budget in place of its braces."""
    return float(np.mean([results[key.format(part)] for part in setting.parts]))


def synthetic(seed: int) -> list[LossCurve]:
    """Twelve curves of the rectified law, β = 0.5 for all, knees between 2,000 and 400,000 examples, 0.3 % of noise."""
    generator = np.random.default_rng(seed)
    sizes = np.array([0, *(200 * 2**i for i in range(14))])
    curves = []
    for i in range(12):
        worth = generator.uniform(2e3, 4e5) ** 0.5
        law = Rectified(B=generator.uniform(2.5, 4.5) * worth, D_l=worth, beta=0.5, E=0.05)
        noise = np.exp(0.003 * generator.standard_normal(len(sizes)))
        curves.append(loss_curve(f"m{i}", sizes, law.at(sizes) * noise, generator.integers(10**8, 10**9)))
    return curves


if __name__ == "__main__":
    main()
