"""Tasks to fine-tune the checkpoints on, and who an experiment on them is."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tokenizers import Tokenizer

from experiments._kept import claim
from experiments.pretrain.checkpoints import Checkpoint, is_written, place
from experiments.pretrain.run import run
from experiments.pretrain.sizes import SMOKE
from experiments.pretrain.tokenizer import prepare
from ntkft._errors import InputError
from ntkft._tree import take_examples
from ntkft.data import load_task, one_hot_targets, signed_targets, tokenize
from ntkft.models import Readout, linear, load, next_token, regression
from ntkft.report.prediction import SETS, set_rows


@dataclass(frozen=True)
class Source:
    """A task: a file below the folder of texts, or the documentation sentences; its classes; its tokens."""

    file: str
    labels: tuple[str, ...] | None
    max_length: int


@dataclass(frozen=True, eq=False)
class Rows:
    """A task's examples as every checkpoint reads them, in the order training, validation, test."""

    inputs: dict[str, np.ndarray]
    y: np.ndarray
    """`[N, k]`: ±1 for two classes, one column a class for more."""
    sizes: Mapping[str, int]
    readout: Readout
    """A fresh head on the mean token."""

    @property
    def outputs(self) -> Literal["scalar", "trace"]:
        """Form of the kernel."""
        return "scalar" if self.y.shape[1] == 1 else "trace"

    @property
    def tokens(self) -> int:
        """Of a row, filled up."""
        return self.inputs["input_ids"].shape[1]

    def where(self, name: str) -> slice:
        """Rows of a set."""
        return set_rows(self.sizes, name)

    def part(self, name: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Inputs and targets of a set."""
        return take_examples(self.inputs, self.where(name)), self.y[self.where(name)]

    def first(self, size: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Inputs and targets of the first rows: training sets that nest, each with all classes; then validation."""
        return take_examples(self.inputs, slice(0, size)), self.y[:size]

    def unit(self, name: str) -> float:
        """Squared error on a set of predicting the mean of the training targets: what risks are divided by."""
        mean, y = self.y[self.where("train")].mean(axis=0), self.y[self.where(name)]
        return float(np.mean(np.sum((y - mean[None]) ** 2, axis=1)))


def build(
    source: Source, sizes: Mapping[str, int], texts: Path, tokenizer: Tokenizer, *, scale: float, seed: int
) -> Rows:
    """Load a task and tokenise it. The head's weights are from N(0, scale²/width); `seed` is its and the split's."""
    task = load_task(
        "docs" if source.file == "docs" else texts / source.file,
        n=sizes["train"],
        validation=sizes["validation"],
        test=sizes["test"],
        seed=seed,
        kind="classification",
        labels=source.labels,
        drop_empty=True,
    )
    parts = [getattr(task, name) for name in SETS]
    tokens = tokenize(sum((part.texts for part in parts), ()), tokenizer, max_length=source.max_length)
    print(f"{task.report()}\n{tokens.report()}", flush=True)
    classes, k = np.concatenate([part.targets for part in parts]), len(task.labels)
    y = signed_targets(classes) if k == 2 else one_hot_targets(classes, k)
    if k == 2:
        readout = regression(pool="mean", scale=scale, seed=seed)
    else:
        readout = linear(k, pool="mean", scale=scale, seed=seed)
    return Rows(tokens.inputs, y, sizes, readout)


def build_all(
    tasks: Iterable[tuple[str, Source]],
    sizes: Mapping[str, int],
    found: Sequence[Checkpoint],
    texts: Path,
    *,
    scale: float,
    seed: int,
) -> dict[str, Rows]:
    """Tasks by name, in the tokens that all checkpoints of a pretraining run share."""
    tokenizer = load(found[0].path, readout=next_token()).tokenizer
    if tokenizer is None:
        raise InputError(f"{found[0].path} has no tokenizer.json; checkpoints are those of experiments/pretrain")
    return {name: build(source, sizes, texts, tokenizer, scale=scale, seed=seed) for name, source in tasks}


@dataclass(frozen=True)
class Origin:
    """Whose records a folder holds: this setting's, on the checkpoints of the pretraining run with this mark."""

    setting: Any
    pretraining: str


def origin(setting: Any, pretrained: Path) -> Origin:
    """For `claim`: an experiment's setting on the checkpoints of a pretraining run's folder."""
    return Origin(setting, (pretrained / "setting").read_text())


def pretrain_tiny(folder: Path) -> None:
    """What `experiments.pretrain.run --smoke` trains, without its checks."""
    claim(folder, SMOKE)
    if not is_written(place(folder / "tiny", SMOKE.steps)):
        run("tiny", SMOKE, prepare(folder, SMOKE, None), folder)
