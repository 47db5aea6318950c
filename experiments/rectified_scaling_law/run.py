"""Loss falls slowly at first, then as a power of the training-set size: two laws fitted to 60 curves.

Claim     (a) The rectified law B/(D_l + D^β) + E meets the losses of 30 models on two tasks with a mean log-RMSD of at
          most .0066 (FLAN) and .0119 (WMT19), what was published; the vanilla law (B/D^β + E)^α with .0352 and .0590.
          (b) The reason is the pre-power phase: slopes on log axes grow with D, and the vanilla law's cannot. (c) gpt2
          on FLAN has B 856.4, D_l 260.7, β .5005, E 1.2423, steepest at 244 825 examples. (d) Many curves do not
          determine E, so that it is the law's losses that may be trusted, not its floor.
Source    Lin et al. 2024, arXiv 2402.02314: law, tables, Figure 3 and Table 1
Setting   least squares of log L over D ≥ 200; (d) 90 % intervals, 200 bootstrap draws: E is not identified where they
          span more than a factor of ten or reach zero
Command   python -m experiments.rectified_scaling_law.run                 (from the root of the repository)
Minutes   1 on one CPU core; seconds with --smoke, on curves of a known law
Expected  expected.toml
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from experiments._check import check
from experiments.rectified_scaling_law.figures import Fitted, pre_power_phase, slopes
from ntkft.cli.loss_table import read_loss_table
from ntkft.plots.scaling import law_fits
from ntkft.plots.style import save
from ntkft.report.record import to_json
from ntkft.scaling import FitInterval, LossCurve, Rectified, bootstrap_fit, fit_rectified, fit_vanilla, loss_curve

FOLDER = Path(__file__).parent
TABLES = {"FLAN": "flan.csv", "WMT19": "wmt19.csv"}
EXAMPLE = "gpt2"
SHOWN = ("gpt2", "facebook/bart-base", "facebook/opt-1.3b", "google/mt5-large")
"""Models of `laws.png`."""
LEVEL, FULL = 0.9, 1_638_400


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Fit, draw, compare with `expected.toml`, return the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/rectified_scaling_law"))
    source = Path("../shared/data/rectified_scaling_law")
    parser.add_argument("--tables", type=Path, default=source, help=f"folder of {' and '.join(TABLES.values())}")
    parser.add_argument("--smoke", action="store_true", help="eight curves of a known law, 20 draws")
    options = parser.parse_args(arguments)

    draws = 20 if options.smoke else 200
    tables = {"made": made()} if options.smoke else read(options.tables)
    fitted: dict[str, Fitted] = {}
    intervals: dict[str, list[FitInterval | None]] = {}
    for name, curves in tables.items():
        fitted[name] = curves, [*map(fit_rectified, curves)], [*map(fit_vanilla, curves)]
        intervals[name] = [bootstrap_fit(curve, size=FULL, draws=draws, level=LEVEL, seed=0) for curve in curves]

    results = {}
    for name, found in fitted.items():
        results |= {f"{name}: {key}": value for key, value in of_table(found, intervals[name]).items()}
        save(law_fits(*shown(found), f"Two laws, {name}"), options.out / f"laws_{name.lower()}.png")
    save(pre_power_phase(fitted), options.out / "pre_power_phase.png")
    if not options.smoke:
        results |= {f"{EXAMPLE} on FLAN: {key}": value for key, value in of_example(fitted["FLAN"]).items()}
    (options.out / "results.json").write_text(to_json({"results": results, "curves": records(fitted, intervals)}))
    for name, value in results.items():
        print(f"{name:60} {value:.5g}")
    count = check(results, FOLDER / "expected.toml", ["smoke" if options.smoke else "real"])
    print(f"all {count} values as expected")
    return results


def read(folder: Path) -> dict[str, list[LossCurve]]:
    """Both tables, D > 0."""
    return {name: [curve.fine_tuned for curve in read_loss_table(folder / file)] for name, file in TABLES.items()}


def of_table(found: Fitted, intervals: Sequence[FitInterval | None]) -> dict[str, float]:
    """Errors of both laws, mean slopes from first to last, and how many curves leave what undetermined."""
    curves, rectified, vanilla = found
    error, rival = (np.array([fit.log_rmsd for fit in fits]) for fits in (rectified, vanilla))
    measured = slopes(curves, curves[0].sizes).mean(axis=0)
    law = slopes([fit.law for fit in rectified if fit.law is not None], curves[0].sizes).mean(axis=0)
    other = slopes([fit.law for fit in vanilla if fit.law is not None], curves[0].sizes).mean(axis=0)
    wide = [name for each in intervals if each is not None for name in each.not_identified]
    return {
        "curves": float(len(curves)),
        "mean log-RMSD, rectified": error.mean(),
        "mean log-RMSD, vanilla": rival.mean(),
        "curves that the rectified law meets better": float(np.sum(error < rival)),
        "mean slope, first step": measured[0],
        "mean slope, steepest step": measured.max(),
        "mean slope of the rectified law, largest error": np.abs(law - measured).max(),
        "mean slope of the vanilla law, largest error": np.abs(other - measured).max(),
    } | {f"curves that do not determine {name}": float(wide.count(name)) for name in ("B", "D_l", "beta", "E")}


def of_example(found: Fitted) -> dict[str, float]:
    """Parameters of one model, its knee and its steepest point."""
    (fit,) = [fit for fit in found[1] if fit.name == EXAMPLE]
    assert fit.law is not None
    return asdict(fit.law) | {"knee": fit.law.knee, "D*": fit.law.steepest}


def shown(found: Fitted) -> Fitted:
    """The curves of `SHOWN`, or the first four where a table has none of them."""
    chosen = [i for i, curve in enumerate(found[0]) if curve.name in SHOWN] or range(4)
    curves, rectified, vanilla = found
    return [curves[i] for i in chosen], [rectified[i] for i in chosen], [vanilla[i] for i in chosen]


def records(fitted: Mapping[str, Fitted], intervals: Mapping[str, list[FitInterval | None]]) -> dict[str, list[dict]]:
    """Every fit, with its interval."""
    return {
        name: [
            {"name": law.name, "rectified": asdict(law), "vanilla": asdict(rival),
             "interval": None if interval is None else asdict(interval)}
            for law, rival, interval in zip(rectified, vanilla, intervals[name], strict=True)
        ]
        for name, (_, rectified, vanilla) in fitted.items()
    }  # fmt: skip


def made() -> list[LossCurve]:
    """Four curves that come to a floor and four that have none, 1 % noise."""
    generator, sizes = np.random.default_rng(0), 200.0 * 2 ** np.arange(14)
    laws = {
        f"{kind}, D_l = {worth:g}": Rectified(B=(3 + 0.3 * i) * worth, D_l=worth, beta=0.5, E=floor)
        for kind, floor in (("floor", 1.0), ("no floor", 0.0))
        for i, worth in enumerate((60.0, 120.0, 200.0, 300.0))
    }
    noise = np.exp(0.01 * generator.standard_normal((len(laws), len(sizes))))
    return [loss_curve(name, sizes, law.at(sizes) * noise[i]) for i, (name, law) in enumerate(laws.items())]


if __name__ == "__main__":
    main()
