"""What a run has done so far: its state, and a table with one row for each recorded epoch.

    {"epoch": [s], "distance": [s], "kernel_drift": [s], "curves": {set: {"loss": [s], ..., "predictions": [s, m, k]}}}

The table is a pytree of columns, a row the same pytree without the leading axis. Being nothing but arrays, a table is
stored beside the parameters.
"""

from typing import NamedTuple

import jax
import numpy as np

from ntkft._types import PyTree
from ntkft.finetuning.descent import State

Table = dict[str, PyTree]


class Progress(NamedTuple):
    """All that is needed to go on with a run, and to report on it."""

    state: State
    table: Table
    """Empty before the first record."""
    kernel: np.ndarray | None
    """K₀, when the drift of the kernel is followed."""

    @property
    def last_recorded(self) -> int:
        """Epoch of the last row, −1 before the first."""
        return int(self.table["epoch"][-1]) if self.table else -1


def append(table: Table, row: Table) -> Table:
    """The table with `row` below it."""
    row = jax.tree.map(lambda value: np.asarray(value)[None], row)
    return jax.tree.map(lambda *columns: np.concatenate(columns), table, row) if table else row


def is_finite(row: Table) -> bool:
    """Whether no entry of the row is NaN or infinite."""
    return all(np.isfinite(np.asarray(value, np.float64)).all() for value in jax.tree.leaves(row))


def relative_change(initial: np.ndarray, now: np.ndarray) -> float:
    """‖K_t − K₀‖_F / ‖K₀‖_F, for kernels of any shape."""
    return float(np.linalg.norm(np.ravel(now - initial)) / np.linalg.norm(np.ravel(initial)))
