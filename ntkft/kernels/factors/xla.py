"""Contraction on devices: the forms of `blas` as compiled programs, the work of each block shared out over a mesh.

Every device sums a kernel of its own, `[devices, *extent.shape]` together, over its share of a block:

    materialise, rows  some rows of the gradient matrix (or columns, where it is wider than tall), of all examples
    reduced            some entries of the gradient vector, of all examples
    pairs              some tiles of examples

so that symmetry halves the products on each, factors are all that travels between them, and kernels are added once, at
the end. A gather's gradient is a product of one-hot tokens with its cotangents: a scatter would add in another order in
every run. A program is compiled for each shape of block and extent, and used for all blocks and tiles of that shape.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ntkft.kernels.factors.forms import Extent, Form

COLUMNS = 16_384
"""Columns of a slice: long enough for a product to run at full rate, beside 64 kB for each example."""
TILE = 512
"""Least rows of a product: a symmetric kernel is computed in tiles of rows, each up to its diagonal."""
_TILES = 16
_PAIR_ROWS = 2048
"""Side of a tile of token pairs: two such products stay in a device's cache while they are multiplied and summed."""


@dataclass(frozen=True)
class Part:
    """One site of a block: its kind, operand (or None) and cotangent, both `[batches, micro, ...]` over examples."""

    kind: str
    swapped: bool
    operand: jax.Array | None
    cotangent: jax.Array


def zeros(extent: Extent, dtype: np.dtype, mesh: Mesh) -> jax.Array:
    """A kernel for each device of the mesh, to be added up in the end."""
    return jnp.zeros((mesh.size, *extent.shape), dtype, device=NamedSharding(mesh, PartitionSpec(mesh.axis_names)))


def contract(
    form: Form, parts: Sequence[Part], sizes: tuple[int, int, int], extent: Extent, kernel: jax.Array, mesh: Mesh,
    *, columns: int = COLUMNS, tile: int = TILE, side: int | None = None,
) -> jax.Array:  # fmt: skip
    """A block's kernel added to `kernel`, which is given up; `sizes` are the block's batch, rows and width.

    columns: at most so many of a slice's gradients are formed at once
    tile:    least rows of one product of a symmetric kernel
    side:    examples a side of a tile of pairs; None is about 2,048 tokens
    """
    factors = [(part.operand, part.cotangent) for part in parts]
    shared = {"extent": extent, "mesh": mesh, "tile": tile}
    if form == "reduced":
        return _reduced(kernel, [cotangent for _, cotangent in factors], **shared)
    if form == "pairs":
        tokens = factors[0][1].shape[-2]
        side = side or max(1, min(extent.n, _PAIR_ROWS // (tokens * extent.rows_each)))
        return _pairs(kernel, *factors[0], extent=extent, mesh=mesh, side=side)
    used = None
    kinds = tuple((part.kind, part.swapped) for part in parts)
    if form == "rows":
        ids, used = _renumber([part.operand for part in parts], sizes[1], extent.count, mesh)
        factors = [(renumbered, cotangent) for renumbered, (_, cotangent) in zip(ids, factors, strict=True)]
        tokens = sum(renumbered.shape[-1] for renumbered in ids)
        sizes = (1, min(sizes[1], extent.count * tokens), sizes[2])
    return _materialise(kernel, factors, used, kinds=kinds, sizes=sizes, columns=columns, **shared)


_compiled = partial(jax.jit, donate_argnames="kernel")


@partial(_compiled, static_argnames=("kinds", "sizes", "extent", "mesh", "columns", "tile"))
def _materialise(kernel, factors, used, *, kinds, sizes, extent, mesh, columns, tile):
    """Gradients of all examples, a slice of rows at a time; `used` rows, of a table whose other rows are zero."""
    batch, rows, width = sizes
    flip = used is None and width > rows  # the longer axis is shared out, so that the shorter factors are gathered
    length, across = (width, rows) if flip else (rows, width)
    share = -(-length // mesh.size)
    most = max(1, columns // (across * (1 if extent.outputs == "full" else extent.k)))
    step = -(-share // -(-share // most))
    fixed = -(-share // step)
    turned = [swapped != flip for _, swapped in kinds]  # the cotangent has the axis that is shared out
    padded = step * fixed * mesh.size
    arrays, specs = [], []
    for (kind, _), side, (operand, cotangent) in zip(kinds, turned, factors, strict=True):
        if side:
            cotangent = _padded(cotangent, padded)
        elif kind == "rows":
            operand = jnp.where(operand < length, operand, -1)  # an id beyond the table is none of the padding's rows
        else:
            operand = _padded(operand, padded)
        arrays.append((operand, cotangent))
        here, everywhere = _last(mesh, cotangent.ndim if side else operand.ndim), PartitionSpec()
        specs.append((everywhere, here) if side else (everywhere if kind == "rows" else here, everywhere))

    def work(kernel, arrays, used):
        slices = fixed if used is None else -(-used // (step * mesh.size))
        first = jax.lax.axis_index(mesh.axis_names) * slices * step
        sites = [
            (_examples(operand, extent.count), _examples(cotangent, extent.count)) for operand, cotangent in arrays
        ]

        def add(item, kernel):
            index, start = item // slices, item % slices * step
            gradients = sum(
                _form(kind, side, pair, index, (start, step, first), across, kernel.dtype)
                for (kind, _), side, pair in zip(kinds, turned, sites, strict=True)
            )
            return _add_product(kernel, gradients, extent, tile)

        return jax.lax.fori_loop(0, batch * slices, add, kernel[0])[None]

    whole = _last(mesh, 1)
    specs = (whole, specs, PartitionSpec())
    return jax.shard_map(work, mesh=mesh, in_specs=specs, out_specs=whole)(kernel, arrays, used)


def _form(kind, turned, factors, index, where, across, dtype):
    """One site's gradients `[n, k, step, across]`, rows `start` to `start + step` of this device's share.

    turned: those rows belong to the cotangent's axis and not to the operand's
    """
    start, step, first = where
    operand, cotangent = factors
    if kind == "rows":
        b = cotangent
        length, origin = (across, 0) if turned else (step, first + start)
        a = jax.nn.one_hot(operand - origin, length, dtype=b.dtype)
    else:
        a, b = _at(operand, index, 1), _at(cotangent, index, 2)
        if not turned:
            a = jax.lax.dynamic_slice_in_dim(a, start, step, axis=2)
    if turned:
        b = jax.lax.dynamic_slice_in_dim(b, start, step, axis=3)
    return _product("nta,nktb->nkba" if turned else "nta,nktb->nkab", a, b, dtype)


def _product(axes, left, right, dtype):
    """Sums in `dtype`. Two 16-bit factors are multiplied as they are: their products are exact in float32."""
    if not (left.dtype == right.dtype and left.dtype.itemsize == 2 and dtype == jnp.float32):
        left, right = left.astype(dtype), right.astype(dtype)
    return jnp.einsum(axes, left, right, preferred_element_type=dtype)


def _add_product(kernel, gradients, extent, tile):
    """Gradients `[examples, k, ...]` times their transposes; of a symmetric kernel, the lower triangle."""
    matrix = gradients.reshape(extent.count * extent.rows_each, -1)
    height = extent.shape[0]
    if extent.m:
        return kernel + _product("ip,jp->ij", matrix[:height], matrix[height:], kernel.dtype)
    rows = max(tile, -(-height // _TILES))
    for start in range(0, height, rows):
        stop = min(start + rows, height)
        found = _product("ip,jp->ij", matrix[start:stop], matrix[:stop], kernel.dtype)
        kernel = kernel.at[start:stop, :stop].add(found)
    return kernel


@partial(_compiled, static_argnames=("extent", "mesh", "tile"))
def _reduced(kernel, cotangents, *, extent, mesh, tile):
    first, *others = [cotangent.astype(kernel.dtype) for cotangent in cotangents]
    gradients = sum(others, first)
    gradients = _padded(gradients, -(-gradients.shape[-1] // mesh.size) * mesh.size)

    def work(kernel, gradients):
        return _add_product(kernel[0], _examples(gradients, extent.count), extent, tile)[None]

    whole = _last(mesh, 1)
    specs = (whole, _last(mesh, gradients.ndim))
    return jax.shard_map(work, mesh=mesh, in_specs=specs, out_specs=whole)(kernel, gradients)


@partial(_compiled, static_argnames=("extent", "mesh", "side"))
def _pairs(kernel, operand, cotangent, *, extent, mesh, side):
    heights, widths = -(-extent.n // side), -(-(extent.m or extent.n) // side)
    tiles = np.array([(i, j) for i in range(heights) for j in range(widths) if extent.m or j <= i])
    each = extent.rows_each

    def work(kernel, operand, cotangent):
        a, b = _examples(operand, extent.count), _examples(cotangent, extent.count)
        batch, tokens = a.shape[1:3]
        b = b.transpose(0, 2, 1, 3, 4) if each > 1 else b.transpose(0, 2, 3, 1, 4)
        b = b.reshape(extent.count, batch, each, tokens, -1)  # a trace sums over outputs as it does over the width
        left = [_rows_padded(x[: extent.n], heights * side) for x in (a, b)]
        right = [_rows_padded(x[extent.n :], widths * side) for x in (a, b)] if extent.m else left

        def add(turn, found):
            item = turn * mesh.size + jax.lax.axis_index(mesh.axis_names)
            i, j = _at(jnp.asarray(tiles), item // batch, 0) * side
            mine, theirs = (
                [_at(jax.lax.dynamic_slice_in_dim(x, at, side), item % batch, 1) for x in arrays]
                for at, arrays in ((i, left), (j, right))
            )
            data = _product("itc,jsc->itjs", mine[0], theirs[0], kernel.dtype)
            weight = _product("iptc,jqsc->iptjqs", mine[1], theirs[1], kernel.dtype)
            sums = (data[:, None, :, :, None, :] * weight).sum(axis=(2, 5))
            at = (i, 0, j, 0)
            return jax.lax.dynamic_update_slice(found, jax.lax.dynamic_slice(found, at, sums.shape) + sums, at)

        turns = (len(tiles) * batch - jax.lax.axis_index(mesh.axis_names) + mesh.size - 1) // mesh.size
        nothing = jnp.zeros((heights * side, each, widths * side, each), kernel.dtype)
        nothing = jax.lax.pcast(nothing, mesh.axis_names, to="varying")
        found = jax.lax.fori_loop(0, turns, add, nothing)
        return kernel + found[: extent.n, :, : extent.m or extent.n].reshape(kernel.shape)

    whole = _last(mesh, 1)
    specs = (whole, PartitionSpec(), PartitionSpec())
    return jax.shard_map(work, mesh=mesh, in_specs=specs, out_specs=whole)(kernel, operand, cotangent)


def _renumber(operands: Sequence[Any], rows: int, count: int, mesh: Mesh) -> tuple[list[jax.Array], np.int32]:
    """Token ids numbered anew from 0 in the order of the ids that occur, -1 for those that are none; how many occur."""
    flat = [np.asarray(ids) for ids in operands]
    examples = np.concatenate([ids.reshape(-1, ids.shape[-1])[:count].reshape(-1) for ids in flat])
    found = np.unique(examples[(examples >= 0) & (examples < rows)])
    numbers = np.full(rows, -1, np.int32)
    numbers[found] = np.arange(len(found))
    renumbered = [np.where((ids >= 0) & (ids < rows), numbers[np.clip(ids, 0, rows - 1)], -1) for ids in flat]
    return jax.device_put(renumbered, NamedSharding(mesh, PartitionSpec())), np.int32(len(found))


def _examples(array: jax.Array, count: int) -> jax.Array:
    """`[batches, micro, ...]` as `[examples, ...]`, without those that filled the last batch up."""
    return array.reshape(-1, *array.shape[2:])[:count]


def _at(array: jax.Array, index: Any, axis: int) -> jax.Array:
    return jax.lax.dynamic_index_in_dim(array, index, axis, keepdims=False)


def _last(mesh: Mesh, ndim: int) -> PartitionSpec:
    """The last axis shared out over all devices."""
    return PartitionSpec(*[None] * (ndim - 1), mesh.axis_names)


def _padded(array: jax.Array, length: int) -> jax.Array:
    """Zeros after the last axis, up to `length`."""
    return jnp.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, length - array.shape[-1])])


def _rows_padded(array: jax.Array, length: int) -> jax.Array:
    return jnp.pad(array, [(0, length - len(array))] + [(0, 0)] * (array.ndim - 1))
