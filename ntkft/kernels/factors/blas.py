"""Contraction on the host: forms in NumPy, one BLAS thread for each worker.

On a CPU the platform's BLAS multiplies a matrix by its own transpose at the speed of half a product, and workers that
each form and contract their own slices in cache leave no core idle between two small products (docs/design.md).
Slices are dealt to workers in turn and their sums added in order, so a kernel is the same in every run.
"""

import itertools
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
from threadpoolctl import ThreadpoolController

from ntkft.kernels.factors.forms import Extent, Form

COLUMNS = 36_864
"""Columns of a slice: below, a product's overhead shows; above, the slice leaves the cache."""
PAIR_ROWS = 1024
"""Side of a tile of token pairs: two such products stay in the cache while they are multiplied and summed."""


@dataclass(frozen=True)
class Part:
    """One site of a block: its kind; for each chunk of examples, its operand (or None) and cotangent."""

    kind: str
    swapped: bool
    operands: Sequence[np.ndarray | None]
    cotangents: Sequence[np.ndarray]


def available_workers() -> int:
    """One for each core that this process may use."""
    return len(os.sched_getaffinity(0))


class Scratch:
    """One worker's memory, the same at each use: fresh pages cost more than the work that fills them."""

    def __init__(self):
        self._held: dict[str, np.ndarray] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Uninitialised values, until the same name is taken again."""
        held, size = self._held, math.prod(shape)
        if name not in held or held[name].size < size or held[name].dtype != dtype:
            held.pop(name, None)  # two at once would not fit where one just does
            held[name] = np.empty(size, dtype)
        return held[name][:size].reshape(shape)


class Workers(AbstractContextManager):
    """Threads that share out work."""

    def __init__(self, count: int):
        self.count = count
        self._pool = ThreadPoolExecutor(count)
        self._scratch = [Scratch() for _ in range(count)]
        self._blas = ThreadpoolController()

    def __exit__(self, *exception):
        self._pool.shutdown()

    def map(self, function: Callable, items: Sequence) -> list:
        """`[function(item) for item in items]`, at once."""
        return list(self._pool.map(function, items))

    def one_blas_thread_each(self) -> AbstractContextManager:
        """Products by these threads alone; BLAS's own would go on spinning on the cores that the workers need next."""
        return self._blas.limit(limits=1, user_api="blas")

    def share(self, work: Callable[[np.ndarray, Sequence, Scratch], None], items: Sequence, kernel: np.ndarray) -> None:
        """Add to `kernel` what `work(accumulator, its items, its memory)` accumulates in each worker."""

        def run(worker):
            scratch = self._scratch[worker]
            accumulator = scratch.take("sum", kernel.shape, kernel.dtype)
            accumulator[...] = 0
            with _no_warnings():
                work(accumulator, items[worker :: self.count], scratch)
            return accumulator

        for accumulator in self.map(run, range(min(self.count, len(items)))):
            kernel += accumulator


def _no_warnings() -> AbstractContextManager:
    """For one thread: a kernel that is not finite is refused as a whole, by its examples (`checks.check_tile`)."""
    return np.errstate(over="ignore", invalid="ignore")


def contract(
    form: Form,
    parts: Sequence[Part],
    sizes: tuple[int, int, int],
    extent: Extent,
    kernel: np.ndarray,
    workers: Workers,
    *,
    columns: int = COLUMNS,
) -> None:
    """Add a block's kernel to `kernel`, `extent.shape`; `sizes` are the block's batch, rows and width."""
    with workers.one_blas_thread_each(), _no_warnings():
        if form == "reduced":
            _reduced(parts, extent, kernel)
        elif form == "rows":
            _rows(parts, sizes[1], extent, kernel, workers)
        elif form == "pairs":
            _pairs(parts[0], extent, kernel, workers)
        else:
            _materialise(parts, sizes, extent, kernel, workers, columns)


def _materialise(parts, sizes, extent, kernel, workers, columns):
    batch, rows, width = sizes
    flip = width > rows  # long slices of few columns form faster
    if flip:
        rows, width = width, rows
    step = max(1, min(rows, columns // (width * (1 if extent.outputs == "full" else extent.k))))
    each = -(-rows // step)
    each = -(-each // workers.count) * workers.count  # as much for every worker
    step = -(-rows // each)
    slices = [(b, start, min(start + step, rows)) for b in range(batch) for start in range(0, rows, step)]
    padded = sum(len(c) for c in parts[0].cotangents)

    def work(accumulator, items, scratch):
        product = scratch.take("product", accumulator.shape, accumulator.dtype)
        for index, start, stop in items:
            gradients = scratch.take("slice", (padded, extent.k, stop - start, width), accumulator.dtype)
            done = False
            for part in parts:
                _form(gradients, part, part.swapped != flip, index, start, stop, done)
                done = True
            _add_product(accumulator, product, gradients, extent)

    workers.share(work, slices, kernel)


def _form(gradients, part, swapped, index, start, stop, add):
    """Write (or add) one site's gradients, rows start to stop of its matrix."""
    at = 0
    for operand, cotangent in zip(part.operands, part.cotangents, strict=True):
        here = gradients[at : at + len(cotangent)]
        at += len(cotangent)
        if part.kind == "rows":
            if not add:
                here[...] = 0
            _scatter(here, operand, cotangent, swapped, start, stop)
            continue
        a, b = operand[:, None, index], cotangent[:, :, index]
        left, right = (b, a) if swapped else (a, b)
        left = left[..., start:stop].swapaxes(-1, -2).astype(here.dtype, copy=False)
        right = right.astype(here.dtype, copy=False)
        if add:
            here += left @ right
        else:
            np.matmul(left, right, out=here)


def _scatter(here, ids, cotangent, swapped, start, stop):
    """Add the cotangents of a gather's tokens to the table's rows start to stop (columns, when swapped)."""
    if swapped:
        example, token = np.nonzero((ids >= 0) & (ids < here.shape[-1]))
        values = cotangent[example, :, token][..., start:stop].astype(here.dtype, copy=False)
        at = (example, slice(None), slice(None), ids[example, token])
        np.add.at(here, at, values)  # pyright: ignore[reportArgumentType]
    else:
        example, token = np.nonzero((ids >= start) & (ids < stop))
        values = cotangent[example, :, token].astype(here.dtype, copy=False)
        at = (example, slice(None), ids[example, token] - start)
        np.add.at(here, at, values)  # pyright: ignore[reportArgumentType]


def _add_product(accumulator, product, gradients, extent):
    rows = extent.rows_each
    matrix = gradients.reshape(len(gradients) * rows, -1)
    left = matrix[: extent.n * rows]
    right = matrix[extent.n * rows : extent.count * rows] if extent.m else left
    np.matmul(left, right.T, out=product)  # NumPy calls syrk for a matrix and its own transpose
    accumulator += product


def _reduced(parts, extent, kernel):
    gradients = sum(np.concatenate(part.cotangents).astype(kernel.dtype, copy=False) for part in parts)
    product = np.empty_like(kernel)
    _add_product(kernel, product, gradients, extent)


def _rows(parts, rows, extent, kernel, workers):
    """Each token's gradient rows, summed within an example, meet those of the examples that have it too.

    An id beyond the table reads a filling and touches no row.
    """
    ids = np.concatenate([np.concatenate(part.operands) for part in parts], axis=1)[: extent.count]
    values = np.concatenate([np.concatenate(part.cotangents) for part in parts], axis=2)[: extent.count]
    width = values.shape[-1]
    keys = ids.astype(np.int64) * extent.count + np.arange(extent.count)[:, None]
    distinct, position = np.unique(keys, return_inverse=True)
    position = position.reshape(keys.shape)
    sums = np.zeros((len(distinct), extent.k, width), kernel.dtype)
    for token in range(ids.shape[1]):  # no two tokens of one column fall on the same key: examples differ
        inside = (ids[:, token] >= 0) & (ids[:, token] < rows)
        sums[position[inside, token]] += values[inside, :, token]
    example = distinct % extent.count
    bounds = np.flatnonzero(np.diff(distinct // extent.count, prepend=-1, append=-1))
    groups = list(itertools.pairwise(bounds))

    def work(accumulator, items, _):
        whole = accumulator.reshape(extent.n, extent.rows_each, -1, extent.rows_each)
        for start, stop in items:
            owners, found = example[start:stop], sums[start:stop]
            split = np.searchsorted(owners, extent.n) if extent.m else len(owners)
            left, right = found[:split], found[split:] if extent.m else found
            mine, theirs = owners[:split], (owners[split:] - extent.n) if extent.m else owners
            if len(mine) and len(theirs):
                flat = (
                    left.reshape(len(left) * extent.rows_each, -1) @ right.reshape(len(right) * extent.rows_each, -1).T
                )
                shape = (len(mine), extent.rows_each, len(theirs), extent.rows_each)
                whole[mine[:, None], :, theirs] += flat.reshape(shape).transpose(0, 2, 1, 3)

    workers.share(work, groups, kernel)


def pair_tiles(extent: Extent, tokens: int) -> tuple[int, list[tuple[int, int]]]:
    """Examples on a side of a tile of token pairs, and where tiles start: rows and columns of the examples."""
    side = max(1, PAIR_ROWS // tokens)
    rows, columns = range(0, extent.n, side), range(extent.n if extent.m else 0, extent.count, side)
    return side, [(i, j) for i in rows for j in columns if extent.m or j <= i]


def _pairs(part, extent, kernel, workers):
    operand = np.concatenate(part.operands)[: extent.count]
    cotangent = np.concatenate(part.cotangents)[: extent.count]
    tokens = operand.shape[2]
    first, end = (extent.n, extent.count) if extent.m else (0, extent.n)
    side, tiles = pair_tiles(extent, tokens)
    outputs = [(p, q) for p in range(extent.k) for q in range(extent.k) if extent.outputs == "full" or p == q]
    full = extent.outputs == "full"

    def work(accumulator, items, _):
        whole = accumulator.reshape(extent.n, extent.rows_each, -1, extent.rows_each)
        for i, j in items:
            left, right = slice(i, min(i + side, extent.n)), slice(j, min(j + side, end))
            shape = (left.stop - left.start, tokens * tokens, right.stop - right.start)
            target = whole[left, :, right.start - first : right.stop - first]
            for index in range(operand.shape[1]):
                data = _tile(operand[left, index], operand[right, index], kernel.dtype).reshape(shape)
                for p, q in outputs:
                    weight = _tile(cotangent[left, p, index], cotangent[right, q, index], kernel.dtype).reshape(shape)
                    found = np.einsum("ipj,ipj->ij", data, weight)
                    target[:, p if full else 0, :, q if full else 0] += found
                    if not extent.m and j < i:
                        whole[right, q if full else 0, left, p if full else 0] += found.T

    workers.share(work, tiles, kernel)


def _tile(left, right, dtype):
    """⟨left_it, right_js⟩ with axes (i, t) and (s, j): the examples of `right` run fastest."""
    columns = right.transpose(1, 0, 2).reshape(-1, right.shape[-1]).astype(dtype, copy=False)
    return left.reshape(-1, left.shape[-1]).astype(dtype, copy=False) @ columns.T
