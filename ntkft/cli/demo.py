"""`ntkft demo`: the main job on the embedded checkpoint and task, from the kernel to what really happens.

Which settings, and why:

- documentation sentences of two SciPy modules, told apart by a fresh linear readout on the mean token: the mixed
  initialisation of the theory, and a task with something to learn;
- step size 1/λ̂₁, the largest for which the stopping bounds hold;
- epochs past the real optimum, so that there is something to see about stopping.
"""

from pathlib import Path

import numpy as np

from ntkft import plots
from ntkft._tree import take_examples
from ntkft.cli.console import emit, progress, say
from ntkft.cli.finetune import compare
from ntkft.cli.folder import claim
from ntkft.cli.options import Common, Setup, compute_kernel, prepare
from ntkft.cli.predict import Training, predict_from, prediction_figures, prediction_tables, record_epochs
from ntkft.cli.spectrum import spectrum_tables
from ntkft.finetuning import FinetuneResult, finetune, gradient_descent
from ntkft.kernels import empirical_ntk
from ntkft.linearize import linearize
from ntkft.report.demo import demo_page
from ntkft.report.prediction import Prediction
from ntkft.report.record import finetune_record, prediction_record, to_json

_DRIFT_EXAMPLES = 16


def demo(
    *,
    n: int = 128,
    validation: int = 64,
    test: int = 192,
    epochs: int = 48,
    memory: str = "3GB",
    seed: int = 0,
    out: Path = Path("runs/demo"),
    json: bool = False,
) -> None:
    """The main job: kernel, spectrum, stopping, predicted risk, real fine-tuning, and a report of it all.

    Args:
        n: training examples.
        validation: validation examples.
        test: test examples.
        epochs: steps of full-batch gradient descent.
        memory: budget of the kernel's arrays.
        seed: seed of the split and of the fresh readout.
        out: folder for report.html, report.json and the figures; the same command resumes in it.
        json: print the result as JSON.
    """
    common = Common(
        readout=f"regression:pool=mean,scale=1,seed={seed}",
        n=n,
        validation=validation,
        test=test,
        max_length=32,
        seed=seed,
        outputs="scalar",
        labels=("stats", "signal"),
        memory=memory,
        json=json,
    )
    training = Training(step_size="1/lambda1", epochs=epochs, patience=10)
    setup = prepare(common)
    claim(out, "demo", common, training, data=setup.task.digest, parameters=setup.parameters_digest)
    prediction = predict_from(setup, compute_kernel(setup, common, out / "kernel.zarr"), training, seeds=range(3))
    result = _fine_tune(setup, prediction, epochs, out / "checkpoint")
    comparison = compare(prediction_record(prediction), result)
    say(comparison["sentence"])
    linearized = _linearized_error(setup, result)

    figures = prediction_figures(prediction, f"{Path(setup.model.name).name}, {common.task}", result)
    for name, figure in figures.items():
        plots.save(figure, out / f"{name}.png")
    record = {
        "model": setup.model.name,
        "readout": setup.model.readout,
        "task": setup.task.report(),
        "tokens": setup.tokens.report(),
        "prediction": prediction_record(prediction),
        "finetuning": finetune_record(result),
        "comparison": comparison,
        "linearized_test_mse_at_the_end": linearized,
    }
    (out / "report.json").write_text(to_json(record))
    (out / "report.html").write_text(demo_page(record, prediction, result, out))
    emit(record, as_json=json, tables=[*spectrum_tables(prediction.description), *prediction_tables(prediction)])
    say(f"wrote {out}/report.html, report.json and {len(figures)} figures")


def _fine_tune(setup: Setup, prediction: Prediction, epochs: int, checkpoint: Path) -> FinetuneResult:
    """The same gradient descent for real, with the kernel's drift on the first training examples."""
    recorded = record_epochs(epochs)
    few = take_examples(setup.tokens.inputs, slice(0, _DRIFT_EXAMPLES))
    sets = setup.labelled()

    def kernel_of_few(params):
        return empirical_ntk(setup.model.apply_fn, params, few, outputs="scalar", check=False).total

    with progress("fine-tuning") as advance:
        return finetune(
            setup.model.apply_fn,
            setup.model.params,
            sets["train"],
            loss="squared",
            optimizer=gradient_descent(prediction.step_size),
            epochs=epochs,
            batch_size=None,
            record_at=recorded,
            evaluate=sets,
            kernel_fn=kernel_of_few,
            drift_at=recorded,
            checkpoint=checkpoint,
            progress=advance,
        ).check()


def _linearized_error(setup: Setup, result: FinetuneResult) -> float:
    """Test error of the model linearised at its pretrained parameters, at the trained ones: one JVP."""
    inputs, targets = setup.labelled()["test"]
    outputs = linearize(setup.model.apply_fn, setup.model.params)(result.params, inputs)
    return float(np.mean(np.sum((np.asarray(outputs, np.float64) - targets) ** 2, axis=1)))
