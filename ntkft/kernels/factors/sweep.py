"""One segment of a program, evaluated forward or differentiated in reverse, for one example.

The reverse step perturbs the result of every site by δ = 0 and differentiates with respect to δ: the derivative is the
cotangent b at that site, and the evaluation gives its operand a. Nothing of the size of the weights is formed.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Literal, Var

from ntkft.kernels.factors.capture import Program
from ntkft.kernels.factors.inline import bind
from ntkft.kernels.factors.segments import Flow, Segment
from ntkft.kernels.factors.sites import cotangent_factor, data_atom, kept_as, operand_factor, operand_key

Values = Sequence[jax.Array]


class Factors(NamedTuple):
    """What a segment's sites keep: each operand once, and a cotangent `[k, ...]` for each site."""

    operands: tuple[jax.Array, ...]
    cotangents: tuple[jax.Array, ...]


def operand_index(program: Program, segment: Segment) -> dict[int, int]:
    """Site → position of its operand in the segment's `Factors.operands`."""
    positions: dict[Hashable, int] = {}
    index = {}
    for i in segment.sites:
        key = operand_key(program, program.sites[i])
        if key is not None:
            index[i] = positions.setdefault(key, len(positions))
    return index


def forward(flow: Flow, segment: Segment, weights: Values, example: Values, stored: Values) -> list[jax.Array]:
    """Values of the segment's `writes` from those of its `reads`.

    weights: values of the segment's `weights`; example: values of its `inputs`, for one example
    """
    values = _values(segment, weights, example, stored)
    _run(flow.program, segment, values, {})
    return [_read(values, atom) for atom in segment.writes]


def reverse(
    flow: Flow, segment: Segment, weights: Values, example: Values, stored: Values, cotangents: Values | None
) -> tuple[list[jax.Array], Factors]:
    """Cotangents of the segment's `reads` (those that carry one) and its factors.

    cotangents: `[k, ...]` for each of the segment's `writes` that carries one; None for the last segment, whose
    writes are the outputs `[k]`
    """
    program = flow.program
    carried = [i for i, v in enumerate(segment.reads) if flow.stored[v]]
    shapes = [program.outputs(program.sites[i]).aval for i in segment.sites]

    def evaluate(moving, deltas):
        full = list(stored)
        for i, value in zip(carried, moving, strict=True):
            full[i] = value
        values = _values(segment, weights, example, full)
        perturbations = dict(zip(segment.sites, deltas, strict=True))
        _run(program, segment, values, perturbations)
        operands = [_data(program, values, i) for i in segment.sites]
        if cotangents is None:
            return [_read(values, atom) for atom in segment.writes], operands
        return [_read(values, v) for v in segment.writes if flow.stored[v]], operands

    deltas = [jnp.zeros(shape.shape, shape.dtype) for shape in shapes]
    outputs, pullback, data = jax.vjp(evaluate, [stored[i] for i in carried], deltas, has_aux=True)
    seeds = [jnp.eye(outputs[0].shape[0], dtype=outputs[0].dtype)] if cotangents is None else list(cotangents)

    def pull(seed):
        moving, perturbed = pullback(seed)
        found = [
            _kept(flow, i, cotangent_factor(program, program.sites[i], cotangent, value))
            for i, cotangent, value in zip(segment.sites, perturbed, data, strict=True)
        ]
        return moving, tuple(found)

    carried_cotangents, found = jax.vmap(pull)(seeds)
    positions = operand_index(program, segment)
    operands: dict[int, jax.Array] = {}
    for i, value in zip(segment.sites, data, strict=True):
        if i in positions and positions[i] not in operands:
            operands[positions[i]] = _kept(flow, i, operand_factor(program, program.sites[i], value))
    return carried_cotangents, Factors(tuple(operands[i] for i in range(len(operands))), found)


def _values(segment: Segment, weights: Values, example: Values, stored: Values) -> dict[Var, Any]:
    given = [*segment.weights, *segment.inputs, *segment.reads]
    return dict(zip(given, [*weights, *example, *stored], strict=True))


def _run(program: Program, segment: Segment, values: dict[Var, Any], deltas: Mapping[int, jax.Array]) -> None:
    at = {}
    for i, delta in deltas.items():
        site = program.sites[i]
        if site.kind == "explicit":
            leaf = program.outputs(site)
            values[leaf] = values[leaf] + delta
        else:
            at[site.equation] = delta
    for index in segment.equations:
        equation = program.equations[index]
        results = bind(equation, [_read(values, atom) for atom in equation.invars])
        if index in at:
            results[0] = results[0] + at[index]
        values.update(zip(equation.outvars, results, strict=True))


def _kept(flow: Flow, site: int, factor: jax.Array) -> jax.Array:
    return kept_as(flow.program.sites[site], factor, flow.kept)


def _data(program: Program, values: Mapping[Var, Any], site: int) -> Any:
    atom = data_atom(program, program.sites[site])
    return None if atom is None else _read(values, atom)


def _read(values: Mapping[Var, Any], atom: Any) -> Any:
    return atom.val if isinstance(atom, Literal) else values[atom]
