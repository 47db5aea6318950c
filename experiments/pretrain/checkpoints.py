"""What training leaves behind, and how other experiments find it.

    OUT/corpus/                     tokenizer.json, train.npy and held_out.npy (rows of tokens), corpus.json
    OUT/<size>/step-<step>/         a Hugging Face GPT-2 directory, for `ntkft.models.load`
    OUT/<size>/step-<step>.json     its record: the fields of `Checkpoint`
    OUT/<size>/step-<step>.npy      log p(token | before it) of every held-out token, row by row
    OUT/<size>/perplexities.npy     [tokens, checkpoints], exp of minus those, for `ntkft trajectories`
    OUT/<size>/state/               what a resumed run goes on from

Perplexity i belongs to token `held_out[i // context, 1 + i % context]`; columns are the checkpoints in order.
"""

import json
import math
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from ntkft._errors import InputError


@dataclass(frozen=True)
class Checkpoint:
    """A model of one size after some of its training."""

    path: Path
    """The directory to load."""
    size: str
    parameters: int
    """All of them; the head is the token table, and counted once."""
    non_embedding: int
    """Those that are in neither the token nor the position table."""
    step: int
    tokens: int
    """Predicted in training so far."""
    flops: float
    """6 · parameters · tokens (Kaplan et al. 2020, §2.1)."""
    train_loss: float | None
    """Nats per token, mean over the last batches, each before its update; None before the first."""
    loss: float
    """Nats per held-out token."""

    @property
    def perplexity(self) -> float:
        """exp(held-out loss)."""
        return math.exp(self.loss)


def checkpoints(folder: Path) -> list[Checkpoint]:
    """All checkpoints below the folder of a pretraining run, the smallest size first and each size by step.

    Raises `InputError` when there is none.
    """
    found = [_read(path) for path in folder.glob("*/step-*.json")]
    if not found:
        raise InputError(f"{folder} holds no checkpoints; make them: python -m experiments.pretrain.run --out {folder}")
    return sorted(found, key=lambda each: (each.parameters, each.size, each.step))


def place(folder: Path, step: int) -> Path:
    """The directory of a checkpoint in the folder of its size."""
    return folder / f"step-{step:07d}"


def is_written(path: Path) -> bool:
    """Whether a checkpoint is complete: its record is what is written last."""
    return path.with_suffix(".json").is_file()


def write_record(checkpoint: Checkpoint, likelihoods: Float[np.ndarray, " tokens"]) -> None:
    """The log-likelihoods, then the record."""
    np.save(checkpoint.path.with_suffix(".npy"), likelihoods)
    fields = {name: value for name, value in asdict(checkpoint).items() if name != "path"}
    draft = checkpoint.path.with_suffix(".draft")
    draft.write_text(json.dumps(fields | {"perplexity": checkpoint.perplexity}, indent=1))
    os.replace(draft, checkpoint.path.with_suffix(".json"))


def discard(path: Path) -> None:
    """Remove what an interrupt left of a checkpoint."""
    shutil.rmtree(path, ignore_errors=True)


def write_perplexities(folder: Path) -> Path:
    """The table [tokens, checkpoints] of a size."""
    columns = [np.load(path.with_suffix(".npy")) for path in sorted(folder.glob("step-*.json"))]
    np.save(folder / "perplexities.npy", np.exp(-np.stack(columns, axis=1)))
    return folder / "perplexities.npy"


def _read(record: Path) -> Checkpoint:
    fields = json.loads(record.read_text())
    return Checkpoint(
        path=record.with_suffix(""), **{name: value for name, value in fields.items() if name != "perplexity"}
    )
