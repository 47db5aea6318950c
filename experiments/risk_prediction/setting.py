"""What is run: tasks, sizes, seeds, epochs; and a task as the arrays that predictions and training take."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ntkft import models
from ntkft._tree import take_examples
from ntkft._types import Outputs, PyTree
from ntkft.data import load_task, one_hot_targets, signed_targets, tokenize
from ntkft.dynamics import nested_rows
from ntkft.kernels import Kernel, empirical_ntk

MEMORY = "4GB"


@dataclass(frozen=True)
class Source:
    """Where a task comes from: a file below the folder of texts, or the documentation sentences; and its tokens."""

    file: str
    max_length: int
    labels: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Setting:
    """The grid, and what every run of it has in common."""

    tasks: tuple[tuple[str, Source], ...]
    sizes: tuple[int, ...]
    seeds: tuple[int, ...]
    pool: int
    """Examples that the training sets are drawn from; one kernel over them serves all."""
    test: int
    epochs: tuple[int, ...]
    """At which risk is measured; the last is where a run ends that has not passed its best epoch before."""
    checks: tuple[int, ...]
    """Recorded epochs at which a real run is over if its best epoch lies a factor 1.4 behind, and the predicted one
    behind."""
    anchors: tuple[int, ...]
    step: float
    """In units of 1/λ̂₁ of the pool."""
    adamw: tuple[int, int]
    """Size of the training set on which AdamW is run too, and its epochs."""


REAL = Setting(
    tasks=(
        ("docs", Source("docs", 24, ("special", "stats"))),
        ("sst2", Source("sst2/train.tsv", 32)),
        ("cr", Source("cr/all.tsv", 32)),
        ("trec", Source("trec/train.tsv", 16, ("0", "1", "3"))),
    ),
    sizes=(32, 64, 128, 256),
    seeds=(0, 1, 2),
    pool=384,
    test=192,
    epochs=(0, 2, 4, 6, 8, 10, 12, 15, 18, 22, 26, 31, 37, 44, 53, 64, 76, 91, 109, 130),
    checks=(44, 76, 109, 130),
    anchors=(0, 12, 30, 60),
    step=0.5,
    adamw=(128, 12),
)
SMOKE = Setting(
    tasks=(("docs", Source("docs", 8, ("special", "stats"))),),
    sizes=(4, 8),
    seeds=(0,),
    pool=12,
    test=16,
    epochs=(0, 1, 2, 4, 6),
    checks=(4, 6),
    anchors=(0, 2),
    step=0.5,
    adamw=(8, 2),
)


@dataclass(frozen=True, eq=False)
class Problem:
    """A model, a pool of examples and a test set."""

    model: models.Model
    pool: PyTree
    test: PyTree
    y: np.ndarray
    y_test: np.ndarray

    @property
    def outputs(self) -> Outputs:
        """Form of the kernel: one output, or all pairs."""
        return "scalar" if self.y.shape[1] == 1 else "full"

    def kernel(self, params: PyTree, x1: PyTree, x2: PyTree | None = None, **options) -> Kernel:
        """The kernel at any parameters, exact."""
        form = partial(empirical_ntk, outputs=self.outputs, memory=MEMORY)
        return form(self.model.apply_fn, params, x1, x2, **options)

    def training_set(self, size: int, seed: int) -> tuple[PyTree, np.ndarray]:
        """Inputs and targets of `size` examples of the pool, those that `predict_risk` draws with this seed."""
        (rows,) = nested_rows(len(self.y), [size], seed)
        return take_examples(self.pool, rows), self.y[rows]


def build(source: Source, texts: Path, *, pool: int, test: int) -> Problem:
    """Load a task and the model with a fresh head for it."""
    docs = source.file == "docs"
    task = load_task(
        "docs" if docs else texts / source.file,
        n=pool,
        validation=0,
        test=test,
        seed=0,
        kind="classification",
        labels=source.labels,
        drop_empty=True,
    )
    print(task.report(), flush=True)
    k = 1 if len(task.labels) == 2 else len(task.labels)
    head = {"pool": "mean", "scale": 1.0, "seed": 0}
    model = models.load("minilm", readout=models.regression(**head) if k == 1 else models.linear(k, **head))
    assert model.tokenizer is not None
    inputs, others = (
        tokenize(part, model.tokenizer, max_length=source.max_length).inputs for part in (task.train, task.test)
    )
    y, y_test = (
        signed_targets(part.targets) if k == 1 else one_hot_targets(part.targets, k) for part in (task.train, task.test)
    )
    return Problem(model, inputs, others, y, y_test)
