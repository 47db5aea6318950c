"""The computations, each kept in a file once done: surfaces and re-anchored predictions from kernels, real runs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.risk_prediction.setting import Problem, Setting
from ntkft.anchoring import Network, predict_anchored
from ntkft.batched import compile_outputs
from ntkft.dynamics import accuracy, predict_risk
from ntkft.finetuning import Optimizer, finetune, optimizers
from ntkft.spectra import spectrum

BATCH = 32
PASSED = 1.4
"""A run has passed its best epoch when it is this many times as old."""


def surface(problem: Problem, setting: Setting, folder: Path) -> dict:
    """First-order risk for every size, seed and epoch from one kernel over the pool and one with the test set."""
    params, apply_fn = problem.model.params, problem.model.apply_fn
    kernel = problem.kernel(params, problem.pool, store=folder / "pool.zarr")
    cross = problem.kernel(params, problem.test, problem.pool, store=folder / "cross.zarr")
    outputs = compile_outputs(apply_fn, BATCH)
    largest = float(spectrum(kernel).eigenvalues[0])
    found = predict_risk(
        kernel,
        cross,
        problem.y,
        problem.y_test,
        outputs(params, problem.pool),
        outputs(params, problem.test),
        sizes=setting.sizes,
        epochs=range(setting.epochs[-1] + 1),
        step_size=setting.step / largest,
        seeds=setting.seeds,
    )
    assert found.test_accuracy is not None
    return {
        "largest_eigenvalue": largest,
        "step_size": found.step_size,
        "mse": found.test_mse.tolist(),
        "accuracy": found.test_accuracy.tolist(),
    }


def anchored(problem: Problem, setting: Setting, size: int, seed: int, step_size: float) -> dict:
    """Re-anchored risk: midpoint steps, and the network evaluated at the parameters that they reach."""
    inputs, y = problem.training_set(size, seed)
    network = Network.of(problem.model.apply_fn, inputs, {"test": problem.test}, micro_batch=BATCH)
    found = predict_anchored(
        network,
        problem.model.params,
        y,
        problem.kernel,
        loss="squared",
        step_size=step_size,
        epochs=setting.epochs,
        anchors=setting.anchors,
        scheme="midpoint",
        readings=("network",),
        unstable="settle",
    )
    outputs = found.network["test"]
    right = accuracy(outputs, problem.y_test)
    assert right is not None
    errors = np.mean(np.sum((outputs - problem.y_test[None]) ** 2, axis=2), axis=1)
    return {
        "kernels": found.kernels,
        "settled": found.settled,
        "epochs": list(setting.epochs),
        "mse": errors.tolist(),
        "accuracy": right.tolist(),
    }


def descent(problem: Problem, setting: Setting, size: int, seed: int, step_size: float, *, least: int) -> dict:
    """Real full-batch gradient descent, until it has passed its best epoch, and epoch `least`: the predicted one.

    Risk may fall a second time, so that a prediction is not judged by a run that ended before it.
    """
    inputs, y = problem.training_set(size, seed)
    params, begin = problem.model.params, 0
    curve: dict[str, list] = {"epochs": [], "mse": [], "accuracy": []}
    for end in setting.checks:
        recorded = [epoch - begin for epoch in setting.epochs if begin <= epoch <= end]
        # Gradient descent remembers nothing: a run that starts where another ended is the same run, gone on.
        result = finetune(
            problem.model.apply_fn,
            params,
            (inputs, y),
            loss="squared",
            optimizer=optimizers.gradient_descent(step_size),
            epochs=end - begin,
            batch_size=None,
            record_at=recorded,
            evaluate={"test": (problem.test, problem.y_test)},
            micro_batch=BATCH,
        ).check()
        _append(curve, result, begin)
        params, begin = result.params, end
        if end >= max(PASSED * curve["epochs"][int(np.argmin(curve["mse"]))], least):
            break
    return curve


def adamw(problem: Problem, size: int, seed: int, epochs: int) -> dict:
    """AdamW as practitioners run it: step size 10⁻⁴, batches of 16."""
    inputs, y = problem.training_set(size, seed)
    return _recorded(problem, (inputs, y), optimizers.adamw(1e-4, 0.01), epochs, batch_size=min(16, size))


def _recorded(problem: Problem, train: tuple, optimizer: Optimizer, epochs: int, batch_size: int) -> dict:
    result = finetune(
        problem.model.apply_fn,
        problem.model.params,
        train,
        loss="squared",
        optimizer=optimizer,
        epochs=epochs,
        batch_size=batch_size,
        seed=0,
        record_at=range(epochs + 1),
        evaluate={"test": (problem.test, problem.y_test)},
        micro_batch=BATCH,
    ).check()
    curve: dict[str, list] = {"epochs": [], "mse": [], "accuracy": []}
    _append(curve, result, 0)
    return curve


def _append(curve: dict[str, list], result, begin: int) -> None:
    test = result.curves["test"]
    fresh = result.epochs >= (1 if begin else 0)  # where a run goes on, its epoch 0 is known already
    for name, values in (("epochs", result.epochs + begin), ("mse", test.mse), ("accuracy", test.accuracy)):
        curve[name] += np.asarray(values)[fresh].tolist()


def best(record: dict) -> tuple[int, float]:
    """Epoch and value of the lowest risk of a curve."""
    index = int(np.argmin(record["mse"]))
    return record["epochs"][index], record["mse"][index]


def at(epochs: Sequence[int], values: Sequence[float], epoch: int) -> float:
    """The value recorded at an epoch."""
    return values[list(epochs).index(epoch)]
