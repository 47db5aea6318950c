"""What another kernel on the way buys: schemes and readings of re-anchored prediction, against one real run.

Claim     On SST-2 (n = 64, all-MiniLM-L6-v2 with a fresh head, full-batch gradient descent, 100 epochs at 0.5/λ̂₁) (a) a
          midpoint step with four stretches, five kernels, predicts the test risk within 1 % at every recorded epoch;
          (b) Euler's, with four kernels, does not reach 2 %; (c) the lazier the model, the longer the first kernel
          holds: with its change scaled by α = 4 the first-order prediction is nearer than at α = 1.
Source    Re-anchoring is this project's; Chizat, Oyallon & Bach 2019 (c).
Setting   `REAL`: c anchors at epochs 100·(i/c)^{3/2}. Readings: the model linearised at the latest anchor, and the
          network at the parameters that it has reached. α-scaled models are trained with steps of ε/α².
Command   python -m experiments.anchoring_schemes.run                   (from the root of the repository)
Minutes   about 10 on two CPU cores, 4 GB; one with --smoke. Every record is kept in --out, and a command that was
          interrupted goes on where it was.
Expected  expected.toml
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from experiments._check import check
from experiments._kept import claim, kept
from experiments.risk_prediction.setting import Problem, Source, build
from ntkft.anchoring import Network, predict_anchored
from ntkft.anchoring.prediction import Reading, Scheme
from ntkft.finetuning import finetune, optimizers
from ntkft.linearize import lazy
from ntkft.plots.style import BLUE, GREEN, ORANGE, SMALL, new_axes, save
from ntkft.spectra import spectrum

FOLDER = Path(__file__).parent
BATCH = 32


@dataclass(frozen=True)
class Setting:
    """One task and one training set; the pool is the training set."""

    source: Source
    pool: int
    test: int
    epochs: tuple[int, ...]
    counts: tuple[int, ...]
    scales: tuple[float, ...]
    step: float = 0.5

    def anchors(self, count: int) -> list[int]:
        """Denser at the start, where the kernel moves fastest."""
        return [round(self.epochs[-1] * (i / count) ** 1.5) for i in range(count)]


REAL = Setting(Source("sst2/train.tsv", 24), 64, 128, (0, 5, 10, 15, 20, 30, 40, 50, 60, 80, 100), (1, 2, 4), (1, 4))
SMOKE = Setting(Source("docs", 8, ("special", "stats")), 8, 16, (0, 2, 4, 6), (1, 2), (1, 4))


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Run what is not there yet, draw, compare with `expected.toml`, return the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/anchoring_schemes"))
    parser.add_argument("--texts", type=Path, default=Path("../shared/data/text"), help="folder of sst2")
    parser.add_argument("--smoke", action="store_true", help="eight documentation sentences, six epochs")
    options = parser.parse_args(arguments)
    setting = SMOKE if options.smoke else REAL
    claim(options.out, setting)

    problem = build(setting.source, options.texts, pool=setting.pool, test=setting.test)
    kernel = problem.kernel(problem.model.params, problem.pool, store=options.out / "kernel.zarr")
    step_size = setting.step / float(spectrum(kernel).eigenvalues[0])
    real = {
        f"{scale:g}": kept(
            options.out / f"real-{scale:g}.json", lambda s=scale: trained(problem, setting, step_size, s)
        )
        for scale in setting.scales
    }
    predicted = {
        (scheme, count): kept(
            options.out / f"{scheme}-{count}.json",
            lambda s=scheme, c=count: anchored(problem, setting, step_size, s, c),
        )
        for scheme in ("euler", "midpoint")
        for count in setting.counts
    }
    results = errors(predicted, real, setting)
    save(draw(predicted, real["1"]["mse"], setting), options.out / "schemes.png")
    (options.out / "results.json").write_text(json.dumps(results, indent=1))
    for name, value in results.items():
        print(f"{name:72} {value:.4g}")
    count = check(results, FOLDER / "expected.toml", ["smoke" if options.smoke else "real"])
    print(f"all {count} values as expected")
    return results


def trained(problem: Problem, setting: Setting, step_size: float, scale: float) -> dict:
    """Real test risk of the model with its change scaled by α."""
    model, params = problem.model.apply_fn, problem.model.params
    result = finetune(
        model if scale == 1 else lazy(model, params, scale),
        params,
        (problem.pool, problem.y),
        loss="squared",
        optimizer=optimizers.gradient_descent(step_size / scale**2),
        epochs=setting.epochs[-1],
        batch_size=None,
        record_at=setting.epochs,
        evaluate={"test": (problem.test, problem.y_test)},
        micro_batch=BATCH,
    ).check()
    return {"mse": np.asarray(result.curves["test"].mse).tolist()}


def anchored(problem: Problem, setting: Setting, step_size: float, scheme: Scheme, count: int) -> dict:
    """Predicted test risk in both readings (of midpoint steps the network's alone)."""
    network = Network.of(problem.model.apply_fn, problem.pool, {"test": problem.test}, micro_batch=BATCH)
    readings: tuple[Reading, ...] = ("linear", "network") if scheme == "euler" else ("network",)
    found = predict_anchored(
        network,
        problem.model.params,
        problem.y,
        problem.kernel,
        loss="squared",
        step_size=step_size,
        epochs=setting.epochs,
        anchors=setting.anchors(count),
        scheme=scheme,
        readings=readings,
    )
    outputs = {name: getattr(found, name)["test"] for name in readings}
    risk = {name: np.mean((each - problem.y_test[None]) ** 2, axis=(1, 2)).tolist() for name, each in outputs.items()}
    return {"kernels": found.kernels} | risk


def errors(predicted: dict, real: dict[str, dict], setting: Setting) -> dict[str, float]:
    """Largest relative difference over the recorded epochs, in per cent."""

    def off(mine: list[float], scale: str = "1") -> float:
        return float(100 * np.max(np.abs(np.divide(mine, real[scale]["mse"]) - 1)))

    found = {
        f"{scheme}, {record['kernels']} kernels, {reading}: largest error, %": off(record[reading])
        for (scheme, _), record in predicted.items()
        for reading in ("linear", "network")
        if reading in record
    }
    first = predicted["euler", 1]["linear"]
    found |= {f"first order, α = {scale}: largest error, %": off(first, scale) for scale in real}
    return found | {"real risk, lowest": min(real["1"]["mse"])}


def draw(predicted: dict, real: list[float], setting: Setting) -> Figure:
    """Largest error over kernels computed, a line for each scheme and reading."""
    title = f"Re-anchored prediction of all-MiniLM-L6-v2\n{setting.source.file}, n = {setting.pool}, seed 0"
    figure, axes = new_axes(title, "kernels of the training examples", "largest error of the test risk, %")
    series = (
        ("euler", "linear", ORANGE, "Euler, linearised model"),
        ("euler", "network", BLUE, "Euler, network"),
        ("midpoint", "network", GREEN, "midpoint, network"),
    )
    for scheme, reading, colour, label in series:
        records = [predicted[scheme, count] for count in setting.counts]
        off = [100 * np.max(np.abs(np.divide(record[reading], real) - 1)) for record in records]
        axes.plot([record["kernels"] for record in records], off, "o-", color=colour, label=label)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    ticks = sorted({record["kernels"] for record in predicted.values()})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_yticks([0.5, 1, 2, 4, 8], ["0.5", "1", "2", "4", "8"])
    axes.minorticks_off()
    axes.legend(fontsize=SMALL, edgecolor="none")
    return figure


if __name__ == "__main__":
    main()
