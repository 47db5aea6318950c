"""What each kind of site keeps of one example, in the axes that contractions use.

    site       operand                     cotangent, for each output
    matmul     a `[batch, t, rows]`        b `[batch, t, width]`
    rows       token ids `[t]`             b `[t, width]`
    affine     none                        gradient `[width]`, already summed over the broadcast axes
    explicit   none                        gradient `[width]`

Here rows and width are those of the site's own matrix; a block sees it transposed where it says `swapped`.
"""

import math
from collections.abc import Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntkft.kernels.factors.capture import Program, Site, axes_of


def data_atom(program: Program, site: Site) -> Any | None:
    """The variable or literal that the site combines its weight with, where its gradient depends on that."""
    if site.kind == "explicit":
        return None
    equation = program.equations[site.equation]
    if site.kind == "affine" and equation.primitive.name != "mul":
        return None
    return equation.invars[1 - site.operand]


def operand_key(program: Program, site: Site) -> Hashable:
    """Equal for sites that keep the same operand (queries, keys and values share theirs); None for none."""
    if site.kind not in ("matmul", "rows"):
        return None
    equation = program.equations[site.equation]
    numbers = equation.params["dimension_numbers"] if site.kind == "matmul" else None
    axes = None if numbers is None else (tuple(numbers[0][1 - site.operand]), tuple(numbers[1][1 - site.operand]))
    return site.kind, id(data_atom(program, site)), axes


def operand_factor(program: Program, site: Site, data: Any) -> jax.Array:
    """The kept operand of a matmul or rows site, from the value of its data."""
    equation = program.equations[site.equation]
    if site.kind == "rows":
        ids = data.reshape(-1).astype(jnp.int32)
        return jnp.clip(ids, 0, site.view.shape[0] - 1) if "CLIP" in str(equation.params["mode"]) else ids
    contracted, batch = equation.params["dimension_numbers"]
    contracted, batch = contracted[1 - site.operand], batch[1 - site.operand]
    free = [i for i in range(data.ndim) if i not in contracted and i not in batch]
    ordered = data.transpose([*batch, *free, *contracted])
    shape = ordered.shape
    split = len(batch), len(batch) + len(free)
    return ordered.reshape(math.prod(shape[: split[0]]), math.prod(shape[split[0] : split[1]]), -1)


def cotangent_factor(program: Program, site: Site, cotangent: jax.Array, data: Any) -> jax.Array:
    """The kept cotangent of a site, from the cotangent of the equation's result (of the leaf, when explicit)."""
    if site.kind == "explicit":
        return cotangent.reshape(-1)
    equation = program.equations[site.equation]
    batch, _, width = axes_of(site, equation)
    if site.kind == "rows":
        return cotangent.reshape(-1, site.view.shape[1])
    if site.kind == "affine":
        gradient = cotangent if data is None else cotangent * data
        if equation.primitive.name == "sub" and site.operand == 1:
            gradient = -gradient
        repeated = tuple(i for i in range(gradient.ndim) if i not in width)
        return gradient.sum(axis=repeated, dtype=jnp.promote_types(gradient.dtype, jnp.float32)).reshape(-1)
    # A product's axes: batch, free axes of its left operand, free axes of its right one.
    free = len(width)
    tokens = cotangent.ndim - len(batch) - free
    if site.operand == 0:
        mine = list(range(len(batch), len(batch) + free))
        others = list(range(len(batch) + free, cotangent.ndim))
    else:
        others = list(range(len(batch), len(batch) + tokens))
        mine = list(range(len(batch) + tokens, cotangent.ndim))
    ordered = cotangent.transpose([*range(len(batch)), *others, *mine])
    count = math.prod(cotangent.shape[i] for i in others)
    return ordered.reshape(math.prod(cotangent.shape[: len(batch)]), count, -1)


def kept_as(site: Site, factor: Any, kept: np.dtype | None) -> Any:
    """A factor, or its shape, in the type that it is kept in: gradients that are formed already stay as they are."""
    if kept is None or site.kind not in ("matmul", "rows") or not jnp.issubdtype(factor.dtype, jnp.floating):
        return factor
    if isinstance(factor, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(factor.shape, kept)
    return factor.astype(kept)


def operand_shape(program: Program, site: Site) -> jax.ShapeDtypeStruct | None:
    """Shape and type of the kept operand of one example."""
    if site.kind not in ("matmul", "rows"):
        return None
    return jax.eval_shape(lambda data: operand_factor(program, site, data), _shape(data_atom(program, site)))


def cotangent_shape(program: Program, site: Site) -> jax.ShapeDtypeStruct:
    """Shape and type of the kept cotangent of one example and output."""
    atom = data_atom(program, site)
    shapes: Sequence[Any] = [_shape(program.outputs(site))] + ([] if atom is None else [_shape(atom)])
    return jax.eval_shape(lambda cotangent, data=None: cotangent_factor(program, site, cotangent, data), *shapes)


def _shape(atom: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(atom.aval.shape, atom.aval.dtype)
