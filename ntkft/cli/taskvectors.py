"""`ntkft taskvectors`: how the updates of several tasks combine, from one kernel alone and beside real fine-tuning.

Tasks share one model with one output, so that their vectors live in the same parameters. With X_i the n training
examples of task i and α_i the dual coefficients of full-batch gradient descent on the squared loss, τ_i = J_iᵀα_i in
the linear regime. One kernel 𝕂 between all examples and all training examples, cut into blocks, holds all that is
predicted: lengths and angles of the vectors, and the outputs at θ_PT + Σ c_i τ_i.

A task is named in the grammar of the readouts, NAME=SOURCE,SETTING=VALUE,…: one flag says all about one task, so that
a second task cannot take a column from the first, and the line needs quotes only where classes are chosen.
"""

import functools
import itertools
import json
import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import numpy as np
import tyro

from ntkft import plots
from ntkft._errors import InputError, refuse
from ntkft._tree import digest, take_examples
from ntkft._types import PyTree
from ntkft.batched import compile_outputs, compile_pullback
from ntkft.cli.console import emit, progress, say, table
from ntkft.cli.folder import claim
from ntkft.cli.options import read_template, step_size_of, tokens_for
from ntkft.data import load_task, regression_targets, signed_targets
from ntkft.data.tasks import Kind
from ntkft.dynamics import dual_coefficients, gradient_descent as descent_filter
from ntkft.finetuning import finetune, gradient_descent
from ntkft.kernels import Kernel, empirical_ntk
from ntkft.models import load, parse_readout
from ntkft.report.record import to_json
from ntkft.report.taskvectors import TaskPrediction, TaskSet, predicted_record, real_record
from ntkft.spectra import spectrum_of_matrix
from ntkft.taskvectors import (
    save_task_vector,
    task_vector,
)

_SETTINGS = {"labels": "labels", "kind": "kind", "text": "text_column", "label": "label_column"}
_BATCH = 32


@dataclass(frozen=True)
class Flags:
    """What is compared; flags that change the mathematics have no default."""

    task: Annotated[tuple[str, ...], tyro.conf.UseAppendAction]
    """NAME=SOURCE,SETTING=VALUE,...: repeat for each task. SOURCE is docs, a .tsv, .csv, .jsonl or .parquet file, or
    hf:OWNER/NAME; settings are labels=A|B (the two classes to tell apart), kind=classification or kind=regression
    (needed without labels), text=COLUMN and label=COLUMN."""
    readout: str
    """The one output that all tasks share: regression:pool=mean,scale=1,seed=0, or
    logit_difference:negative=bad,positive=good,position=last."""
    n: int
    """Training examples of each task."""
    validation: int
    """Validation examples of each task, which coefficients are chosen on; 0 leaves them out."""
    test: int
    """Test examples of each task."""
    max_length: int
    """Tokens after which an example is cut; cuts are counted and reported."""
    seed: int
    """Seed of the splits."""
    step_size: str
    """Step size of full-batch gradient descent: a number, or a multiple of 1/λ̂₁ of each task's own kernel such as
    0.5/lambda1."""
    epochs: int
    """Steps of full-batch gradient descent."""
    template: str | None = None
    """Prompt for label words, such as '{text} It was {mask}.', or for causal models '{text} It was'. The texts alone
    when not given."""
    model: str = "minilm"
    """minilm, a directory with config.json, tokenizer.json and safetensors, or a Hub id."""
    drop_empty: bool = False
    """Leave out rows whose text is missing or blank; they are refused otherwise."""
    memory: str | None = None
    """Budget of the kernel's arrays, such as 4GB; half of the free memory when not given."""
    json: bool = False
    """Print the result as JSON."""


def taskvectors(flags: Flags, *, real: bool = False, save: Path | None = None, out: Path | None = None) -> None:
    """Predict task vectors, their addition and their negation from one kernel; with --real, fine-tune and compare.

    Args:
        real: fine-tune every task too, and print what really happens beside the prediction.
        save: folder for the vectors, one NAME.safetensors each: Jᵀα, which needs no training, or with --real those of
            the fine-tuned weights.
        out: folder for taskvectors.json, figures, the kernel, and the checkpoints from which --real resumes. What
            --real measured there stays in the record when the same command runs again without it.
    """
    setup = prepare(flags)
    file = None if out is None else out / "taskvectors.json"
    if out is not None:
        claim(out, "taskvectors", flags, data=setup.data_digest, parameters=digest(setup.model.params))
    prediction = predict(setup, flags, compute_kernel(setup, flags, None if out is None else out / "kernel.zarr"))
    record = json.loads(file.read_text()) if file is not None and file.is_file() else {}
    record |= {"tasks": list(setup.tasks), "predicted": predicted_record(setup, prediction)}
    vectors = None
    if real:
        vectors = train(setup, prediction.step_sizes, flags.epochs, None if out is None else out / "checkpoint")
        say("evaluating the network with these vectors added and taken away")
        record["real"] = real_record(setup, vectors)
    if save is not None:
        save_vectors(save, setup, flags, prediction, vectors)
    if file is not None:
        file.write_text(to_json(record))
        sides = {name: record[name] for name in ("predicted", "real") if name in record}
        title = f"{setup.model.name}, n = {flags.n}, seed {flags.seed}"
        plots.save(plots.task_cosines(setup.tasks, sides, title), file.with_name("cosines.png"))
        if "addition" in record["predicted"]:
            plots.save(plots.task_addition(sides, title), file.with_name("addition.png"))
        say(f"wrote {file} and figures")
    emit(record, as_json=flags.json, tables=taskvector_tables(record))


def prepare(flags: Flags) -> TaskSet:
    """Load what the flags name, and say what it is. Raises `InputError` on whatever cannot be used."""
    sizes = {"--epochs": flags.epochs, "--test": flags.test}
    refuse("taskvectors", [f"{name} is {value}; wanted 1 or more" for name, value in sizes.items() if value < 1])
    step_size_of(flags.step_size, largest=1.0)  # what cannot be read is refused before the work, not after the kernel
    template = read_template(flags.template)
    load_split = functools.partial(
        load_task, n=flags.n, validation=flags.validation, test=flags.test, seed=flags.seed, drop_empty=flags.drop_empty
    )
    tasks = {name: load_split(**source) for name, source in parse_tasks(flags.task).items()}
    for name, task in tasks.items():
        say(f"{name}: {task.report()}")
    wide = [f"{name!r} has {len(task.labels)} classes" for name, task in tasks.items() if len(task.labels) > 2]
    if wide:
        raise InputError(f"--task: {', '.join(wide)}; one output tells two apart: choose them with labels=A|B")
    model = load(flags.model, readout=parse_readout(flags.readout, 1))
    rows, texts, targets = {}, [], []
    for part in ["train", "validation", "test"] if flags.validation else ["train", "test"]:
        rows[part] = {}
        for name, task in tasks.items():
            examples = getattr(task, part)
            rows[part][name] = slice(len(texts), len(texts) + len(examples))
            texts += examples.texts
            targets.append((regression_targets if task.kind == "regression" else signed_targets)(examples.targets))
    tokens = tokens_for(model, tuple(texts), template, flags.max_length)
    pretrained = np.asarray(compile_outputs(model.apply_fn, _BATCH)(model.params, tokens.inputs), np.float64)
    if (k := pretrained.shape[1]) != 1:
        raise InputError(f"--readout: it has {k} outputs; tasks share one here, as of regression or logit_difference")
    digests = " ".join(f"{name} {task.digest}" for name, task in tasks.items())
    return TaskSet(model, rows, tokens.inputs, np.concatenate(targets), pretrained, digests)


def parse_tasks(given: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Task name → source and settings, as `load_task` takes them. Raises `InputError` with all that is wrong."""
    problems, found = [], {}
    for text in given:
        named, *rest = text.split(",")
        name, _, source = named.partition("=")
        settings: dict[str, Any] = {key: value for key, _, value in (item.partition("=") for item in rest)}
        wrong = [] if re.fullmatch(r"[\w.-]+", name) and source else ["it is not NAME=SOURCE,SETTING=VALUE"]
        wrong += [
            f"setting {key!r} is unknown; there are {', '.join(_SETTINGS)}" for key in settings.keys() - _SETTINGS
        ]
        wrong += [f"setting {key!r} is empty" for key, value in settings.items() if not value]
        wrong += ["a setting is given twice"] if len(settings) < len(rest) else []
        wrong += [f"another task has the name {name!r}; choose one of its own"] if name in found else []
        if settings.get("kind") not in (None, *get_args(Kind)):
            wrong.append(f"kind is {settings['kind']!r}; wanted {' or '.join(get_args(Kind))}")
        problems += [f"{text!r}: {each}" for each in wrong]
        if "labels" in settings:  # only classes have labels
            settings = {"kind": "classification"} | settings | {"labels": settings["labels"].split("|")}
        found[name] = {"source": source} | {_SETTINGS.get(key, key): value for key, value in settings.items()}
    refuse("--task", problems)
    return found


def compute_kernel(setup: TaskSet, flags: Flags, store: Path | None) -> Kernel:
    """𝕂 between the examples of all sets and the training examples, read from `store` or computed into it."""
    with progress("kernel") as advance:
        return empirical_ntk(
            setup.model.apply_fn,
            setup.model.params,
            setup.inputs,
            take_examples(setup.inputs, slice(0, len(setup.tasks) * flags.n)),
            outputs="scalar",
            memory=flags.memory,
            store=store,
            progress=advance,
            announce=lambda plan: say(str(plan)),
        )


def predict(setup: TaskSet, flags: Flags, kernel: Kernel) -> TaskPrediction:
    """Dual coefficients of every task after the flags' epochs.

    Raises `InputError` for a step size at or above 2/λ̂₁ of a task's own kernel.
    """
    blocks, duals, steps = setup.blocks(kernel.total, "train"), {}, {}
    residuals = setup.cut(setup.targets - setup.pretrained, "train")
    for name, residual in residuals.items():
        spectrum = spectrum_of_matrix(blocks[name, name], precision=kernel.precision).check()
        steps[name] = step_size_of(flags.step_size, float(spectrum.eigenvalues[0]))
        (duals[name],) = dual_coefficients(spectrum, residual, descent_filter(steps[name]), [flags.epochs])
    return TaskPrediction(kernel, duals, steps)


def train(setup: TaskSet, steps: Mapping[str, float], epochs: int, folder: Path | None) -> dict[str, PyTree]:
    """θ_FT − θ_PT of every task, by real full-batch gradient descent from the same parameters."""
    inputs, targets, vectors = setup.cut(setup.inputs, "train"), setup.cut(setup.targets, "train"), {}
    for name in setup.tasks:
        with progress(f"fine-tuning, {name}") as advance:
            result = finetune(
                setup.model.apply_fn,
                setup.model.params,
                (inputs[name], targets[name]),
                loss="squared",
                optimizer=gradient_descent(steps[name]),
                epochs=epochs,
                batch_size=None,
                record_at=[],
                evaluate={},
                micro_batch=_BATCH,
                checkpoint=None if folder is None else folder / name,
                progress=advance,
            ).check()
        vectors[name] = task_vector(result.params, setup.model.params)
    return vectors


def save_vectors(
    folder: Path, setup: TaskSet, flags: Flags, prediction: TaskPrediction, real: Mapping[str, PyTree] | None
) -> None:
    """Write NAME.safetensors for every task: the real vectors, or without them Jᵀα, one backward pass each."""
    folder.mkdir(parents=True, exist_ok=True)
    pullback = compile_pullback(setup.model.apply_fn, _BATCH)
    inputs = setup.cut(setup.inputs, "train")
    about = {"model": setup.model.name, "readout": flags.readout, "epochs": flags.epochs}
    about |= {} if flags.template is None else {"template": flags.template}
    for name in setup.tasks:
        vector = real[name] if real else pullback(setup.model.params, inputs[name], prediction.duals[name])
        about |= {"task": name, "step size": prediction.step_sizes[name], "made by": "training" if real else "kernel"}
        file = folder / f"{name}.safetensors"
        save_task_vector(file, vector, about={key: str(value) for key, value in about.items()})
        say(f"wrote {file}")


def taskvector_tables(record: Mapping[str, Any]) -> list:
    """Vectors and their negation, pairs, and addition; "predicted / real" where both are known."""
    tasks, first = record["tasks"], record["predicted"]
    sides = [record[name] for name in ("predicted", "real") if name in record]

    def cell(form: str, *path: str | int) -> str:
        return " / ".join(format(functools.reduce(operator.getitem, path, side), form) for side in sides)

    vectors = [
        (task, f"{first['step_size'][task]:.3g}", cell(".4g", "norm", i), cell(".3f", "mse", task, 1),
         cell(".3f", "mse", task, 2), cell("+.3f", "negation", task, "gap"))
        for i, task in enumerate(tasks)
    ]  # fmt: skip
    pairs = [
        (f"{a}, {b}", cell("+.3f", "cosine", i, j), f"{first['interference'][i][j]:.3f}",
         f"{first['angles'][f'{a}, {b}'][0]:.1f}°")
        for (i, a), (j, b) in itertools.combinations(enumerate(tasks), 2)
    ]  # fmt: skip
    known = " / ".join(name for name in ("predicted", "real") if name in record)
    shown = [
        table(f"vectors, {known}", ("task", "step", "‖τ‖", "MSE alone", "MSE together", "gap of negation"), vectors),
        table(f"pairs, {known}", ("pair", "cosine", "interference", "smallest angle"), pairs),
    ]
    for key in [key for key in ("addition", "best_addition") if key in first]:
        columns = ("single", "multi", "normalised")
        rows = [(task, *[cell(".3f", key, column, task) for column in columns]) for task in first[key]["single"]]
        title = f"accuracy at coefficient {cell('.2f', key, 'coefficients', tasks[0])}, {known}"
        shown.append(table(title, ("task", "own vector alone", "all vectors", "normalised"), rows))
    return shown
