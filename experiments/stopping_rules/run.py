"""When to stop, by every rule: how much risk each gives away against the best epoch.

Claim     (a) On the learning curves that kernels predict for all-MiniLM-L6-v2 (4 tasks × n = 32 … 256 × 3 seeds) and
          on the real ones where `risk_prediction` has run, the best data-driven rule has a median regret of at most
          5 %: risk at its epoch / risk at the best epoch − 1. (b) The rule of Raskutti, Wainwright & Yu is
          conservative: it stops earlier than the best epoch. (c) With a known target and known noise on the same
          kernels its bounds on squared bias, variance and risk hold at every epoch.
Source    Raskutti, Wainwright & Yu 2014, Theorem 1; Sun & Raskutti 2026, eq. 11 and T_op.
Setting   That of `risk_prediction`, whose kernels and runs are read from --runs, or computed there (kernels alone).
          Rules see the training examples only; hold-out trains on four fifths of them. Simulation: the kernel of 128
          documentation sentences; target: what gradient descent has fitted where cross-validation stops it.
Command   python -m experiments.stopping_rules.run                      (from the root of the repository)
Minutes   2 on two CPU cores when the kernels are there, 6 when not; one with --smoke
Expected  expected.toml; the section "runs" when every real run of the grid is there
"""

import argparse
import json
from pathlib import Path

import numpy as np

from experiments._check import check
from experiments._kept import claim, kept
from experiments.risk_prediction.runs import BATCH, surface
from experiments.risk_prediction.setting import REAL, SMOKE, Problem, Setting, build
from experiments.stopping_rules import figures
from experiments.stopping_rules.simulation import simulate
from ntkft.anchoring import trust_horizon
from ntkft.batched import compile_outputs
from ntkft.dynamics import (
    drift_stopping,
    gradient_descent,
    holdout_curve,
    holdout_stopping,
    nested_rows,
    spectral_rules,
)
from ntkft.plots.style import save
from ntkft.spectra import spectrum_of_matrix

FOLDER = Path(__file__).parent
HELD_OUT, PATIENCE = 0.2, 10


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Run, draw, compare with `expected.toml`, return the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/stopping_rules"))
    parser.add_argument("--runs", type=Path, default=Path("runs/risk_prediction"), help="folder of risk_prediction")
    parser.add_argument("--texts", type=Path, default=Path("../shared/data/text"), help="folder of sst2, cr and trec")
    parser.add_argument("--smoke", action="store_true", help="two small training sets of documentation sentences")
    options = parser.parse_args(arguments)
    setting = SMOKE if options.smoke else REAL
    claim(options.runs, setting)
    options.out.mkdir(parents=True, exist_ok=True)

    rows, simulated = [], []
    for name, source in setting.tasks:
        problem, folder = build(source, options.texts, pool=setting.pool, test=setting.test), options.runs / name
        record = kept(folder / "surface.json", lambda p=problem, f=folder: surface(p, setting, f))
        rows += [{"task": name} | row for row in stops(problem, setting, record, folder)]
        if name == "docs":
            simulated = simulate(problem, setting, record["step_size"], folder)
    results = summary(rows, setting) | {name: value for row in simulated for name, value in row["claims"].items()}
    save(figures.regrets(rows, setting), options.out / "regret.png")
    save(figures.plug_ins(simulated), options.out / "plug_ins.png")
    (options.out / "results.json").write_text(json.dumps({"results": results, "rows": rows, "simulated": simulated}))
    for name, value in results.items():
        print(f"{name:72} {value:.4g}")
    real = sum("real" in row["regret"] for row in rows) == len(rows)
    sections = ["smoke"] if options.smoke else ["kernels", "runs"] if real else ["kernels"]
    count = check(results, FOLDER / "expected.toml", sections)
    print(f"all {count} values as expected")
    return results


def stops(problem: Problem, setting: Setting, record: dict, folder: Path) -> list[dict]:
    """For each training set: when each rule stops, and its regret on the predicted and on the real curve."""
    whole = np.asarray(problem.kernel(problem.model.params, problem.pool, store=folder / "pool.zarr").total)
    outputs = compile_outputs(problem.model.apply_fn, BATCH)
    start = np.asarray(outputs(problem.model.params, problem.pool), np.float64)
    step_size, last, rows = record["step_size"], setting.epochs[-1], []
    for i, seed in enumerate(setting.seeds):
        for j, n in enumerate(setting.sizes):
            (chosen,) = nested_rows(len(problem.y), [n], seed)
            kernel = whole[chosen][:, :, chosen] if whole.ndim == 4 else whole[np.ix_(chosen, chosen)]
            y, f = problem.y[chosen], start[chosen]
            rules = spectral_rules(
                spectrum_of_matrix(kernel, precision="float32"), y - f, step_size=step_size, epochs=last
            )
            held = holdout_curve(
                kernel, y, f, fraction=HELD_OUT, seed=seed, spectral_filter=gradient_descent(step_size),
                steps=np.arange(last + 1),
            )  # fmt: skip
            epochs = dict(rules.epochs) | {"hold-out": float(holdout_stopping(held.values, PATIENCE).best)}
            predicted = np.asarray(record["mse"][i][j])
            curves = {"predicted": (np.arange(last + 1), predicted)}
            if (anchored := folder / f"anchored-{n}-{seed}.json").is_file():
                risk = np.asarray(json.loads(anchored.read_text())["mse"])
                seen = trust_horizon(setting.epochs, predicted[list(setting.epochs)], risk, tolerance=0.015)
                epochs["T_op, measured drift"] = drift_stopping(
                    seen.epochs, np.abs(seen.first_order - seen.anchored), step_size=step_size,
                    constant=rules.norm.corrected**2 / np.e, last=np.inf,
                )  # fmt: skip
            if (real := folder / f"real-{n}-{seed}.json").is_file():
                run = json.loads(real.read_text())
                curves["real"] = (np.asarray(run["epochs"]), np.asarray(run["mse"]))
            regret = {
                which: {rule: regret_of(epoch, *curve) for rule, epoch in epochs.items()}
                for which, curve in curves.items()
            }
            best = {which: float(times[np.argmin(risk)]) for which, (times, risk) in curves.items()}
            rows.append({"n": n, "seed": seed, "epochs": epochs, "best": best, "sigma": rules.sigma, "regret": regret})
    return rows


def regret_of(epoch: float, times: np.ndarray, risk: np.ndarray) -> float:
    """Risk at an epoch / lowest risk − 1; between recorded epochs by straight lines, past the last as at the last."""
    return float(np.interp(min(epoch, times[-1]), times, risk) / risk.min() - 1)


def summary(rows: list[dict], setting: Setting) -> dict[str, float]:
    """Median regret of each rule on both kinds of curve, and how early the theory's rule is."""
    found = {}
    for which in ("predicted", "real"):
        some = [row for row in rows if which in row["regret"]]
        medians = {
            rule: 100 * float(np.median([row["regret"][which][rule] for row in some if rule in row["regret"][which]]))
            for rule in (some[0]["regret"][which] if some else {})
        }
        found |= {f"{which}: median regret of {rule}, %": value for rule, value in medians.items()}
        if medians:
            found[f"{which}: median regret of the best rule, %"] = min(medians.values())
            early = [row["best"][which] / max(row["epochs"]["rule, C_H plug-in"], 1) for row in some]
            found[f"{which}: best epoch / the rule's with C_H, median"] = float(np.median(early))
    return found


if __name__ == "__main__":
    main()
