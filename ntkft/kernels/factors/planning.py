"""What is decided before the examples are looked at: forms, cuts and batches within a memory budget."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np

from ntkft._errors import InputError
from ntkft.kernels.factors import blas
from ntkft.kernels.factors.capture import Block, Program, Site
from ntkft.kernels.factors.forms import Extent, Form, form_flops, possible_forms
from ntkft.kernels.factors.segments import Cuts, Flow, Segment, choose_cuts, trace_flow
from ntkft.kernels.factors.sites import operand_shape
from ntkft.kernels.kernel import LeafPlan, Plan

FormChoice: TypeAlias = Literal["auto", "materialise", "pairs"]

SLICES = 8
"""Slices of gradients take at most this fraction, an eighth, of the memory."""
_BATCHES_PER_CHUNK = 16


@dataclass(frozen=True)
class Work:
    """A program with all decisions made for blocks of up to `largest` examples.

    micro:   examples differentiated at once
    batches: micro-batches, one after the other, of one chunk; chunks run side by side
    bytes:   estimated peak memory
    """

    flow: Flow
    cuts: Cuts
    segments: tuple[Segment, ...]
    forms: tuple[Form, ...]
    largest: Extent
    micro: int
    batches: int
    bytes: int

    def chunks(self, examples: int) -> int:
        """Chunks that hold this many examples."""
        return -(-examples // (self.micro * self.batches))


@runtime_checkable
class Resources(Protocol):
    """What there is to work with.

    threads, devices: so many of each differentiate side by side; threads share the memory of their device
    tokens:           differentiated at once by each thread
    """

    threads: int
    devices: int
    tokens: int

    def faster_form(
        self, possible: tuple[Form, ...], sizes: tuple[int, int, int], tokens: int, extent: Extent, dtype: np.dtype
    ) -> Form:
        """Of the possible forms of a block of `sizes` and `tokens`, the one that takes less time."""
        ...

    def overhead(self, held: int, again: float, segments: int, equations: int) -> float:
        """Seconds, up to a constant.

        To hold so many bytes, do so many operations again, run so many segments and compile so many equations.
        """
        ...


def plan_work(
    program: Program, largest: Extent, dtype: np.dtype, resources: Resources, *, memory: int, groups: int,
    form: FormChoice, kept: np.dtype | None,
) -> Work:  # fmt: skip
    """Forms, cuts and batches for blocks of up to `largest` examples within `memory` bytes on each device.

    Several devices share out the examples of the sweep; of a block that they contract, each holds all factors.
    Raises `InputError` when even the finest cut does not fit.
    """
    flow = trace_flow(program, largest.k, kept=kept)
    longest = max((site_tokens(program, site) for site in program.sites), default=1)
    workers, share = resources.threads, -(-largest.count // resources.devices)
    micro = max(1, min(resources.tokens // max(1, longest), -(-share // workers)))
    kernel = int(np.prod(largest.shape)) * dtype.itemsize
    fixed = kernels = (groups + 2 * workers + 1) * kernel
    if resources.devices > 1:
        fixed += largest.count * max((flow.factor_bytes(block.sites) for block in program.blocks), default=0)
    forward_flops = [
        (program.sites[i].equation, 2 * site_tokens(program, program.sites[i]) * math.prod(block.sizes))
        for block in program.blocks
        for i in block.sites
    ]
    while True:
        chunks = workers * -(-share // (workers * micro * _BATCHES_PER_CHUNK))
        batches = -(-share // (micro * chunks))
        padded = -(-share // (micro * batches)) * batches * micro
        slices = min(
            workers * padded * resources.devices * largest.k * blas.COLUMNS * dtype.itemsize,
            memory // SLICES,
        )
        cost = partial(_peak_bytes, flow, padded, workers * micro, fixed + slices)
        products = [(equation, padded * flops // workers) for equation, flops in forward_flops]
        seconds = partial(_overhead, flow, products, cost, resources)
        cuts = choose_cuts(flow, cost, memory, seconds)
        if cuts is not None:
            break
        if micro == 1:
            raise InputError(
                f"memory: {largest.count} examples at once do not fit in {memory / 1e9:.3g} GB (their kernel alone "
                f"takes {kernels / 1e9:.3g} GB); raise memory, or lower tile, the examples on a side of one tile"
            )
        micro //= 2
    forms: tuple[Form, ...] = tuple(
        choose_form(program, block, largest, form, dtype, resources) for block in program.blocks
    )
    return Work(flow, cuts, flow.segments(cuts), forms, largest, micro, batches, cost(cuts))


def _peak_bytes(flow: Flow, examples: int, at_once: int, fixed: int, cuts: Cuts) -> int:
    """Most that a sweep with these cuts holds: values at cuts, moving cotangents, factors, one segment's own values."""
    bounds = [0, *cuts.places, len(flow.program.equations)]
    peak = 0
    for stop in range(len(bounds) - 1, 0, -1):
        start, end = bounds[stop - 1], bounds[stop]
        latest = max((cut for cut in cuts.kept if cut <= start), default=0)
        values = sum(flow.cut_bytes(cut) for cut in bounds[1:stop] if cut in cuts.kept or cut > latest)
        moving = flow.cotangent_bytes(start) + (flow.cotangent_bytes(end) if end != bounds[-1] else 0)
        held = flow.factor_bytes(_held(flow.program, start, end))
        peak = max(peak, examples * (values + moving + held) + at_once * flow.work_bytes(start, end))
    return peak + fixed


def _overhead(
    flow: Flow, products: Sequence[tuple[int, int]], cost: Callable[[Cuts], int], resources: Resources, cuts: Cuts
) -> float:
    """What the choice of cuts decides of the time: all that stands before the last cut is evaluated twice.

    products: for each site its equation, and the operations of evaluating it for all examples of one thread
    """
    last = max(cuts.places, default=0)
    again = sum(operations for equation, operations in products if equation < last)
    return resources.overhead(cost(cuts), again, len(cuts.places) + 1, flow.compiled_equations(cuts))


def choose_form(
    program: Program, block: Block, extent: Extent, wanted: FormChoice, dtype: np.dtype, resources: Resources
) -> Form:
    """The wanted form where the block has it, else the fastest."""
    possible = possible_forms(program, block)
    if wanted in possible:
        return wanted
    return resources.faster_form(possible, block.sizes, block_tokens(program, block), extent, dtype)


def report(work: Work, paths: Sequence[str], sizes: Sequence[int], extent: Extent) -> Plan:
    """The plan of a block of this extent, leaf by leaf."""
    program = work.flow.program
    rows = []
    for form, block in zip(work.forms, program.blocks, strict=True):
        kinds = tuple(program.sites[i].kind for i in block.sites)
        flops = form_flops(form, block.sizes, extent, block_tokens(program, block))
        held = work.flow.factor_bytes(block.sites) * extent.count
        rows.append(LeafPlan(paths[block.leaf], kinds, form, flops, held))
    used = {block.leaf for block in program.blocks}
    return Plan(
        method="factors",
        parameters=sum(sizes),
        zeros=sum(size for i, size in enumerate(sizes) if i not in used),
        pieces=len(work.segments),
        micro_batch=work.micro,
        bytes=work.bytes,
        leaves=tuple(rows),
    )


def block_tokens(program: Program, block: Block) -> int:
    """Tokens over which a block's gradient sums, over all its sites."""
    return max(1, sum(site_tokens(program, program.sites[i]) for i in block.sites))


def site_tokens(program: Program, site: Site) -> int:
    """Tokens of a matmul site; 0 for others."""
    shape = operand_shape(program, site)
    return shape.shape[1] if shape is not None and site.kind == "matmul" else 0


def _held(program: Program, start: int, end: int) -> list[int]:
    """Sites whose factors are in memory once equations start to end are differentiated."""
    held = []
    for block in program.blocks:
        equations = [program.sites[i].equation for i in block.sites]
        if min(equations) < end:
            held += [i for i, e in zip(block.sites, equations, strict=True) if e >= start]
    return held
