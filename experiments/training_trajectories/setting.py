"""What is measured, and on which checkpoints."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from tokenizers import Tokenizer

from experiments.pretrain.checkpoints import Checkpoint, checkpoints
from experiments.pretrain.sizes import END
from ntkft._errors import InputError, refuse
from ntkft.trajectories import first_checkpoint


@dataclass(frozen=True)
class Setting:
    """Lengths are in tokens."""

    start: float
    """Share of training at which the series of a trend begins; the paper's is 0.1."""
    warm: float
    """Share of training at which the warm-up is over: the series of double descents begin there."""
    items: int
    """Questions of the cloze task."""
    context: int
    """What stands before a continuation."""
    continuation: int
    prompts: int
    """Texts that are drawn from each interpolation."""
    prompt: int
    drawn: int
    """Tokens behind each prompt."""
    rows: int
    """Held-out rows on which two models are compared over the whole vocabulary."""
    seed: int
    trained: tuple[tuple[str, int, float], ...]
    """Name, last step and last held-out loss of every size; `read` knows them."""


REAL = Setting(
    start=0.1, warm=0.04, items=320, context=32, continuation=8,
    prompts=32, prompt=16, drawn=48, rows=32, seed=0, trained=(),
)  # fmt: skip
SMOKE = Setting(
    start=0.1, warm=0.04, items=24, context=16, continuation=4,
    prompts=4, prompt=4, drawn=8, rows=4, seed=0, trained=(),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Trained:
    """The checkpoints of a pretraining run, the smallest size first, and what they were measured on."""

    sizes: dict[str, list[Checkpoint]]
    tables: dict[str, Float[np.ndarray, "t s"]]
    """Perplexity of every held-out token at every checkpoint of a size."""
    held_out: Int[np.ndarray, "rows t"]
    tokenizer: Tokenizer
    end: int
    """The token between documents."""

    @property
    def steps(self) -> list[int]:
        """At which every size has a checkpoint."""
        return [each.step for each in next(iter(self.sizes.values()))]

    @property
    def identity(self) -> tuple[tuple[str, int, float], ...]:
        """For `Setting.trained`."""
        return tuple((name, mine[-1].step, mine[-1].loss) for name, mine in self.sizes.items())

    @property
    def pair(self) -> tuple[Checkpoint, Checkpoint]:
        """The smallest and the largest size, at the end of training."""
        ends = [mine[-1] for mine in self.sizes.values()]
        return ends[0], ends[-1]

    def first(self, start: float) -> int:
        """Index of the first checkpoint at or after this share of training."""
        return first_checkpoint(len(self.steps), start=start, steps=self.steps)


def read(folder: Path) -> Trained:
    """The checkpoints below the folder of a pretraining run.

    Raises `InputError` when there are none, or not of two sizes at the same steps, or documents have no end.
    """
    sizes: dict[str, list[Checkpoint]] = {}
    for each in checkpoints(folder):
        sizes.setdefault(each.size, []).append(each)
    steps = {name: [each.step for each in mine] for name, mine in sizes.items()}
    problems = [f"there is one size, {next(iter(sizes))}; train another"] if len(sizes) == 1 else []
    if len({tuple(of) for of in steps.values()}) > 1:
        found = ", ".join(f"{len(of)} up to step {of[-1]} of {name}" for name, of in steps.items())
        problems.append(f"checkpoints differ: {found}; let the training end")
    refuse(str(folder), problems)
    tokenizer = Tokenizer.from_file(str(folder / "corpus" / "tokenizer.json"))
    end = tokenizer.token_to_id(END)
    if end is None:
        raise InputError(f"{folder}: the tokenizer has no {END}, so that documents cannot be told apart")
    tables = {
        name: np.exp(-np.stack([np.load(each.path.with_suffix(".npy")) for each in mine], axis=1, dtype=np.float64))
        for name, mine in sizes.items()
    }
    return Trained(sizes, tables, np.load(folder / "corpus" / "held_out.npy"), tokenizer, end)


def nearest(mine: list[Checkpoint], loss: float) -> int:
    """Index of the checkpoint whose held-out loss is nearest to this one."""
    return int(np.argmin([abs(each.loss - loss) for each in mine]))
