"""How the columns of a Jacobian, one for each parameter, are cut into slices that fit in memory.

The Jacobian J of n examples has n·k rows and p columns: 0.5 GB for each example of a model with 124 M parameters. The
kernel J Jᵀ is a sum over columns, so any partition of the columns into slices gives it exactly, one slice at a time.

The unit of a cut is a *row* of a leaf (its leading axis), so that a slice of an embedding table is a set of tokens.
Rows whose gradient is zero for every example are left out: they add exactly nothing. In an embedding table that is
nearly all of them.
"""

from collections.abc import Iterator, Mapping, Sequence
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
    """Slices of at most `columns` parameters each, in the order of the leaves, as few as that order allows.

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
    for piece in _pieces(leaves, groups, touched, columns):
        if piece.columns > room:
            slices.append([])
            room = columns
        slices[-1].append(piece)
        room -= piece.columns
    return [pieces for pieces in slices if pieces]


def _pieces(leaves, groups, touched, columns) -> Iterator[Piece]:
    """Leaves, cut only when one alone is wider than a slice; equal cuts, so that they share one compiled program."""
    for index, (leaf, group) in enumerate(zip(leaves, groups, strict=True)):
        if leaf.size == 0:
            continue
        width = leaf.size // leaf_rows(leaf)
        rows = touched.get(index)
        if rows is None and leaf.size <= columns:
            yield Piece(index, group, None, leaf.size)
            continue
        rows = np.arange(leaf_rows(leaf)) if rows is None else rows
        cuts = -(-len(rows) * width // (columns // width * width)) if len(rows) else 0
        for part in np.array_split(rows, cuts) if cuts else []:
            yield Piece(index, group, part.astype(np.int32), len(part) * width)
