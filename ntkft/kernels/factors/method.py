"""The method itself: a reverse sweep over segments, each block contracted as soon as it is complete.

Prepared once (program, forms, cuts, compiled steps), then called for each tile of examples: tiles of any size run the
same compiled steps, on more or fewer chunks.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntkft._tree import count_examples, leaf_paths
from ntkft._types import ApplyFn, PyTree
from ntkft.kernels.factors import blas
from ntkft.kernels.factors.capture import Block, Program, capture
from ntkft.kernels.factors.forms import Extent
from ntkft.kernels.factors.planning import FormChoice, Work, plan_work, report
from ntkft.kernels.factors.sweep import Factors, forward, operand_index, reverse
from ntkft.kernels.kernel import Kernel
from ntkft.kernels.tiles import BlockMethod, Progress


def factors_method(
    apply_fn: ApplyFn,
    params: PyTree,
    inputs: PyTree,
    *,
    largest: Extent,
    group_of: dict[str, str],
    memory: int,
    form: FormChoice = "auto",
) -> BlockMethod:
    """The method for kernels of blocks of examples like `inputs`, no larger than `largest`, within `memory` bytes.

    Cost of a block of n examples with s segments: 3 - 1/s forward-sized passes of 2·n·t·p operations, and the forms'.
    Raises `InputError` when `largest` does not fit.
    """
    paths = leaf_paths(params)
    leaves, groups = [jnp.asarray(leaf) for leaf in paths.values()], [group_of[path] for path in paths]
    program = capture(apply_fn, params, inputs)
    precision = str(jnp.result_type(*leaves))
    dtype = np.dtype(jnp.result_type(*leaves, program.closed.jaxpr.outvars[0].aval, jnp.float32))
    threads = blas.available_workers()
    work = plan_work(program, largest, dtype, memory=memory, groups=len(set(groups)), workers=threads, form=form)
    steps = _compile_steps(work)
    weights = [*program.closed.consts, *leaves]
    total = sum(block.size for block in program.blocks)

    def method(rows: PyTree, columns: PyTree | None, /, *, progress: Progress) -> Kernel:
        extent = Extent(
            count_examples(rows), 0 if columns is None else count_examples(columns), largest.k, largest.outputs
        )
        examples = rows if columns is None else jax.tree.map(lambda a, b: np.concatenate([a, b]), rows, columns)
        kernels = {name: np.zeros(extent.shape, dtype) for name in sorted(set(groups))}
        done = 0
        with blas.Workers(threads) as workers:
            for index, parts in _sweep(work, steps, weights, examples, workers):
                block = program.blocks[index]
                sizes = (block.batch, block.rows, block.width)
                blas.contract(work.forms[index], parts, sizes, extent, kernels[groups[block.leaf]], workers)
                del parts  # before the sweep goes on
                done += block.size
                progress(done, total)
        result = {name: _shaped(array, extent) for name, array in kernels.items()}
        whole = sum(result.values(), np.zeros_like(next(iter(result.values()))))
        plan = report(work, list(paths), [leaf.size for leaf in leaves], extent)
        return Kernel(whole, result, largest.outputs, precision, columns is None, plan)

    return method


def _compile_steps(work: Work) -> tuple[list[Callable], list[Callable]]:
    """Forward steps of all segments but the last, reverse steps of all."""
    ahead = [jax.jit(_batched(partial(forward, work.flow, segment))) for segment in work.segments[:-1]]
    back = [jax.jit(_batched(partial(reverse, work.flow, segment))) for segment in work.segments]
    return ahead, back


def _batched(function: Callable) -> Callable:
    """Over examples in micro-batches, one after the other."""

    def run(weights, *arguments):
        return jax.lax.map(lambda batch: jax.vmap(partial(function, weights))(*batch), arguments)

    return run


def _sweep(
    work: Work, steps: tuple[list[Callable], list[Callable]], weights: Any, examples: PyTree, workers: blas.Workers
) -> Iterator[tuple[int, list[blas.Part]]]:
    """Blocks with their parts, as segments complete them from the last to the first."""
    program, (ahead, back) = work.flow.program, steps
    arrays = [_chunked(np.asarray(leaf), work) for leaf in jax.tree.leaves(examples)]
    chunks = [list(row) for row in zip(*arrays, strict=True)]
    stored: list[list[Any]] = [[[] for _ in chunks]]
    for step in ahead:
        stored.append(_each(workers, step, weights, chunks, stored[-1]))
    cotangents: list[Any] = [None for _ in chunks]
    pending: dict[int, Any] = {}
    for segment, step in zip(reversed(work.segments), reversed(back), strict=True):
        found = _each(workers, step, weights, chunks, stored.pop(), cotangents)
        cotangents = [moving for moving, _ in found]
        factors = [_flat(made) for _, made in found]
        del found
        positions = operand_index(program, segment)
        for place, site in enumerate(segment.sites):
            operands = [f.operands[positions[site]] if site in positions else None for f in factors]
            pending[site] = operands, [f.cotangents[place] for f in factors]
        del factors
        for index, block in enumerate(program.blocks):
            if all(site in pending for site in block.sites):
                yield index, [_part(program, block, i, *pending.pop(s)) for i, s in enumerate(block.sites)]


def _part(program: Program, block: Block, position: int, operands: Any, cotangents: Any) -> blas.Part:
    kind = program.sites[block.sites[position]].kind
    return blas.Part(kind, block.swapped[position], operands, cotangents)


def _each(workers: blas.Workers, step: Callable, weights: Any, *columns: Sequence[Any]) -> list[Any]:
    """The step on each chunk; compiled by the first, then several chunks at a time."""

    def one(row):
        return jax.block_until_ready(step(weights, *row))

    rows = list(zip(*columns, strict=True))
    return [one(rows[0]), *workers.map(one, rows[1:])]


def _chunked(array: np.ndarray, work: Work) -> np.ndarray:
    """`[chunks, batches, micro, ...]`, filled up with the first examples."""
    chunks = work.chunks(len(array))
    rows = np.arange(chunks * work.batches * work.micro) % len(array)
    return array[rows].reshape(chunks, work.batches, work.micro, *array.shape[1:])


def _flat(factors: Factors) -> Factors:
    """On the host, without copies where memory is shared: `[examples of the chunk, ...]`."""
    return jax.tree.map(lambda array: np.asarray(array).reshape(-1, *array.shape[2:]), factors)


def _shaped(kernel: np.ndarray, extent: Extent) -> np.ndarray:
    if not extent.m:
        kernel = np.tril(kernel) + np.tril(kernel, -1).T
    k = extent.k
    return kernel.reshape(extent.n, k, -1, k) if extent.outputs == "full" else kernel
