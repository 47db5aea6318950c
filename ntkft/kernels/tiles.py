"""Tiles of examples: a kernel of many examples as kernels of pairs of small blocks, each computed on its own.

A *block method* computes the kernel of one block of rows against one block of columns; every exact method is one. The
tile is what a killed run can lose, what processes share out between them, and what bounds the examples that a method
must hold at once. Its price: a block method differentiates an example once for every tile that it takes part in.

Of a symmetric kernel only the tiles on and below the diagonal are computed, the others are their transposes, so that
it is symmetric exactly.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias, TypeVar, runtime_checkable

import jax
import numpy as np
from jax.experimental import multihost_utils

from ntkft._errors import InputError
from ntkft._tree import count_examples, take_examples
from ntkft._types import PyTree
from ntkft.kernels.checks import check_tile
from ntkft.kernels.kernel import Kernel
from ntkft.kernels.store import TILE, KernelStore, arrays_of, place

Progress: TypeAlias = Callable[[int, int], None]
"""Called as `progress(done, total)`, with done growing to total; the unit is the caller's."""

_Result = TypeVar("_Result")


@runtime_checkable
class BlockMethod(Protocol):
    """A method for one block of examples."""

    def __call__(self, rows: PyTree, columns: PyTree | None, /, *, progress: Progress) -> Kernel:
        """The kernel of `rows` with `columns`, or with themselves (then exactly symmetric) for None."""
        ...


@dataclass(frozen=True)
class Processes:
    """Which process this is, `index` of `count`, and how it waits at a named point until all have come there."""

    index: int = 0
    count: int = 1
    wait: Callable[[str], object] = lambda name: None

    def in_turn(self, action: Callable[[], _Result]) -> _Result:
        """`action` in process 0, then in the others, which find what the first created, or fail as it did."""
        if self.index > 0:
            self.wait("ntkft: the first process is ready")
        try:
            return action()
        finally:
            if self.index == 0:
                self.wait("ntkft: the first process is ready")


def jax_processes() -> Processes:
    """The processes of `jax.distributed`, or this one alone."""
    if jax.process_count() == 1:
        return Processes()
    return Processes(jax.process_index(), jax.process_count(), multihost_utils.sync_global_devices)


def default_tile(n: int, m: int, *, stored: bool) -> int:
    """Side of a tile: all examples up to 2,048, which is cheapest; beyond, or when a kill may lose a tile, 1,024."""
    longest = max(n, m)
    return longest if longest <= TILE or (longest <= 2 * TILE and not stored) else TILE


def tile_grid(n: int, m: int | None, tile: int) -> list[tuple[int, int]]:
    """Tiles (i, j), row by row: rows i·tile … of n examples, columns j·tile … of m.

    m None is the symmetric kernel of n examples: the tiles with j ≤ i.
    """
    rows, columns = -(-n // tile), -(-(n if m is None else m) // tile)
    return [(i, j) for i in range(rows) for j in range(columns if m is not None else i + 1)]


def tiled_kernel(
    block_method: BlockMethod,
    x1: PyTree,
    x2: PyTree | None,
    *,
    tile: int,
    parameters: int,
    check: bool,
    store: KernelStore | None,
    processes: Processes,
    progress: Progress | None,
) -> Kernel:
    """The kernel of x1 with x2 (None: with itself) by `block_method`, tile by tile.

    tile:      examples a side; the store's own where there is a store
    check:     refuse a tile that is not finite
    store:     receives each tile when it is finished; those that it holds already are not computed again
    processes: each computes every count-th tile, then waits until all are there and reads the whole
    progress:  in pairs of examples × `parameters`, over this process's tiles; a tile's part follows what its block
               method reports of itself

    Raises `InputError` when there are several processes and no store through which they could share tiles, and for
    a tile that is not finite: the finished ones stay in the store.
    """
    if processes.count > 1 and store is None:
        raise InputError(
            f"empirical_ntk: {processes.count} processes share a kernel through its store; pass store= a folder on a "
            "file system that all of them see"
        )
    n, m = count_examples(x1), None if x2 is None else count_examples(x2)
    grid = tile_grid(n, m, tile)
    share = grid[processes.index :: processes.count]
    missing = share if store is None else [position for position in share if not store.holds(position)]

    work = {position: _pairs(position, n, m, tile) * parameters for position in share}
    total = sum(work.values())
    done = total - sum(work[position] for position in missing)
    report = progress if progress is not None else _ignore
    report(done, total)
    whole: Kernel | None = None
    for i, j in missing:
        rows = take_examples(x1, slice(i * tile, (i + 1) * tile))
        same = x2 is None and i == j
        columns = None if same else take_examples(x1 if x2 is None else x2, slice(j * tile, (j + 1) * tile))
        block = block_method(rows, columns, progress=_part_of(report, done, work[i, j], total))
        if check:
            check_tile(block.total, i * tile, None if same else j * tile)
        block = replace(block, plan=replace(block.plan, tiles=len(grid)))
        if store is not None:
            store.write((i, j), block)
        elif len(grid) == 1:
            whole = block
        else:
            whole = _empty_like(block, n, n if m is None else m, symmetric=x2 is None) if whole is None else whole
            for name, array in arrays_of(whole).items():
                place(array, (i, j), tile, arrays_of(block)[name], symmetric=whole.symmetric)
        done += work[i, j]

    if store is None:
        assert whole is not None  # a grid has at least one tile
        return whole
    processes.wait("ntkft: all tiles are written")
    if processes.index == 0:
        store.tidy()
    return store.read()


def _pairs(position: tuple[int, int], n: int, m: int | None, tile: int) -> int:
    """Pairs of examples in a tile, each unordered pair once."""
    (i, j), columns = position, n if m is None else m
    height, width = min(tile, n - i * tile), min(tile, columns - j * tile)
    return height * (height + 1) // 2 if m is None and i == j else height * width


def _part_of(report: Progress, start: int, span: int, total: int) -> Progress:
    """A block method's own progress as its part of the whole."""
    return lambda done, of: report(start + span * done // of, total)


def _empty_like(block: Kernel, n: int, m: int, *, symmetric: bool) -> Kernel:
    """A kernel of n × m examples to be filled, otherwise as its first block."""
    k = block.total.shape[1:2] if block.total.ndim == 4 else ()
    empty = {name: np.empty((n, *k, m, *k), array.dtype) for name, array in block.groups.items()}
    return replace(block, total=np.empty((n, *k, m, *k), block.total.dtype), groups=empty, symmetric=symmetric)


def _ignore(done: int, total: int) -> None:
    """The progress of nobody who asked."""
