"""When should kernel gradient descent stop? The data-dependent rule against SURE, GCV, hold-out and the oracle.

Claim     The stopping time T̂ = min{t : R̂_K(1/√η_t) > 1/(2eσ η_t)} − 1, which reads nothing but the eigenvalues and the
          noise, gives a risk within a constant of the best epoch's, and grows like n^{2/3}, as the optimal rate
          n^{−2/3} asks. It is conservative: it stops 2–10 times earlier than the best epoch.
Source    Raskutti, Wainwright & Yu 2014, JMLR 15:335–366, Theorem 1 and the simulations with the first Sobolev kernel.
Setting   𝕂(x, x′) = min(x, x′) on x_i = i/n, ‖f*‖_H = 1, Gaussian noise σ, step size ¼, full-batch gradient descent.
Command   python -m experiments.early_stopping_sobolev.run          (from the root of the repository)
Minutes   1–2 on two CPU cores; seconds with --smoke
Expected  expected.toml: stopping times, critical radii and risks at n = 100 to every digit; the simulation within its
          Monte-Carlo error.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments._check import check
from ntkft.dynamics import (
    bias_variance,
    dual_coefficients,
    estimate_noise,
    gcv,
    gradient_descent,
    holdout_curve,
    holdout_stopping,
    outputs_at,
    stopping_time,
    sure,
)
from ntkft.spectra import Spectrum, critical_radius, spectrum_of_matrix

FOLDER = Path(__file__).parent
STEP_SIZE = 0.25
DESCENT = gradient_descent(STEP_SIZE)
RULES = {  # name: colour, marker, size
    "rule": ("#c0392b", "o", 9),
    "rule, σ estimated": ("#f0b27a", "D", 4),
    "oracle": ("#1e8449", "o", 9),
    "SURE": ("#2471a3", "^", 6),
    "GCV": ("#5dade2", "v", 6),
    "hold-out": ("#7d3c98", "s", 5),
}


@dataclass(frozen=True)
class Settings:
    """One run. Hold-out measures on a fifth of the examples and waits for 20 evaluations without progress."""

    sizes: tuple[int, ...] = (50, 100, 200, 400)
    sigmas: tuple[float, ...] = (0.1, 0.3, 1.0)
    draws: int = 50  # of the noise, for every size and σ
    last_epoch: int = 20_000  # of the curves; the best epoch is looked for among the first 3,000
    holdout_fraction: float = 0.2
    patience: int = 20
    seed: int = 0


SMOKE = Settings(sizes=(50, 100), draws=3, last_epoch=2_000)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Run, write results.json and figure.png, and return the results once they are what expected.toml promises."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/early_stopping_sobolev"), help="folder of the results")
    parser.add_argument("--smoke", action="store_true", help="two sizes and three draws: seconds")
    options = parser.parse_args(arguments)
    settings = SMOKE if options.smoke else Settings()
    refuse_other_run(options.out / "results.json", settings)

    rows = [simulate(n, sigma, settings) for n in settings.sizes for sigma in settings.sigmas]
    results = anchors() | summary(rows, settings)

    options.out.mkdir(parents=True, exist_ok=True)
    record = {"settings": asdict(settings), "results": results, "rows": rows}
    (options.out / "results.json").write_text(json.dumps(record, ensure_ascii=False) + "\n")
    draw(rows, settings).savefig(options.out / "figure.png", dpi=150)
    sections = ("anchors",) if options.smoke else ("anchors", "simulation")
    count = check(results, FOLDER / "expected.toml", sections)
    print(f"{count} values as expected; {options.out / 'results.json'}, {options.out / 'figure.png'}")
    return results


def refuse_other_run(path: Path, settings: Settings) -> None:
    """Leave the results of other settings alone."""
    if path.exists() and json.loads(path.read_text())["settings"] != json.loads(json.dumps(asdict(settings))):
        raise SystemExit(f"{path} holds a run with other settings; choose another --out or remove the folder")


def problem(n: int) -> tuple[np.ndarray, Spectrum, np.ndarray]:
    """Kernel, spectrum and target on the grid of n points."""
    x = np.arange(1, n + 1) / n
    kernel = np.minimum.outer(x, x)
    return kernel, spectrum_of_matrix(kernel, precision="float64"), np.abs(x - 0.5) - 0.5


def anchors() -> dict[str, float]:
    """What is exact at n = 100: eigenvalues, stopping times, critical radii, expected risk at rule and oracle."""
    _, spectrum, target = problem(100)
    values = spectrum.eigenvalues
    found = {f"eigenvalue {j + 1}": float(values[j]) for j in range(5)}
    for sigma in (0.1, 1.0):
        risk = bias_variance(spectrum, target, sigma, DESCENT, np.arange(2_000)).risk
        stop = int(stopping_time(values, sigma, STEP_SIZE))
        found |= {
            f"stopping time, σ = {sigma:g}, step 0.25": stop,
            f"stopping time, σ = {sigma:g}, step 1": stopping_time(values, sigma, 1.0),
            f"squared critical radius, σ = {sigma:g}": critical_radius(values, sigma) ** 2,
            f"oracle epoch, σ = {sigma:g}": risk.best,
            f"risk at the rule, σ = {sigma:g}": float(risk.values[stop]),
            f"risk at the oracle, σ = {sigma:g}": float(risk.values.min()),
        }
    return found


def simulate(n: int, sigma: float, settings: Settings) -> dict:
    """Epoch that every rule picks and the risk it then has, for each draw of the noise; curves for the figure."""
    kernel, spectrum, target = problem(n)
    stop = int(stopping_time(spectrum.eigenvalues, sigma, STEP_SIZE))
    # Every early epoch, then a geometric grid: risk is flat at late epochs.
    steps = np.unique(np.geomspace(1, settings.last_epoch, 400).round().astype(int))
    exact = bias_variance(spectrum, target, sigma, DESCENT, steps)
    oracle = bias_variance(spectrum, target, sigma, DESCENT, np.arange(3_000)).risk.best
    generator = np.random.default_rng([settings.seed, n, round(1000 * sigma)])
    noise = sigma * generator.standard_normal((n, settings.draws))
    risk = true_risk(kernel, spectrum, target, noise, steps)

    epochs: dict[str, list[float]] = {name: [] for name in RULES}
    for draw_index in range(settings.draws):
        y = target + noise[:, draw_index]
        by_gcv = gcv(spectrum, y, DESCENT, steps).best
        held_out = holdout_curve(
            kernel,
            y,
            np.zeros(n),
            fraction=settings.holdout_fraction,
            seed=draw_index,
            spectral_filter=DESCENT,
            steps=steps,
        )
        estimated = stopping_time(spectrum.eigenvalues, estimate_noise(spectrum, y, DESCENT, by_gcv), STEP_SIZE)
        epochs["rule"].append(stop)
        epochs["rule, σ estimated"].append(float(estimated))
        epochs["SURE"].append(sure(spectrum, y, sigma, DESCENT, steps).best)
        epochs["GCV"].append(by_gcv)
        epochs["hold-out"].append(float(steps[holdout_stopping(held_out.values, settings.patience).best]))
        epochs["oracle"].append(oracle)
    # The nearest epoch of the grid, at most 1.3 % away, where the risk is the same to four digits.
    nearest = {
        name: np.abs(np.log(steps[None] / np.asarray(picked)[:, None])).argmin(axis=1)
        for name, picked in epochs.items()
    }
    return {
        "n": n,
        "sigma": sigma,
        "epochs": epochs,
        "risks": {name: risk[rows, np.arange(settings.draws)].tolist() for name, rows in nearest.items()},
        "curves": {
            "steps": steps.tolist(),
            "bias2": exact.bias2.tolist(),
            "variance": exact.variance.tolist(),
            "low": np.quantile(risk, 0.1, axis=1).tolist(),
            "high": np.quantile(risk, 0.9, axis=1).tolist(),
        },
    }


def true_risk(
    kernel: np.ndarray, spectrum: Spectrum, target: np.ndarray, noise: np.ndarray, steps: np.ndarray
) -> np.ndarray:
    """‖f_t − f*‖²_n at every step for every draw, [s, draws]: the draws are outputs that share one kernel."""
    dual = dual_coefficients(spectrum, target[:, None] + noise, DESCENT, steps)
    return np.mean((outputs_at(kernel, dual, np.zeros_like(noise)) - target[None, :, None]) ** 2, axis=1)


def summary(rows: list[dict], settings: Settings) -> dict[str, float]:
    """How much risk each rule loses to the oracle, how early the rule stops, and how its stopping time grows with n."""
    ratios = {name: [np.mean(row["risks"][name]) / np.mean(row["risks"]["oracle"]) for row in rows] for name in RULES}
    factors = [row["epochs"]["oracle"][0] / row["epochs"]["rule"][0] for row in rows]
    times = [row["epochs"]["rule"][0] for row in rows if row["sigma"] == min(settings.sigmas)]
    return {f"risk over the oracle's, {name}": float(np.mean(ratios[name])) for name in RULES if name != "oracle"} | {
        "risk over the oracle's, rule, largest": float(max(ratios["rule"])),
        "oracle epoch over the rule's, smallest": min(factors),
        "oracle epoch over the rule's, largest": max(factors),
        "exponent of the stopping time in n": float(np.polyfit(np.log(settings.sizes), np.log(times), 1)[0]),
    }


def draw(rows: list[dict], settings: Settings) -> Figure:
    """Risk over epochs with every rule marked, risk over n, and how early the rule is."""
    figure, axes = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    for axis, sigma in zip(axes[0], (max(settings.sigmas), min(settings.sigmas)), strict=True):
        draw_epochs(axis, next(row for row in rows if row["n"] == 100 and row["sigma"] == sigma))
    draw_sizes(axes[1, 0], rows, settings)
    draw_earliness(axes[1, 1], rows, settings)
    figure.suptitle("Early stopping of kernel gradient descent: first Sobolev kernel, f* = |x − ½| − ½, step size ¼")
    return figure


def draw_epochs(axis: Axes, row: dict) -> None:
    curves = {name: np.asarray(values) for name, values in row["curves"].items()}
    steps, risk = curves["steps"], curves["bias2"] + curves["variance"]
    axis.fill_between(steps, curves["low"], curves["high"], color="0.88", label="risk, 10–90 % of draws")
    axis.plot(steps, risk, color="black", label="expected risk")
    axis.plot(steps, curves["bias2"], color="0.4", linestyle="--", linewidth=1, label="squared bias")
    axis.plot(steps, curves["variance"], color="0.4", linestyle=":", linewidth=1, label="variance")
    for name, (colour, marker, size) in RULES.items():
        epoch = float(np.median(row["epochs"][name]))
        height = np.interp(np.log(epoch), np.log(steps), risk)
        axis.vlines(epoch, risk.min() / 4, height, color=colour, linewidth=0.8)
        axis.plot(epoch, height, marker, color=colour, markersize=size, label=f"{name}: {epoch:.0f}", linestyle="none")
    axis.set(xscale="log", yscale="log", xlim=(1, steps[-1]), ylim=(risk.min() / 4, 8 * curves["high"].max()))
    axis.set(
        xlabel="epoch t", ylabel="in-sample risk", title=f"n = {row['n']}, σ = {row['sigma']:g} (marks: median draw)"
    )
    axis.legend(fontsize=7, ncols=2, loc="upper right")


def draw_sizes(axis: Axes, rows: list[dict], settings: Settings) -> None:
    sigma, sizes = settings.sigmas[1], np.asarray(settings.sizes)
    for name, (colour, marker, size) in RULES.items():
        chosen = [np.asarray(row["risks"][name]) for row in rows if row["sigma"] == sigma]
        mean, error = zip(*[(risk.mean(), risk.std(ddof=1) / np.sqrt(len(risk))) for risk in chosen], strict=True)
        axis.errorbar(sizes, mean, error, color=colour, marker=marker, markersize=size, capsize=3, label=name)
    oracle = np.mean(next(row["risks"]["oracle"] for row in rows if row["sigma"] == sigma))
    axis.plot(sizes, 0.7 * oracle * (sizes / sizes[0]) ** (-2 / 3), color="0.5", linestyle="--", label="slope −2/3")
    axis.set(xscale="log", yscale="log", xlabel="examples n", ylabel="mean in-sample risk, ± 1 s.e.")
    axis.set(title=f"Risk over sample size, σ = {sigma:g}")
    axis.set_xticks(sizes, [str(n) for n in sizes], minor=False)
    axis.minorticks_off()
    axis.legend(fontsize=7)


def draw_earliness(axis: Axes, rows: list[dict], settings: Settings) -> None:
    for sigma, marker in zip(settings.sigmas, "osD^v", strict=False):
        chosen = [row for row in rows if row["sigma"] == sigma]
        factor = [row["epochs"]["oracle"][0] / row["epochs"]["rule"][0] for row in chosen]
        axis.plot(settings.sizes, factor, color=RULES["rule"][0], marker=marker, label=f"σ = {sigma:g}")
    axis.axhspan(2, 10, color="0.93", zorder=0)
    axis.axhline(1, color=RULES["oracle"][0], label="the oracle")
    axis.set(xscale="log", yscale="log", ylim=(0.8, 20), xlabel="examples n", ylabel="oracle epoch / T̂")
    axis.set(title="The rule is conservative: about 2–10 times early")
    axis.set_xticks(settings.sizes, [str(n) for n in settings.sizes], minor=False)
    axis.set_yticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
    axis.minorticks_off()
    axis.legend(fontsize=7)


if __name__ == "__main__":
    main()
