"""Segments as compiled steps over batches of examples; segments that are the same program share one.

The layers of a transformer are one program with different weights: however deep the model, a few steps are compiled.
"""

import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from jax.extend.core import jaxpr_as_fun

from ntkft.kernels.factors.segments import Flow, Segment
from ntkft.kernels.factors.sweep import forward, reverse

Step = Callable[..., Any]


@dataclass(frozen=True)
class Steps:
    """`ahead[i](weights, inputs, stored)` and `back[i](weights, inputs, stored, cotangents)`, segment by segment.

    weights: the program's constants, then the leaves; all else `[batches, examples, ...]`, as are the results of
             `sweep.forward` and `sweep.reverse` that come back. The last segment takes None for cotangents.
    """

    ahead: tuple[Step, ...]
    back: tuple[Step, ...]


def compile_steps(
    flow: Flow, segments: Sequence[Segment], compiler: Callable[[Callable, Sequence[Any]], Step]
) -> Steps:
    """Steps that compile when first called, once for each program and shape, by `compiler(program, arguments)`."""
    known: dict[str, Step] = {}
    ahead = tuple(_Step(partial(forward, flow, segment), flow, segment, compiler, known) for segment in segments[:-1])
    back = tuple(_Step(partial(reverse, flow, segment), flow, segment, compiler, known) for segment in segments)
    return Steps(ahead, back)


class _Step:
    """One segment's step: picks what the segment reads, so that equal segments are equal programs.

    Threads may call it at once: the first compiles, the others wait.
    """

    def __init__(self, function: Callable, flow: Flow, segment: Segment, compiler: Callable, known: dict[str, Step]):
        self._function, self._compiler, self._known = function, compiler, known
        self._compiling = threading.Lock()
        jaxpr = flow.program.closed.jaxpr
        weights = [*jaxpr.constvars, *jaxpr.invars[: flow.program.leaves]]
        inputs = jaxpr.invars[flow.program.leaves :]
        self._weights = [weights.index(v) for v in segment.weights]
        self._inputs = [inputs.index(v) for v in segment.inputs]
        self._programs: dict[Any, tuple[Step, Any]] = {}

    def __call__(self, weights: Sequence[Any], inputs: Sequence[Any], *rest: Any) -> Any:
        arguments = [weights[i] for i in self._weights], [inputs[i] for i in self._inputs], *rest
        flat, structure = jax.tree.flatten(arguments)
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in flat)
        with self._compiling:
            if shapes not in self._programs:
                self._programs[shapes] = self._program(flat, structure)
        step, result = self._programs[shapes]
        return jax.tree.unflatten(result, step(*flat))

    def _program(self, flat, structure):
        results = []

        def run(*leaves):
            weights, *batches = jax.tree.unflatten(structure, leaves)
            made = jax.lax.map(lambda batch: jax.vmap(partial(self._function, weights))(*batch), tuple(batches))
            values, result = jax.tree.flatten(made)
            results[:] = [result]
            return values

        closed = jax.make_jaxpr(run)(*flat)
        # A printed program names its variables in order: equal texts are equal programs. A function's address in it
        # (a custom derivative) only ever keeps programs apart.
        key = re.sub(r"\s+", " ", str(closed.jaxpr)) + str([(c.shape, c.dtype) for c in closed.consts])
        if closed.consts or key not in self._known:
            self._known[key] = self._compiler(jaxpr_as_fun(closed), flat)
        return self._known[key], results[0]
