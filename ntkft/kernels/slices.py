"""How the columns of a Jacobian, one for each parameter, are cut into slices that fit in memory.

The Jacobian J of n examples has n·k rows and p columns: 0.5 GB for each example of a model with 124 M parameters. The
kernel J Jᵀ is a sum over columns, so any partition of the columns into slices gives it exactly, one slice at a time.

The unit of a cut is a *row* of a leaf (its leading axis), so that a slice of an embedding table is a set of tokens.
Rows whose gradient is zero for every example are left out: they add exactly nothing. In an embedding table that is
nearly all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ntkft._errors import InputError
from ntkft._types import Array

TALL = 4096
"""Leaves with at least this many rows are searched for rows that no example touches."""


@dataclass(frozen=True)
class Piece:
    """Rows of one leaf. `rows` None means the whole leaf, which spares the indexing."""

    leaf: int
    group: str
    rows: np.ndarray | None
    columns: int


def leaf_rows(leaf: Array) -> int:
    """Rows that a leaf can be cut into: its leading axis, or one for vectors and scalars."""
    return leaf.shape[0] if leaf.ndim >= 2 else 1


def partition(
    leaves: Sequence[Array], groups: Sequence[str], touched: Mapping[int, np.ndarray], columns: int
) -> list[list[Piece]]:
    """Slices of at most `columns` parameters each, filled in the order of the leaves, which are cut where one ends.

    touched: leaf index → indices of its rows with a gradient that is not zero, for the leaves that were searched
    """
    widest = max((leaf.size // leaf_rows(leaf) for leaf in leaves if leaf.size), default=0)
    if columns < widest:
        raise InputError(
            f"memory: the budget holds {columns:,} Jacobian columns, fewer than one row of the widest parameter "
            f"({widest:,}); raise memory at least {widest / max(columns, 1):.1f} times or use fewer examples"
        )
    slices: list[list[Piece]] = [[]]
    room = columns
    for index, (leaf, group) in enumerate(zip(leaves, groups, strict=True)):
        rows = touched.get(index, np.arange(leaf_rows(leaf)))
        width = leaf.size // leaf_rows(leaf) if leaf.size else 0
        while width and len(rows):
            fitting = room // width
            if fitting == 0:
                slices.append([])
                room = columns
                continue
            part, rows = rows[:fitting], rows[fitting:]
            whole = len(part) == leaf_rows(leaf)
            slices[-1].append(Piece(index, group, None if whole else part.astype(np.int32), len(part) * width))
            room -= len(part) * width
    return [pieces for pieces in slices if pieces]
