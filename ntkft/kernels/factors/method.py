"""The method itself: a reverse sweep over segments, each block contracted as soon as it is complete.

Prepared once (program, forms, cuts, compiled steps), then called for each tile of examples: tiles of any size run the
same compiled steps, on more or fewer examples.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from itertools import accumulate
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ntkft._errors import InputError
from ntkft._tree import count_examples, leaf_paths
from ntkft._types import ApplyFn, PyTree
from ntkft.kernels.factors.capture import Program, capture
from ntkft.kernels.factors.devices import Devices
from ntkft.kernels.factors.forms import Extent, Form
from ntkft.kernels.factors.host import Host
from ntkft.kernels.factors.planning import FormChoice, Resources, Work, plan_work, report
from ntkft.kernels.factors.segments import Segment
from ntkft.kernels.factors.steps import Steps, compile_steps
from ntkft.kernels.factors.sweep import Factors, operand_index
from ntkft.kernels.kernel import Kernel, Plan, Precision
from ntkft.kernels.tiles import BlockMethod, Progress


@runtime_checkable
class Executor(Resources, Protocol):
    """Where steps run and blocks are contracted: `Host` or `Devices`, whose methods say more."""

    def compile(self, step: Callable, arguments: Sequence[Any]) -> Callable: ...
    def place(self, weights: Sequence[Any]) -> list[Any]: ...
    def chunks(self, examples: PyTree, work: Work) -> list[list[Any]]: ...
    def each(self, step: Callable, weights: Sequence[Any], *columns: Sequence[Any]) -> list[Any]: ...
    def part(self, swapped: bool, kind: str, operands: Sequence[Any], cotangents: Sequence[Any]) -> Any: ...
    def zeros(self, extent: Extent, dtype: np.dtype) -> Any: ...
    def contract(
        self, form: Form, parts: Sequence[Any], sizes: tuple[int, int, int], extent: Extent, kernel: Any
    ) -> Any: ...
    def collect(self, kernel: Any) -> np.ndarray: ...


def factors_method(
    apply_fn: ApplyFn,
    params: PyTree,
    inputs: PyTree,
    *,
    side: int,
    shrink: bool,
    largest: Callable[[int], Extent],
    group_of: dict[str, str],
    memory: int,
    form: FormChoice,
    precision: Precision,
    mesh: Mesh | None,
) -> tuple[int, Plan, BlockMethod]:
    """The method for tiles of examples like `inputs` within `memory` bytes, the side of a tile, and the plan.

    side:    examples a side of a tile; with `shrink`, halved until one fits
    largest: the largest block that tiles of a side make
    mesh:    devices to run on, with `memory` bytes each; None is the CPU's cores, or the first accelerator

    Cost of a block of n examples with s segments: 3 - 1/s forward-sized passes of 2·n·t·p operations (up to one more
    where the values at all cuts do not fit), and the forms'.
    Raises `InputError` when a tile does not fit, and for a mesh with devices of other processes.
    """
    executor = _executor(mesh, memory, precision)
    paths = leaf_paths(params)
    leaves, groups = list(paths.values()), [group_of[path] for path in paths]
    program = capture(apply_fn, params, inputs, products="highest" if precision != "tensorfloat32" else precision)
    rounded = str(jnp.result_type(*leaves)) if precision == "full" else precision
    kept = np.dtype(jnp.bfloat16) if precision == "bfloat16" else None
    dtype = np.dtype(jnp.result_type(*leaves, program.closed.jaxpr.outvars[0].aval, jnp.float32))
    while True:
        extent = largest(side)
        try:
            work = plan_work(
                program, extent, dtype, executor, memory=memory, groups=len(set(groups)), form=form, kept=kept
            )
        except InputError:
            if not shrink or side == 1:
                raise
            side = -(-side // 2)
        else:
            break
    steps = compile_steps(work.flow, work.segments, executor.compile)
    weights = executor.place([*program.closed.consts, *leaves])
    total = sum(block.size for block in program.blocks)

    def method(rows: PyTree, columns: PyTree | None, /, *, progress: Progress) -> Kernel:
        extent = Extent(
            count_examples(rows),
            0 if columns is None else count_examples(columns),
            work.largest.k,
            work.largest.outputs,
        )
        examples = rows if columns is None else jax.tree.map(lambda a, b: np.concatenate([a, b]), rows, columns)
        kernels = {name: executor.zeros(extent, dtype) for name in sorted(set(groups))}
        done = 0
        for index, parts in _sweep(work, steps, executor, weights, examples):
            block, name = program.blocks[index], groups[program.blocks[index].leaf]
            kernels[name] = executor.contract(work.forms[index], parts, block.sizes, extent, kernels[name])
            del parts  # before the sweep goes on
            done += block.size
            progress(done, total)
        result = {name: _shaped(executor.collect(kernel), extent) for name, kernel in kernels.items()}
        whole = sum(result.values(), np.zeros_like(next(iter(result.values()))))
        plan = report(work, list(paths), [leaf.size for leaf in leaves], extent)
        return Kernel(whole, result, extent.outputs, rounded, columns is None, plan)

    return side, report(work, list(paths), [leaf.size for leaf in leaves], work.largest), method


def _executor(mesh: Mesh | None, memory: int, precision: Precision) -> Executor:
    return Host(memory) if mesh is None and jax.default_backend() == "cpu" else Devices(mesh, memory, precision)


def _sweep(
    work: Work, steps: Steps, executor: Executor, weights: Sequence[Any], examples: PyTree
) -> Iterator[tuple[int, list[Any]]]:
    """Blocks with their parts, as segments complete them from the last to the first."""
    chunks = executor.chunks(examples, work)

    def ahead(values: list[Any], segment: int) -> list[Any]:
        return executor.each(steps.ahead[segment], weights, chunks, values)

    needed = next((i for i, segment in enumerate(work.segments) if segment.sites), len(work.segments))
    kept: list[list[Any]] = [[[] for _ in chunks]]
    for stretch in work.cuts.stretches[:-1]:
        kept.append(reduce(ahead, stretch, kept[-1]))
    cotangents: list[Any] = [None for _ in chunks]
    pending: dict[int, Any] = {}
    for stretch in reversed(work.cuts.stretches):
        stored = list(accumulate(stretch[:-1], ahead, initial=kept.pop()))
        for segment in reversed(stretch):
            if segment < needed:  # nothing to differentiate from here on
                return
            found = executor.each(steps.back[segment], weights, chunks, stored.pop(), cotangents)
            cotangents, factors = [list(column) for column in zip(*found, strict=True)]
            del found
            pending |= _by_site(work.flow.program, work.segments[segment], factors)
            del factors
            for index, block in enumerate(work.flow.program.blocks):
                if all(site in pending for site in block.sites):
                    uses = zip(block.sites, block.swapped, strict=True)
                    yield index, [executor.part(swapped, *pending.pop(site)) for site, swapped in uses]


def _by_site(program: Program, segment: Segment, factors: Sequence[Factors]) -> dict[int, Any]:
    """For each site of a segment its kind, and its operands and cotangents chunk by chunk."""
    positions = operand_index(program, segment)
    return {
        site: (
            program.sites[site].kind,
            [f.operands[positions[site]] if site in positions else None for f in factors],
            [f.cotangents[place] for f in factors],
        )
        for place, site in enumerate(segment.sites)
    }


def _shaped(kernel: np.ndarray, extent: Extent) -> np.ndarray:
    if not extent.m:
        kernel = np.tril(kernel) + np.tril(kernel, -1).T
    k = extent.k
    return kernel.reshape(extent.n, k, -1, k) if extent.outputs == "full" else kernel
