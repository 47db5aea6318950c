"""`ntkft finetune`: the real thing, resumable, and beside a prediction when there is one."""

import json
from pathlib import Path
from typing import Literal

import numpy as np

from ntkft._errors import InputError
from ntkft.cli.console import emit, progress, say, table
from ntkft.cli.folder import claim
from ntkft.cli.options import Common, prepare
from ntkft.cli.predict import record_epochs
from ntkft.finetuning import FinetuneResult, adamw, finetune as finetune_run, gradient_descent, momentum
from ntkft.report.record import finetune_record, parting, to_json


def finetune(
    common: Common,
    *,
    optimizer: Literal["gradient_descent", "momentum", "adamw"],
    step_size: float,
    epochs: int,
    batch_size: int | None = None,
    beta: float | None = None,
    weight_decay: float | None = None,
    prediction: Path | None = None,
    out: Path | None = None,
) -> None:
    """Fine-tune on the squared loss and measure; with --prediction, say from which epoch on they part.

    Args:
        optimizer: full-batch gradient_descent is what predictions are about; momentum wants --beta, adamw
            --weight-decay.
        step_size: learning rate, a number (prediction.json states the one it was made for).
        epochs: passes over the training examples.
        batch_size: examples per update; all of them when not given.
        beta: momentum of heavy ball.
        weight_decay: decoupled weight decay of AdamW.
        prediction: prediction.json of `ntkft predict` with the same flags.
        out: folder for finetune.json and the checkpoint from which the same command resumes.
    """
    chosen = _optimizer(optimizer, step_size, beta, weight_decay)
    setup = prepare(common)
    if out is not None:
        options = {"optimizer": chosen.description, "epochs": epochs, "batch size": batch_size}
        claim(out, "finetune", common, options, data=setup.task.digest, parameters=setup.parameters_digest)
    record_at = record_epochs(epochs)
    predicted = None if prediction is None else _read_prediction(prediction, step_size)
    if predicted is not None:
        record_at = sorted({*record_at, *[epoch for epoch in predicted["epochs"] if epoch <= epochs]})
    checkpoint = None if out is None else out / "checkpoint"
    with progress("fine-tuning") as advance:
        result = finetune_run(
            setup.model.apply_fn,
            setup.model.params,
            setup.labelled()["train"],
            loss="squared",
            optimizer=chosen,
            epochs=epochs,
            batch_size=batch_size,
            seed=None if batch_size is None else common.seed,
            record_at=record_at,
            evaluate=setup.labelled(),
            checkpoint=checkpoint,
            progress=advance,
        )
    record = finetune_record(result)
    if predicted is not None:
        record["prediction"] = compare(predicted, result)
        say(record["prediction"]["sentence"])
    if out is not None:
        (out / "finetune.json").write_text(to_json(record))
    emit(record, as_json=common.json, tables=[_table(result, predicted)])
    result.check()


def compare(predicted: dict, result: FinetuneResult) -> dict:
    """Predicted and real test error at the epochs that both have, and where they part by more than 1 % and 5 %."""
    real = result.curves["test"]
    assert real.mse is not None
    shared = [epoch for epoch in predicted["epochs"] if epoch in real.epochs]
    mine = np.array([predicted["mse"]["test"][predicted["epochs"].index(epoch)] for epoch in shared])
    theirs = np.array([real.mse[list(real.epochs).index(epoch)] for epoch in shared])
    parted = {f"{tolerance:.0%}": parting(mine, theirs, np.array(shared), tolerance) for tolerance in (0.01, 0.05)}
    until = {
        name: "at every recorded epoch" if epoch is None else f"before epoch {epoch}" for name, epoch in parted.items()
    }
    sentence = "; ".join(f"within {name} of the real test error {when}" for name, when in until.items())
    return {
        "epochs": shared,
        "predicted_test_mse": mine.tolist(),
        "real_test_mse": theirs.tolist(),
        "parting": parted,
        "sentence": f"prediction: {sentence}",
    }


def _optimizer(name: str, step_size: float, beta: float | None, weight_decay: float | None):
    wanted = {"gradient_descent": None, "momentum": "--beta", "adamw": "--weight-decay"}[name]
    given = {"--beta": beta, "--weight-decay": weight_decay}
    for flag, value in given.items():
        if (value is not None) != (flag == wanted):
            raise InputError(f"--optimizer {name} {'wants' if flag == wanted else 'does not take'} {flag}")
    if beta is not None:
        return momentum(step_size, beta)
    if weight_decay is not None:
        return adamw(step_size, weight_decay)
    return gradient_descent(step_size)


def _read_prediction(path: Path, step_size: float) -> dict:
    if not path.is_file():
        raise InputError(f"--prediction: {path} is not a file; make one with `ntkft predict --out FOLDER`")
    predicted = json.loads(path.read_text())
    if not np.isclose(predicted["step_size"], step_size, rtol=1e-6):
        raise InputError(
            f"--prediction: {path} is for step size {predicted['step_size']:.8g}, this run has {step_size:.8g}; "
            "train with the predicted one"
        )
    return predicted


def _table(result: FinetuneResult, predicted: dict | None):
    names = list(result.curves)
    columns = ["epoch", *[f"{name} MSE" for name in names], "test accuracy"]
    columns += ["predicted test MSE"] if predicted else []
    rows = []
    for i, epoch in enumerate(result.epochs):
        curves = [result.curves[name] for name in names]
        accuracy = result.curves["test"].accuracy
        row = [epoch, *[f"{curve.mse[i]:.4f}" if curve.mse is not None else "" for curve in curves]]
        row.append("" if accuracy is None else f"{accuracy[i]:.1%}")
        if predicted is not None:
            known = dict(zip(predicted["epochs"], predicted["mse"]["test"], strict=True))
            row.append(f"{known[int(epoch)]:.4f}" if int(epoch) in known else "")
        rows.append(row)
    return table(f"fine-tuning, {result.optimizer}", columns, rows)
