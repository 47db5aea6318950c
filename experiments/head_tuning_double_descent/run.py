"""Head tuning over the width of the representation: double descent, and what token probabilities let a head read.

Claim     (a) On a Gaussian hidden Markov model the excess risk of the tuned head is what theory says: for p ≤ n − 2 in
          four standard errors of Monte Carlo, for p > n with |p − n| ≥ n/2 within 4 % and four standard errors.
          (b) The excess risk is lowest at p → 0 ("sweet spot at zero"), but the total risk has an ordinary U below
          p = n, and beyond p = n it falls below that valley. (c) The best penalty removes the peak. (d) On a discrete
          model a linear head on masked-token probabilities recovers a function of the hidden state exactly when the
          emission matrix has rank m, and then it needs m examples; of lower rank it peaks where n is the rank.
Source    Luo, Wang & Huang 2024, arXiv 2410.00699, for the question (a, b), not for numbers; Hastie et al. 2022 for the
          limit; Wei, Xie & Ma 2021, arXiv 2106.09226, for (d).
Setting   (a–c) n = 100, d = 8, ρ = .9, σ_u = 1, W with standard normal entries, drawn once for each width. (d) m = 16
          states, 64 tokens, transitions of four permutations, sequences of 16 tokens, position 8 masked.
Command   python -m experiments.head_tuning_double_descent.run           (from the root of the repository)
Minutes   1 on two CPU cores; seconds with --smoke
Expected  expected.toml
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from experiments._check import check
from experiments.head_tuning_double_descent import figures
from ntkft.hmm import (
    HeadRisk,
    SimulatedRisk,
    complexity_sweep,
    fit_head,
    forward_backward,
    permutation_hmm,
    recovering_head,
    rotating_hmm,
    sample_tokens,
    simulate_head,
    token_probabilities,
    width_grid,
)
from ntkft.plots.hmm import risk_over_width
from ntkft.plots.style import save

FOLDER = Path(__file__).parent
MODEL = {"d": 8, "rho": 0.9, "sigma_u": 1.0}
DISCRETE = {"states": 16, "tokens": 64, "permutations": 4, "sharpness": 2.0}
LENGTH, MASKED, TEST = 16, 8, 2000
REAL = {"n": 100, "widths": (8, 32, 80, 110, 200, 400, 1600), "reps": 400, "penalties": 41, "ranks": (16, 12, 8, 4),
        "examples": (2, 3, 4, 6, 8, 10, 12, 14, 15, 16, 17, 20, 32, 64, 256), "draws": 20}  # fmt: skip
SMOKE = {"n": 20, "widths": (4, 12, 50), "reps": 200, "penalties": 9, "ranks": (16, 8),
         "examples": (8, 16, 64), "draws": 3}  # fmt: skip


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Run, draw, compare with `expected.toml`, return the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/head_tuning_double_descent"))
    parser.add_argument("--smoke", action="store_true", help="a fifth of the examples, three widths, two ranks")
    options = parser.parse_args(arguments)
    setting = SMOKE if options.smoke else REAL
    options.out.mkdir(parents=True, exist_ok=True)

    n, widths = setting["n"], setting["widths"]
    theory = complexity_sweep(widths, n=n, ridge=0, seed=0, **MODEL)
    simulated = [simulate_head(rotating_hmm(p=p, seed=0, **MODEL), n, 0, reps=setting["reps"], seed=0) for p in widths]
    grid = sorted({*width_grid(n, max(widths)), *widths, *range(1, n - 1)})
    curve = complexity_sweep(grid, n=n, ridge=0, seed=0, **MODEL)
    tuned = penalised(grid, setting)
    rows = [row for rank in setting["ranks"] for row in discrete(rank, setting)]
    results = agreement(theory, simulated) | shape(curve, tuned) | recovery(rows)
    constants = f"d = {MODEL['d']}, ρ = {MODEL['rho']:g}, σ_u = {MODEL['sigma_u']:g}, seed 0"
    save(risk_over_width(curve, simulated, constants), options.out / "risk.png")
    save(figures.penalties(curve, tuned), options.out / "penalties.png")
    save(figures.ranks(rows), options.out / "ranks.png")
    record = {"results": results, "theory": [asdict(risk) for risk in theory], "rows": rows}
    record["simulated"] = [asdict(each) for each in simulated]
    (options.out / "results.json").write_text(json.dumps(record, indent=1))
    for name, value in results.items():
        print(f"{name:72} {value:.4g}")
    count = check(results, FOLDER / "expected.toml", ["smoke" if options.smoke else "real"])
    print(f"all {count} values as expected")
    return results


def agreement(theory: list[HeadRisk], simulated: list[SimulatedRisk]) -> dict[str, float]:
    """Theory against Monte Carlo at every width, and the worst of each regime."""
    found, exact, limit = {}, [0.0], [0.0]
    for risk, drawn in zip(theory, simulated, strict=True):
        found[f"p = {risk.p}: excess risk, theory"] = risk.excess
        found[f"p = {risk.p}: excess risk, Monte Carlo / theory"] = drawn.excess / risk.excess
        apart, error = abs(drawn.excess - risk.excess), drawn.standard_error
        if risk.regime == "classical":
            exact.append(apart / error)
        elif risk.p - risk.n >= risk.n / 2:
            limit.append(100 * (apart - 4 * error) / risk.excess)
    found["p ≤ n − 2: largest difference, standard errors"] = max(exact)
    found["p ≥ 3n/2: largest difference beyond four standard errors, %"] = max(limit)
    return found


def penalised(grid: list[int], setting: dict) -> list[HeadRisk]:
    """At every width the risk with the best of the penalties."""
    n, ridges = setting["n"], np.geomspace(1e-3, 10, setting["penalties"])
    sweeps = [complexity_sweep(grid, n=n, ridge=ridge, seed=0, **MODEL) for ridge in ridges]
    return [min(column, key=lambda risk: risk.excess) for column in zip(*sweeps, strict=True)]


def shape(curve: list[HeadRisk], tuned: list[HeadRisk]) -> dict[str, float]:
    """Where excess and total risk are lowest, with and without a penalty."""
    below = [risk for risk in curve if risk.p <= risk.n - 2]
    valley, wide = min(below, key=lambda risk: risk.total), curve[-1]
    excess, total = [risk.excess for risk in tuned], [risk.total for risk in tuned]
    return {
        "p below n with the lowest excess risk": min(below, key=lambda risk: risk.excess).p,
        "p below n with the lowest total risk": valley.p,
        "total risk in the valley": valley.total,
        "total risk at the largest width": wide.total,
        "total risk, largest width / valley": wide.total / valley.total,
        "best penalty: largest excess risk of any width": max(excess),
        "best penalty: largest rise of the total risk with width, %": 100 * float(np.max(np.diff(total) / total[:-1])),
    }


def discrete(rank: int, setting: dict) -> list[dict[str, float]]:
    """Relative test error of heads tuned to read random functions of the masked state, for each number of examples.

    Medians and worst cases over functions: near n = rank a mean is that of its largest error.
    """
    model = permutation_hmm(**DISCRETE, distinct=rank, seed=0)
    most = max(setting["examples"])
    tokens = sample_tokens(model, setting["draws"] * most + TEST, LENGTH, seed=1)
    posterior = forward_backward(model, tokens).masked[:, MASKED]
    features = token_probabilities(model, posterior[:, None])[:, 0]
    functions = np.random.default_rng(2).standard_normal((DISCRETE["states"], setting["draws"]))
    functions -= functions.mean(axis=0)
    targets = posterior @ functions
    rows = []
    for n in setting["examples"]:
        errors, accuracies = [], []
        for draw in range(setting["draws"]):
            chosen, target = slice(draw * most, draw * most + n), targets[:, [draw]]
            fitted, truth = features[-TEST:] @ fit_head(features[chosen], target[chosen], 0), target[-TEST:]
            errors.append(np.sum(np.square(fitted - truth)) / np.sum(np.square(truth)))
            accuracies.append(np.mean((fitted > 0) == (truth > 0)))
        residual = float(np.mean([recovering_head(model.emission, function).residual for function in functions.T]))
        rows.append({"rank": rank, "n": n, "error": float(np.median(errors)), "worst": float(np.max(errors)),
                     "accuracy": float(np.mean(accuracies)), "residual": residual})  # fmt: skip
    return rows


def recovery(rows: list[dict[str, float]]) -> dict[str, float]:
    """Errors with the most examples for each rank, and with just as many examples as states for the full one."""
    found, m, most = {}, DISCRETE["states"], max(row["n"] for row in rows)
    for row in rows:
        if row["n"] == most:
            found[f"rank {row['rank']} of {m}: relative test error"] = row["error"]
            found[f"rank {row['rank']} of {m}: accuracy of the sign"] = row["accuracy"]
        if (row["rank"], row["n"]) == (m, m):
            found[f"rank {m} of {m}, {m} examples: largest relative test error"] = row["worst"]
    for rank in sorted({row["rank"] for row in rows} - {m}):
        peak = max((row for row in rows if row["rank"] == rank), key=lambda row: row["error"])
        found[f"rank {rank} of {m}: examples with the largest error"] = peak["n"]
    return found


if __name__ == "__main__":
    main()
