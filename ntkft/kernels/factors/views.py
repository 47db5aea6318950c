"""Which elements of a weight a program's intermediate value holds, while it only rearranges them.

Between a weight and the product that uses it, programs transpose, reshape, cast, slice and split. Each of these moves
elements and computes nothing, so the gradient with respect to the rearranged weight holds the same numbers as the
gradient with respect to the weight. A *view* is an array of the weight's shape whose elements are never read: it
follows those operations by NumPy's own arithmetic on offsets and strides, on memory that is never touched and so
never occupied. Two uses of a weight overlap exactly where `numpy.shares_memory` says so.
"""

from typing import Any, TypeAlias

import numpy as np

View: TypeAlias = np.ndarray
"""A NumPy view into one unread byte per element of a leaf: shape, strides and offset say which elements, in order."""

Geometry: TypeAlias = tuple[tuple[int, int], ...]
"""Sizes and strides of axes, merged where they run on: equal geometries list the same elements in the same order."""


def whole(shape: tuple[int, ...]) -> View:
    """The view of all elements of a leaf, in order."""
    return np.empty(shape, np.uint8)


def rearrange(equation: Any, view: View) -> list[View] | None:
    """Views of an equation's results when it only rearranges `view`, its one view operand; None otherwise."""
    rule = _RULES.get(equation.primitive.name)
    return None if rule is None else rule(view, equation.params)


def is_rearrangement(equation: Any) -> bool:
    """Whether the equation's primitive is one of those that `rearrange` follows."""
    return equation.primitive.name in _RULES


def geometry(view: View) -> Geometry:
    """Merged sizes and strides of the axes; axes of length one count for nothing, repeated ones have stride 0."""
    merged: list[tuple[int, int]] = []
    for size, stride in zip(view.shape, view.strides, strict=True):
        if size == 1:
            continue
        if merged and merged[-1][1] == stride * size:
            merged[-1] = (merged[-1][0] * size, stride)
        else:
            merged.append((size, stride))
    return tuple(merged)


def repeats(view: View) -> bool:
    """Whether some element occurs more than once: a broadcast."""
    return any(stride == 0 for _, stride in geometry(view))


def offset(view: View) -> int:
    """Address of the first element, comparable between views of one leaf."""
    return view.__array_interface__["data"][0]


def _reshape(view, params):
    if params["dimensions"] is not None:
        return None
    try:
        return [np.reshape(view, params["new_sizes"], copy=False)]
    except ValueError:  # not expressible by strides: the caller treats the leaf as a whole
        return None


def _broadcast(view, params):
    placed = [1] * len(params["shape"])
    for axis, size in zip(params["broadcast_dimensions"], view.shape, strict=True):
        placed[axis] = size
    return [np.broadcast_to(np.reshape(view, placed, copy=False), params["shape"])]


def _slice(view, params):
    strides = params["strides"] or [1] * view.ndim
    bounds = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    return [view[tuple(slice(*bound) for bound in bounds)]]


def _cast(view, params):
    floating = params["new_dtype"].kind in "fV"  # V: bfloat16 and the 8-bit floats are extension types to NumPy
    return [view] if floating else None


_RULES = {
    "transpose": lambda view, params: [view.transpose(params["permutation"])],
    "reshape": _reshape,
    "squeeze": lambda view, params: [np.squeeze(view, axis=tuple(params["dimensions"]))],
    "broadcast_in_dim": _broadcast,
    "slice": _slice,
    "split": lambda view, params: np.split(view, np.cumsum(params["sizes"])[:-1], axis=params["axis"]),
    "rev": lambda view, params: [np.flip(view, params["dimensions"])],
    "convert_element_type": _cast,
    "copy": lambda view, params: [view],
    "copy_p": lambda view, params: [view],
    "name": lambda view, params: [view],
    "sharding_constraint": lambda view, params: [view],
}
