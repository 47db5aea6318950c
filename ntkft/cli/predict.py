"""`ntkft predict`: risk over sample size and epochs, and stopping times under every rule, before any training."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ntkft import plots
from ntkft.cli.console import emit, say, table
from ntkft.cli.folder import claim
from ntkft.cli.options import Common, Setup, compute_kernel, prepare, step_size_of
from ntkft.finetuning import FinetuneResult
from ntkft.kernels import Kernel
from ntkft.report.prediction import Prediction, predict as predict_run
from ntkft.report.record import prediction_record, to_json


@dataclass(frozen=True)
class Training:
    """Flags of the training that is predicted or done."""

    step_size: str
    """Step size of full-batch gradient descent: a number, or a multiple of 1/λ̂₁ such as 0.5/lambda1."""
    epochs: int
    """Steps of full-batch gradient descent."""
    patience: int
    """Epochs without improvement on the validation set after which hold-out stops."""


def predict(
    common: Common, training: Training, *, seeds: int = 3, kernel: Path | None = None, out: Path | None = None
) -> None:
    """Predict full-batch gradient descent on the squared loss from the kernel.

    Args:
        seeds: random orders of the training examples for the risk over sample sizes.
        kernel: store of the kernel to read, resume or write; inside --out when not given.
        out: folder for prediction.json and figures; refused when it holds another run.
    """
    setup = prepare(common)
    if out is not None:
        claim(
            out,
            "predict",
            common,
            training,
            {"seeds": seeds},
            data=setup.task.digest,
            parameters=setup.parameters_digest,
        )
    store = kernel or (out / "kernel.zarr" if out is not None else None)
    prediction = predict_from(setup, compute_kernel(setup, common, store), training, seeds=range(seeds))
    record = prediction_record(prediction)
    if out is not None:
        (out / "prediction.json").write_text(to_json(record))
        about = f"{Path(setup.model.name).name}, {common.task}"
        for name, figure in prediction_figures(prediction, about).items():
            plots.save(figure, out / f"{name}.png")
        say(f"wrote {out}/prediction.json and figures")
    emit(record, as_json=common.json, tables=prediction_tables(prediction))


def predict_from(setup: Setup, kernel: Kernel, training: Training, *, seeds: Sequence[int]) -> Prediction:
    """The prediction of this training from the kernel over all rows."""
    problem = setup.problem(kernel)
    n = setup.sizes["train"]
    step_size = step_size_of(training.step_size, _largest(problem.block("train"), setup.targets.shape[1]))
    sizes = sorted({max(n // 8, 2), max(n // 4, 2), max(n // 2, 2), n})
    return predict_run(
        problem,
        step_size=step_size,
        epochs=training.epochs,
        record_at=record_epochs(training.epochs),
        sizes=sizes,
        seeds=list(seeds),
        patience=training.patience,
    )


def record_epochs(epochs: int) -> list[int]:
    """About a dozen epochs from 0 to the last, denser where curves bend."""
    spaced = np.unique(np.round(np.geomspace(1, max(epochs, 1), 12)).astype(int))
    return [0, *[int(epoch) for epoch in spaced if epoch <= epochs]]


def prediction_tables(prediction: Prediction) -> list:
    """Curves at the recorded epochs, stopping times, and risk over sample size."""
    curves = [
        (epoch, *[f"{prediction.mse[name][i]:.4f}" for name in prediction.mse],
         *[f"{prediction.accuracy[name][i]:.1%}" for name in prediction.accuracy if name == "test"])
        for i, epoch in enumerate(prediction.epochs)
    ]  # fmt: skip
    columns = (
        "epoch",
        *[f"{name} MSE" for name in prediction.mse],
        *(["test accuracy"] if prediction.accuracy else []),
    )
    every = np.asarray(prediction.surface.test_mse)[:, -1].mean(axis=0)
    stops = [
        (
            name,
            f"{stop:.0f}",
            "{:.0f}–{:.0f}".format(*prediction.intervals[name]) if name in prediction.intervals else "",
            f"{every[min(int(min(stop, 1e9)), len(every) - 1)]:.4f}",
        )
        for name, stop in prediction.stops.items()
    ]
    return [
        table(f"predicted, step size {prediction.step_size:.3g}", columns, curves),
        table(
            f"stopping (σ = {prediction.sigma:.3f}, C_H = {prediction.norm.plug_in:.3f})",
            ("rule", "epoch", "90 %, noise redrawn", "test MSE there"),
            stops,
        ),
    ]


def prediction_figures(prediction: Prediction, about: str, real: FinetuneResult | None = None) -> dict[str, Figure]:
    """The figures of a prediction by file name, with what really happened in them when it is known.

    about: model, task, n and seed, above the title of each
    """
    described, surface = prediction.description, prediction.surface
    every = {"train": surface.train_mse[0, -1], "test": surface.test_mse[0, -1]}  # all n examples, every epoch
    error = None if real is None else real.curves["test"].mse
    measured = {} if error is None else {surface.sizes[-1]: float(error[-1])}
    figures = {
        "decay": plots.eigenvalue_decay(described.spectrum, described.fit, described.interval),
        "groups": plots.group_spectra(described.spectrum),
        "alignment": plots.target_alignment(prediction.alignment),
        "learning_curve": plots.learning_curve(np.asarray(surface.epochs), every, real, prediction.stops),
        "risk_over_epochs": plots.risk_over_epochs(
            surface.sizes,
            np.asarray(surface.epochs),
            surface.test_mse,
            {} if real is None or error is None else {surface.sizes[-1]: (real.curves["test"].epochs, error)},
        ),
        "risk_over_n": plots.risk_over_n(surface, prediction.stops, measured),
    }
    return {name: plots.about(figure, about) for name, figure in figures.items()}


def _largest(kernel: Kernel, k: int) -> float:
    matrix = np.asarray(kernel.matrix(), np.float64) / kernel.total.shape[0]
    return float(np.linalg.eigvalsh(matrix)[-1]) / (k if kernel.outputs == "trace" else 1)
