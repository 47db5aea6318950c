"""One k-shot problem: what kernels say of it, what really happens, and the same for training by signs.

Every record holds outputs on the test examples, from which any score can be made.
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from ntkft import models
from ntkft._tree import take_examples
from ntkft._types import PyTree
from ntkft.batched import compile_outputs
from ntkft.data import load_task, signed_targets, tokenize
from ntkft.dynamics import (
    SHARES,
    asymmetric_machine,
    best_share,
    kernel_descent,
    logistic_regression,
    outputs_at,
    ridge_regression,
    signed_descent,
)
from ntkft.finetuning import FinetuneResult, Optimizer, finetune, optimizers
from ntkft.kernels import empirical_ntk
from ntkft.kernels.signgd import signgd_ntk

MEMORY, BATCH = "3GB", 32
ASYMMETRIC_SHARES = (0.001, 0.01, 0.1, 2.0)
"""`SHARES` without those that make the asymmetric machine singular: 0 for a kernel without full rank, and 1."""


@dataclass(frozen=True)
class Setting:
    """The grid, and what every run of it has in common."""

    tasks: tuple[tuple[str, str, tuple[str, str] | None], ...]
    """Name, file below the folder of texts, and the two classes."""
    seeds: tuple[int, ...]
    sign_seeds: tuple[int, ...]
    """On which training by signs is run, whose kernels are the dearest."""
    shots: int
    """Training examples of each class, and as many for validation."""
    test: int
    max_length: int
    epochs: int
    """Of gradient descent, real and linearised."""
    step: float
    """In units of 1/λ̂₁."""
    adamw: tuple[float, int]
    """Step size and epochs, in batches of 16."""
    sign_epochs: int


@dataclass(frozen=True, eq=False)
class Problem:
    """Training, validation and test examples, in this order in one array, and the model with a fresh head."""

    model: models.Model
    inputs: PyTree
    y: np.ndarray
    n: int

    @property
    def train(self) -> tuple[PyTree, np.ndarray]:
        """Inputs and targets that are trained on."""
        return take_examples(self.inputs, slice(0, self.n)), self.y[: self.n]

    @property
    def others(self) -> dict[str, slice]:
        """Rows of validation and test examples; both training and validation have n."""
        return {"validation": slice(self.n, 2 * self.n), "test": slice(2 * self.n, None)}

    def outputs(self) -> np.ndarray:
        """Of the model as it is."""
        return compile_outputs(self.model.apply_fn, BATCH)(self.model.params, self.inputs)


def build(source: str, labels: tuple[str, str] | None, setting: Setting, seed: int, texts: Path) -> Problem:
    """Draw `shots` examples of each class for training and for validation, and the test set."""
    pool = 8 * setting.shots
    task = load_task(
        "docs" if source == "docs" else texts / source,
        n=pool,
        validation=0,
        test=setting.test,
        seed=seed,
        kind="classification",
        labels=labels,
        drop_empty=True,
    )
    of_class = [np.flatnonzero(task.train.targets == c) for c in (0, 1)]
    rows = np.concatenate(
        [members[start : start + setting.shots] for start in (0, setting.shots) for members in of_class]
    )
    model = models.load("minilm", readout=models.regression(pool="mean", scale=1.0, seed=seed))
    assert model.tokenizer is not None
    chosen = [task.train.texts[row] for row in rows] + list(task.test.texts)
    y = signed_targets(np.concatenate([task.train.targets[rows], task.test.targets]))
    inputs = tokenize(chosen, model.tokenizer, max_length=setting.max_length).inputs
    return Problem(model, inputs, y, 2 * setting.shots)


def predicted(problem: Problem, setting: Setting) -> dict:
    """From the kernel alone: descent of the linearised model, and solvers with the penalty chosen on validation."""
    n, f = problem.n, problem.outputs()
    inputs, y = problem.train
    kernel = np.asarray(
        empirical_ntk(
            problem.model.apply_fn, problem.model.params, problem.inputs, inputs, outputs="scalar", memory=MEMORY
        ).total,
        np.float64,
    )
    square = (kernel[:n] + kernel[:n].T) / 2  # the same to rounding
    step_size = setting.step * n / np.linalg.norm(square, 2)
    duals = {
        "first-order descent": kernel_descent(
            square, y, f[:n], loss="squared", step_size=step_size, momentum=0, penalty=0, steps=[setting.epochs]
        ),
        "ridge": ridge_regression(square, y - f[:n], shares=SHARES),
        "logistic": logistic_regression(square, y, f[:n], loss="logistic", shares=SHARES[1:]),
    }
    return {
        "step_size": step_size,
        "kernel": square.tolist(),
        "targets": problem.y[problem.others["test"]].tolist(),
        "outputs": {"pretrained": f[problem.others["test"]].tolist()}
        | {name: chosen_by_validation(problem, outputs_at(kernel, dual, f)) for name, dual in duals.items()},
    }


def real(problem: Problem, setting: Setting, step_size: float) -> dict:
    """Full-batch gradient descent and AdamW, all parameters trained; and the kernel where descent ended."""
    inputs, _ = problem.train
    rate, epochs = setting.adamw
    descent = _finetuned(problem, optimizers.gradient_descent(step_size), setting.epochs, None)
    kernel = empirical_ntk(problem.model.apply_fn, descent.params, inputs, outputs="scalar", memory=MEMORY)
    adamw = _finetuned(problem, optimizers.adamw(rate, 0.01), epochs, min(16, problem.n))
    return {
        "kernel": np.asarray(kernel.total, np.float64).tolist(),
        "outputs": {"descent": last(descent).tolist(), "adamw": last(adamw).tolist()},
    }


def signs(problem: Problem, setting: Setting) -> dict:
    """The asymmetric kernel: as a machine, and as the prediction of training by signs, one example a step."""
    n, f = problem.n, problem.outputs()
    y = problem.y[:n]
    kernel = np.asarray(
        signgd_ntk(
            problem.model.apply_fn,
            problem.model.params,
            problem.inputs,
            outputs="scalar",
            kind="asymmetric",
            memory=MEMORY,
        ).total,
        np.float64,
    )
    machine = asymmetric_machine(kernel[:n, :n], y - f[:n], shares=ASYMMETRIC_SHARES, bias=False)
    both = np.mean(machine.outputs(kernel[:, :n], kernel[:n], f), axis=0)
    # The first step on an example moves its own output by a tenth of the distance between the targets.
    step_size = 0.2 / float(np.mean(np.diag(kernel)[:n]))
    keys = [jax.random.fold_in(jax.random.key(0), epoch) for epoch in range(setting.sign_epochs)]
    order = np.concatenate([jax.random.permutation(key, n) for key in keys])
    steps = [len(order)]
    dual = signed_descent(kernel[:n, :n], y, f[:n], loss="squared", step_size=step_size, order=order, steps=steps)
    result = _finetuned(problem, optimizers.sign_descent(step_size), setting.sign_epochs, 1)
    return {
        "outputs": {
            "machine": chosen_by_validation(problem, both),
            "signs, predicted": outputs_at(kernel[:, :n], dual, f)[0, problem.others["test"]].tolist(),
            "signs": last(result).tolist(),
        }
    }


def chosen_by_validation(problem: Problem, outputs: np.ndarray) -> list:
    """Test outputs `[m, 1]` of those of `[s, all, 1]` that are most accurate on validation examples."""
    rows = problem.others["validation"]
    return outputs[best_share(outputs[:, rows], problem.y[rows]), problem.others["test"]].tolist()


def last(result: FinetuneResult) -> np.ndarray:
    """Test outputs after training."""
    outputs = result.curves["test"].predictions
    assert outputs is not None
    return outputs[-1]


def _finetuned(problem: Problem, optimizer: Optimizer, epochs: int, batch_size: int | None) -> FinetuneResult:
    rows = problem.others["test"]
    return finetune(
        problem.model.apply_fn,
        problem.model.params,
        problem.train,
        loss="squared",
        optimizer=optimizer,
        epochs=epochs,
        batch_size=batch_size,
        seed=0,
        record_at=[],
        evaluate={"test": (take_examples(problem.inputs, rows), problem.y[rows])},
        keep_predictions={"test"},
        micro_batch=BATCH,
    ).check()
