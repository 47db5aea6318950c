"""One kernel, every way of training: losses and optimisers predicted, against the linearised model and the network.

Claim     For all-MiniLM-L6-v2 with a fresh head of three outputs, 32 documentation sentences, 16 epochs, one kernel
          predicts the test loss under gradient descent on the squared loss and on the cross-entropy, with momentum,
          with weight decay towards the pretrained parameters, and in minibatches of 8: (a) for the linearised model
          trained the same way to 0.001 % at every recorded epoch (minibatches: 3 %, since the formula draws every batch
          afresh and training takes each example once an epoch); (b) for the network itself to 5 % over the first 6
          epochs; (c) what each rule changes against plain gradient descent is predicted in sign, and in size to 45 %.
Source    Jacot, Gabriel & Hongler 2018 (kernel gradient); the formulas are those of `ntkft.dynamics.descent` and
          `ntkft.dynamics.minibatch`. Training by signs is judged in `experiments/kernel_behaviour`.
Setting   `REAL`. Steps in units of 1/λ̂₁ of the full kernel.
Command   python -m experiments.training_rules.run                      (from the root of the repository)
Minutes   about 5 on two CPU cores, 3 GB; one with --smoke. Every record is kept in --out, and a command that was
          interrupted goes on where it was.
Expected  expected.toml
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.figure import Figure

from experiments._check import check
from experiments._kept import claim, kept
from experiments.risk_prediction.setting import Problem, Source, build
from ntkft._types import ApplyFn
from ntkft.batched import compile_outputs
from ntkft.dynamics import expected_error, kernel_descent, minibatch_descent, outputs_at
from ntkft.finetuning import Optimizer, finetune, optimizers
from ntkft.finetuning.losses import measure
from ntkft.linearize import linearize
from ntkft.plots.style import BLUE, GREY, ORANGE, SMALL, new_grid, save
from ntkft.spectra import spectrum

FOLDER = Path(__file__).parent
BATCH = 32


@dataclass(frozen=True)
class Rule:
    """A way of training; step and penalty in units that λ̂₁ sets: ε = step/λ̂₁, λ = penalty·λ̂₁."""

    name: str
    loss: Literal["squared", "cross_entropy"]
    step: float
    momentum: float = 0.0
    penalty: float = 0.0
    batch_size: int | None = None


@dataclass(frozen=True)
class Setting:
    """One task and one training set; the pool is the training set."""

    source: Source
    pool: int
    test: int
    epochs: tuple[int, ...]
    early: int
    """The last of the epochs over which the network is held to the kernel of its start."""
    seeds: int
    """Orders of minibatches that the expectation is compared with."""
    rules: tuple[Rule, ...]


def rules(batch_size: int) -> tuple[Rule, ...]:
    """Plain gradient descent first; what the others change is told against it, on the same loss."""
    return (
        Rule("gradient descent", "squared", 0.5),
        Rule("momentum 0.9", "squared", 0.05, momentum=0.9),
        Rule("weight decay", "squared", 0.5, penalty=0.1),
        Rule(f"minibatches of {batch_size}", "squared", 0.25, batch_size=batch_size),
        Rule("cross-entropy", "cross_entropy", 1.0),
    )


LABELS = ("linalg", "special", "stats")
REAL = Setting(Source("docs", 16, LABELS), 32, 96, (0, 1, 2, 4, 6, 8, 12, 16), 6, 8, rules(8))
SMOKE = Setting(Source("docs", 8, LABELS), 6, 9, (0, 1, 2), 2, 1, (rules(3)[0], rules(3)[-1]))


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Run what is not there yet, draw, compare with `expected.toml`, return the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/training_rules"))
    parser.add_argument("--smoke", action="store_true", help="six documentation sentences, two epochs")
    options = parser.parse_args(arguments)
    setting = SMOKE if options.smoke else REAL
    claim(options.out, setting)

    problem = build(setting.source, Path(), pool=setting.pool, test=setting.test)
    prediction = kept(options.out / "predicted.json", lambda: predicted(problem, setting, options.out))
    largest = prediction["largest_eigenvalue"]
    params, network = problem.model.params, problem.model.apply_fn
    models: dict[str, ApplyFn] = {"linearised": linearize(network, params), "network": network}
    curves = {
        rule.name: {"predicted": np.array(prediction[rule.name])}
        | {
            kind: np.array(
                kept(
                    options.out / f"{kind}-{rule.name.replace(' ', '-')}.json",
                    lambda m=model, r=rule: {"loss": trained(problem, setting, m, r, largest)},
                )["loss"]
            )
            for kind, model in models.items()
        }
        for rule in setting.rules
    }
    results = differences(curves, setting)
    save(draw(curves, setting), options.out / "rules.png")
    (options.out / "results.json").write_text(json.dumps(results, indent=1))
    for name, value in results.items():
        print(f"{name:72} {value:.4g}")
    count = check(results, FOLDER / "expected.toml", ["smoke" if options.smoke else "real"])
    print(f"all {count} values as expected")
    return results


def predicted(problem: Problem, setting: Setting, out: Path) -> dict:
    """Test loss under every rule, from one kernel of the training examples and one with the test examples."""
    model, params = problem.model.apply_fn, problem.model.params
    kernel = problem.kernel(params, problem.pool, store=out / "kernel.zarr")
    cross = np.asarray(problem.kernel(params, problem.test, problem.pool, store=out / "cross.zarr").total)
    outputs = compile_outputs(model, BATCH)
    start, start_test = outputs(params, problem.pool), outputs(params, problem.test)
    largest = float(spectrum(kernel).eigenvalues[0])
    found: dict = {"largest_eigenvalue": largest}
    for rule in setting.rules:
        step_size = rule.step / largest
        if rule.batch_size is not None:
            updates = -(-setting.pool // rule.batch_size) * np.array(setting.epochs)
            descent = minibatch_descent(
                kernel, problem.y, start, batch_size=rule.batch_size, replace=False, step_size=step_size, steps=updates
            )
            found[rule.name] = (expected_error(descent, cross, problem.y_test, start_test).total / 2).tolist()
            continue
        dual = kernel_descent(
            kernel,
            targets(rule, problem.y),
            start,
            loss=rule.loss,
            step_size=step_size,
            momentum=rule.momentum,
            penalty=rule.penalty * largest,
            steps=setting.epochs,
        )
        wanted = targets(rule, problem.y_test)
        at_epochs = outputs_at(cross, dual, start_test)
        found[rule.name] = [float(measure(each, wanted, rule.loss)["loss"]) for each in at_epochs]
    return found


def trained(problem: Problem, setting: Setting, model: ApplyFn, rule: Rule, largest: float) -> list[list[float]]:
    """Test loss of real training by epoch, a row for each order of minibatches."""
    curves = []
    for seed in range(setting.seeds if rule.batch_size else 1):
        result = finetune(
            model,
            problem.model.params,
            (problem.pool, targets(rule, problem.y)),
            loss=rule.loss,
            optimizer=optimizer(rule, problem, largest),
            epochs=setting.epochs[-1],
            batch_size=rule.batch_size,
            seed=seed,
            record_at=setting.epochs,
            evaluate={"test": (problem.test, targets(rule, problem.y_test))},
            micro_batch=BATCH,
        ).check()
        curves.append(np.asarray(result.curves["test"].loss).tolist())
    return curves


def optimizer(rule: Rule, problem: Problem, largest: float) -> Optimizer:
    """The rule for real parameters."""
    step_size = rule.step / largest
    if rule.momentum:
        return optimizers.momentum(step_size, rule.momentum)
    return optimizers.l2_sp(step_size, rule.penalty * largest, problem.model.params)


def targets(rule: Rule, one_hot: np.ndarray) -> np.ndarray:
    """As the loss of the rule wants them."""
    return np.argmax(one_hot, axis=1) if rule.loss == "cross_entropy" else one_hot


def differences(curves: dict, setting: Setting) -> dict[str, float]:
    """Largest relative errors over the recorded epochs in per cent, and what each rule changes at the last."""
    found: dict[str, float] = {}
    early = np.array(setting.epochs) <= setting.early

    def mean(rule: Rule, kind: str) -> np.ndarray:
        return np.atleast_2d(curves[rule.name][kind]).mean(axis=0)

    plain, *others = setting.rules
    for rule in setting.rules:
        for kind in ("linearised", "network"):
            off = 100 * np.abs(mean(rule, "predicted") / mean(rule, kind) - 1)
            found[f"{rule.name}, {kind}: largest error, %"] = float(off.max())
        found[f"{rule.name}, network: largest error to epoch {setting.early}, %"] = float(off[early].max())
    for rule in others:
        if rule.loss == plain.loss:
            change, real = ((mean(rule, kind) - mean(plain, kind))[-1] for kind in ("predicted", "network"))
            found[f"{rule.name}: change of the last loss, predicted / network"] = float(change / real)
    return found


def draw(curves: dict, setting: Setting) -> Figure:
    """Test loss over epochs: axes for each rule; of minibatches every order is drawn."""
    title = (
        f"Test loss predicted from one kernel, and trained\nall-MiniLM-L6-v2, documentation sentences in "
        f"{len(LABELS)} classes, n = {setting.pool}, seed 0"
    )
    figure, grid = new_grid(title, 2, 3)
    cells = [cell for row in grid for cell in row]
    for axes, rule in zip(cells, setting.rules, strict=False):
        mine = curves[rule.name]
        for curve in mine["network"]:
            axes.plot(setting.epochs, curve, color=ORANGE, linewidth=1 if rule.batch_size else 2, label="network")
        axes.plot(
            setting.epochs, mine["linearised"].mean(axis=0), color=GREY, linewidth=4, alpha=0.6, label="linearised"
        )
        axes.plot(setting.epochs, mine["predicted"], "--", color=BLUE, linewidth=1.5, label="predicted")
        unit = "nats" if rule.loss == "cross_entropy" else "½ squared error"
        axes.set_title(f"{rule.name}, {unit}", fontsize=SMALL, loc="left")
        axes.set_xlabel("epoch")
        axes.tick_params(labelbottom=True)
    for row in grid:
        row[0].set_ylabel("test loss")
    for axes in cells[len(setting.rules) :]:
        axes.axis("off")
    handles, labels = cells[0].get_legend_handles_labels()
    cells[-1].legend(handles, labels, fontsize=SMALL, edgecolor="none", loc="center")
    return figure


if __name__ == "__main__":
    main()
