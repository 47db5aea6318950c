"""What is computed for a cell, each kept in a file once done: predictions from two kernels, and real runs.

Every record states what it cost: `cpu`, processor seconds; `compile`, seconds of the clock in the compiler; and
`operations`, counted:

    training    6·P·t·n an epoch, and 2·P·t·v for every look at the v validation examples
    a kernel    its contractions, as its plans count them; (3 + k)·2·P·t for every example that is differentiated, n for
                that of the training examples, 2n + v for that with the validation examples too (outputs, forward twice,
                k times back); 9 (nk)³ for eigenvalues

P parameters outside the embeddings, t tokens of an example. Test examples are looked at for the truth, and not counted:
`judged` is the share of a run's operations that count.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import optax

from experiments.ntk_selection.setting import Setting
from experiments.pretrain.checkpoints import Checkpoint
from experiments.pretrain.kernels import training_columns
from experiments.pretrain.tasks import Rows
from ntkft.batched import compile_outputs
from ntkft.dynamics import per_output
from ntkft.finetuning import FinetuneResult, Optimizer, finetune
from ntkft.kernels import Plan, empirical_ntk
from ntkft.models import Model
from ntkft.report.cost import timed
from ntkft.report.prediction import Problem
from ntkft.report.ranking import Judge, KernelRisk, kernel_risk
from ntkft.scaling import residual_left
from ntkft.spectra import spectrum_of_matrix

MEMORY = "2GB"
BATCH = 32
ADAMW_BATCH, DECAY = 16, 0.01
PASSED = 1.4
"""A run has passed its best epoch when it is this many times as old."""
HEAD = "head"


def predict(model: Model, rows: Rows, checkpoint: Checkpoint, setting: Setting) -> dict[str, Any]:
    """Risk on the validation examples by epoch, from the kernel over training and validation examples.

    curve: of kernel gradient descent, epochs 0, 1, …; head: the lowest such risk with all but the head frozen;
    left: the share of the training residual left after `setting.time` steps; step_size: ε
    """
    (problem, plans), spent = timed(lambda: problem_of(model, rows))
    risk, more = timed(lambda: risk_of(checkpoint.size, problem, "validation", setting))
    n = problem.sizes["train"]  # training examples are differentiated for either block
    return {
        "curve": risk.curve.tolist(),
        "epoch": risk.epoch,
        "accuracy": risk.accuracy,
        "step_size": risk.step_size,
        "head": probe(problem, setting).risk,
        "left": left(problem, risk.step_size, setting),
        "plan": [str(plan) for plan in plans],
        "cpu": spent.cpu + more.cpu,
        "compile": spent.compile + more.compile,
        "operations": _kernel_operations(problem, plans, n + len(problem.targets), checkpoint, rows),
        "judged": 1.0,
    }


def estimate(model: Model, rows: Rows, checkpoint: Checkpoint, setting: Setting) -> dict[str, Any]:
    """Generalised cross-validation by epoch, from the kernel of the training examples alone.

    curve: of kernel gradient descent, epochs 0, 1, …; step_size: ε, as that of `predict`
    """

    def work() -> tuple[Problem, Plan, KernelRisk]:
        train, y = rows.part("train")
        kernel = empirical_ntk(model.apply_fn, model.params, train, outputs=rows.outputs, memory=MEMORY)
        pretrained = np.asarray(compile_outputs(model.apply_fn, BATCH)(model.params, train), np.float64)
        problem = Problem(kernel, {"train": len(y), "validation": 0, "test": 0}, y, pretrained)
        return problem, kernel.plan, risk_of(checkpoint.size, problem, "gcv", setting)

    (problem, plan, risk), spent = timed(work)
    return {
        "curve": risk.curve.tolist(),
        "epoch": risk.epoch,
        "step_size": risk.step_size,
        "plan": str(plan),
        "cpu": spent.cpu,
        "compile": spent.compile,
        "operations": _kernel_operations(problem, [plan], len(problem.targets), checkpoint, rows),
        "judged": 1.0,
    }


def problem_of(model: Model, rows: Rows) -> tuple[Problem, tuple[Plan, ...]]:
    """The exact kernel of training and validation examples with the training ones, the head's beside it, and its plans.

    A prediction looks at no other columns. No label of a test example.
    """
    sizes = {**rows.sizes, "test": 0}
    inputs, y = rows.first(sum(sizes.values()))
    groups = {
        HEAD: model.groups[HEAD],
        "body": "|".join(regex for name, regex in model.groups.items() if name != HEAD),
    }
    kernel, plans = training_columns(model, rows, rows.where("validation"), groups=groups, memory=MEMORY)
    pretrained = np.asarray(compile_outputs(model.apply_fn, BATCH)(model.params, inputs), np.float64)
    return Problem(kernel, sizes, y, pretrained), plans


def risk_of(name: str, problem: Problem, judge: Judge, setting: Setting) -> KernelRisk:
    """Kernel gradient descent at the setting's step and epochs."""
    return kernel_risk(name, problem, judge=judge, step=setting.step, epochs=setting.epochs)


def probe(problem: Problem, setting: Setting) -> KernelRisk:
    """The linear probe: features stay as they are, so the kernel is the head's."""
    head = replace(problem.kernel, total=problem.kernel.groups[HEAD], groups={})
    return risk_of("probe", replace(problem, kernel=head), "validation", setting)


def left(problem: Problem, step_size: float, setting: Setting) -> float:
    """F of the NTK-informed law; the time step_size·steps is the same for all cells in units of 1/λ̂₁."""
    train = per_output(problem.block("train"), problem.targets.shape[1])
    spectrum = spectrum_of_matrix(np.asarray(train), precision=problem.kernel.precision)
    residual = (problem.targets - problem.pretrained)[problem.rows("train")]
    return residual_left(spectrum, residual, step_size=step_size, steps=setting.time)


def descend(model: Model, rows: Rows, checkpoint: Checkpoint, setting: Setting, step_size: float) -> dict[str, Any]:
    """Full-batch gradient descent until it has passed its best epoch on the validation examples."""
    optimizer, n = with_rate("gradient_descent", optax.sgd, step_size), rows.sizes["train"]

    def run() -> dict[str, list]:
        params, begin = model.params, 0
        curve: dict[str, list] = {"epochs": [], "validation": [], "test": []}
        for end in setting.checks:
            recorded = [epoch - begin for epoch in setting.descent if begin <= epoch <= end]
            # Gradient descent remembers nothing: a run that starts where another ended is the same run, gone on.
            result = _finetune(replace(model, params=params), rows, optimizer, end - begin, recorded, n, None)
            _append(curve, result, begin)
            params, begin = result.params, end
            best = curve["epochs"][int(np.argmin(curve["validation"]))]
            if end >= PASSED * best or result.diverged_at is not None:
                break
        return curve

    curve, call = timed(run)
    return curve | {"cpu": call.cpu, "compile": call.compile} | _operations(curve, rows, checkpoint, n)


def adamw(
    model: Model, rows: Rows, checkpoint: Checkpoint, setting: Setting, rate: float, n: int, epochs: int
) -> dict[str, Any]:
    """AdamW as practitioners run it, in minibatches of 16, on the first n training examples.

    A run that diverges is judged by what it reached before.
    """
    recorded = [epoch for epoch in setting.adamw if epoch <= epochs]
    batch = min(ADAMW_BATCH, n)
    result, call = timed(lambda: _finetune(model, rows, adamw_rule(rate), epochs, recorded, n, batch, setting.seed))
    curve: dict[str, list] = {"epochs": [], "validation": [], "test": []}
    _append(curve, result, 0)
    return curve | {"cpu": call.cpu, "compile": call.compile} | _operations(curve, rows, checkpoint, n)


def with_rate(name: str, rule: Any, rate: float, **fixed: float) -> Optimizer:
    """An optax rule whose rate is part of its state: the program is the same, and compiled once, for all rates."""
    transform = optax.inject_hyperparams(rule, static_args=tuple(fixed))(learning_rate=rate, **fixed)
    return Optimizer(f"{name}(step_size={rate}, {fixed})", transform)


def adamw_rule(rate: float) -> Optimizer:
    """`optimizers.adamw` with its rate in the state."""
    return with_rate("adamw", optax.adamw, rate, b1=0.9, b2=0.999, eps=1e-8, weight_decay=DECAY)


def best(record: dict[str, Any]) -> int:
    """Position of the recorded epoch that the validation examples choose."""
    return int(np.argmin(record["validation"]))


def _kernel_operations(
    problem: Problem, plans: Sequence[Plan], differentiated: int, checkpoint: Checkpoint, rows: Rows
) -> float:
    k = problem.targets.shape[1]
    passes = (3 + k) * 2 * checkpoint.non_embedding * rows.tokens * differentiated
    order = problem.sizes["train"] * (k if problem.kernel.outputs == "full" else 1)
    return sum(plan.tiles * plan.flops for plan in plans) + passes + 9 * order**3


def _finetune(
    model: Model,
    rows: Rows,
    optimizer: Optimizer,
    epochs: int,
    recorded: Sequence[int],
    n: int,
    batch: int | None,
    seed: int | None = None,
) -> FinetuneResult:
    return finetune(
        model.apply_fn,
        model.params,
        rows.first(n),
        loss="squared",
        optimizer=optimizer,
        epochs=epochs,
        batch_size=batch,
        seed=seed,
        record_at=recorded,
        evaluate={name: rows.part(name) for name in ("validation", "test")},
        micro_batch=BATCH,
    )


def _append(curve: dict[str, list], result: FinetuneResult, begin: int) -> None:
    fresh = result.epochs >= (1 if begin else 0)  # where a run goes on, its epoch 0 is known already
    curve["epochs"] += (result.epochs + begin)[fresh].tolist()
    for name in ("validation", "test"):
        curve[name] += np.asarray(result.curves[name].mse)[fresh].tolist()


def _operations(curve: dict[str, list], rows: Rows, checkpoint: Checkpoint, n: int) -> dict[str, float]:
    once = 2 * checkpoint.non_embedding * rows.tokens
    looks = len(curve["epochs"])
    counted = once * (3 * n * curve["epochs"][-1] + rows.sizes["validation"] * looks)
    return {"operations": counted, "judged": counted / (counted + once * rows.sizes["test"] * looks)}
