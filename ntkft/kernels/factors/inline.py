"""A traced function as one flat list of equations.

Calls (`jit`, `checkpoint`, …) are inlined; a scan is unrolled when its body sees a watched input, so that each
iteration's use of a weight is an equation of its own. Functions with custom derivatives stay calls: their derivative is
not that of their body.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Literal

from ntkft.kernels.factors.views import is_rearrangement

CALLS = frozenset({"jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint", "custom_lin"})
_LONGEST_SCAN = 512
"""A longer scan (a recurrence over a long sequence) is left whole rather than multiplied out."""


def flatten(closed: ClosedJaxpr, watched: Sequence[bool]) -> ClosedJaxpr:
    """The same function as a flat program; `watched` says for each input whether scans that see it are unrolled.

    Cost: one more trace; the program grows by the lengths of the unrolled scans.
    """
    avals = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in closed.jaxpr.invars]
    return jax.make_jaxpr(lambda *arguments: _evaluate(closed, arguments, watched)[0])(*avals)


def bind(equation: Any, operands: Sequence[Any]) -> list[Any]:
    """The equation's results for these operands, its effects on derivatives included."""
    bound = equation.primitive.get_bind_params(equation.params)
    # Before JAX 0.10 the functions of a custom derivative came apart from the other parameters.
    functions, params = bound if isinstance(bound, tuple) else ((), bound)
    results = equation.primitive.bind(*functions, *operands, **params)
    return list(results) if equation.primitive.multiple_results else [results]


def _evaluate(closed, arguments, flags):
    """Results and whether each is a rearrangement of a watched input."""
    values: dict[Any, tuple[Any, bool]] = {
        variable: (value, False) for variable, value in zip(closed.jaxpr.constvars, closed.consts, strict=True)
    }
    values |= dict(zip(closed.jaxpr.invars, zip(arguments, flags, strict=True), strict=True))

    def read(atom):
        return (atom.val, False) if isinstance(atom, Literal) else values[atom]

    for equation in closed.jaxpr.eqns:
        pairs = [read(atom) for atom in equation.invars]
        operands, seen = [value for value, _ in pairs], [flag for _, flag in pairs]
        name = equation.primitive.name
        if name in CALLS:
            inner = equation.params["jaxpr"] if "jaxpr" in equation.params else equation.params["call_jaxpr"]
            if not isinstance(inner, ClosedJaxpr):
                inner = ClosedJaxpr(inner, ())
            results, flags_out = _evaluate(inner, operands, seen)
        elif name == "scan" and any(seen) and equation.params["length"] <= _LONGEST_SCAN:
            results, flags_out = _unroll(equation.params, operands, seen)
        else:
            results = bind(equation, operands)
            flags_out = [any(seen) and is_rearrangement(equation)] * len(results)
        values.update(zip(equation.outvars, zip(results, flags_out, strict=True), strict=True))
    outputs = [read(atom) for atom in closed.jaxpr.outvars]
    return [value for value, _ in outputs], [flag for _, flag in outputs]


def _unroll(params, operands, flags):
    constants, carries = params["num_consts"], params["num_carry"]
    fixed, fixed_flags = operands[:constants], flags[:constants]
    carry, carry_flags = operands[constants : constants + carries], flags[constants : constants + carries]
    scanned, scanned_flags = operands[constants + carries :], flags[constants + carries :]
    steps = range(params["length"])
    collected = []
    for i in reversed(steps) if params["reverse"] else steps:
        sliced = [jax.lax.index_in_dim(array, i, keepdims=False) for array in scanned]
        results, result_flags = _evaluate(
            params["jaxpr"], [*fixed, *carry, *sliced], [*fixed_flags, *carry_flags, *scanned_flags]
        )
        carry, carry_flags = results[:carries], result_flags[:carries]
        collected.append(results[carries:])
    if params["reverse"]:
        collected.reverse()
    stacked = [jnp.stack(column) for column in zip(*collected, strict=True)]
    return [*carry, *stacked], [*carry_flags, *[False] * len(stacked)]
