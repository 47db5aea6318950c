"""Checkpoint tensors to parameters, as a bijection: every tensor is used once, every leaf is filled once.

A family's `NameTable` has one row per module, (tensor prefix, leaf prefix, kind); `#` stands for the layer. The kind
says which tensors a module has, which leaves each becomes, and how these are laid out in it. One tensor may hold
several leaves (the fused query-key-value projections of GPT-2 and GPT-NeoX): they are taken apart, so that each keeps
its own kernel group.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from ntkft._errors import refuse
from ntkft._types import Array, PyTree
from ntkft.models.config import Patches, TransformerConfig


class Layout(NamedTuple):
    """How leaves lie in a tensor: two functions, each the inverse of the other."""

    pack: Callable[[TransformerConfig, Sequence[Array]], Array]
    unpack: Callable[[TransformerConfig, np.ndarray], Sequence[np.ndarray]]


AS_IT_IS = Layout(lambda config, leaves: leaves[0], lambda config, tensor: [tensor])
TRANSPOSED = Layout(lambda config, leaves: leaves[0].T, lambda config, tensor: [tensor.T])
"""A torch linear layer stores [out, in]; our kernels are [in, out]."""
FIRST_OF_ONE = Layout(lambda config, leaves: leaves[0][None], lambda config, tensor: [tensor[0]])
"""A table stored with a batch axis of its own."""
SIDE_BY_SIDE = Layout(
    lambda config, leaves: jnp.concatenate(leaves, axis=-1), lambda config, tensor: np.split(tensor, 3, axis=-1)
)
"""Three leaves beside each other along the last axis (GPT-2)."""


def _pack_by_head(config: TransformerConfig, leaves: Sequence[Array]) -> Array:
    heads = [leaf.reshape(*leaf.shape[:-1], config.heads, -1) for leaf in leaves]
    return jnp.stack(heads, axis=-2).reshape(*leaves[0].shape[:-1], -1).T


def _unpack_by_head(config: TransformerConfig, tensor: np.ndarray) -> Sequence[np.ndarray]:
    rows = tensor.T
    heads = rows.reshape(*rows.shape[:-1], config.heads, 3, -1)
    return [heads[..., part, :].reshape(*rows.shape[:-1], -1) for part in range(3)]


BY_HEAD = Layout(_pack_by_head, _unpack_by_head)
"""Query, key and value of the first head, then of the second, …, transposed (GPT-NeoX)."""


def _pack_convolution(config: TransformerConfig, leaves: Sequence[Array]) -> Array:
    assert isinstance(config.front, Patches)
    return leaves[0].T.reshape(config.width, config.front.channels, *config.front.patch)


CONVOLVED = Layout(_pack_convolution, lambda config, tensor: [tensor.reshape(len(tensor), -1).T])
"""A convolution whose stride is its size: a linear layer on patches, stored [out, channel, y, x] (ViT)."""


@dataclass(frozen=True)
class TensorRule:
    """Tensor `tensor` holds the leaves `leaves`, laid out so."""

    tensor: str
    leaves: tuple[str, ...]
    layout: Layout


Kind: TypeAlias = tuple[TensorRule, ...]


def _kind(weight: tuple[str, Layout], bias: Layout | None = AS_IT_IS) -> Kind:
    leaf, layout = weight
    return (
        TensorRule(".weight", (leaf,), layout),
        *([] if bias is None else [TensorRule(".bias", ("/bias",), bias)]),
    )


def _fused(layout: Layout) -> Kind:
    parts = ("query", "key", "value")
    return tuple(
        TensorRule(stored, tuple(f"/{part}/{leaf}" for part in parts), layout)
        for stored, leaf in ((".weight", "kernel"), (".bias", "bias"))
    )


LINEAR = _kind(("/kernel", TRANSPOSED))
CONV1D = _kind(("/kernel", AS_IT_IS))
"""GPT-2's linear layer, stored [in, out]."""
FUSED_CONV1D = _fused(SIDE_BY_SIDE)
FUSED_BY_HEAD = _fused(BY_HEAD)
PATCH = _kind(("/kernel", CONVOLVED))
NORM = _kind(("/scale", AS_IT_IS))
TABLE = _kind(("", AS_IT_IS), None)
BATCHED_TABLE: Kind = (TensorRule("", ("",), FIRST_OF_ONE),)
DECODER = _kind(("/kernel", TRANSPOSED), None)
BIAS: Kind = (TensorRule(".bias", ("/bias",), AS_IT_IS),)


@dataclass(frozen=True)
class NameTable:
    """How the checkpoints of one family name their tensors."""

    prefix: str
    """Put before the names of the backbone when the checkpoint was saved together with a head."""
    modules: tuple[tuple[str, str, Kind], ...]
    tied: Mapping[str, str]
    """Tensors that, where the config ties them, are second copies: copy -> original."""
    buffers: tuple[str, ...]
    """Regular expressions of stored constants (position numbers, causal masks)."""
    other_heads: tuple[str, ...]
    """Regular expressions of trained heads that no readout uses."""


def tensor_rules(table: NameTable, layers: int) -> list[TensorRule]:
    """The rules of every tensor of a model with so many layers."""
    rows = [
        (tensor.replace("#", str(layer)), leaf.replace("#", str(layer)), kind)
        for tensor, leaf, kind in table.modules
        for layer in range(layers if "#" in tensor else 1)
    ]
    return [
        TensorRule(tensor + rule.tensor, tuple(leaf + part for part in rule.leaves), rule.layout)
        for tensor, leaf, kind in rows
        for rule in kind
    ]


def unpack(rule: TensorRule, config: TransformerConfig, tensor: np.ndarray) -> dict[str, np.ndarray]:
    """The leaves that a tensor holds, by path."""
    return dict(zip(rule.leaves, rule.layout.unpack(config, tensor), strict=True))


def pack(rule: TensorRule, config: TransformerConfig, leaves: Mapping[str, Array]) -> Array:
    """The tensor that holds these leaves: the inverse of `unpack`."""
    return rule.layout.pack(config, [leaves[leaf] for leaf in rule.leaves])


def to_params(
    what: str,
    tensors: Mapping[str, Any],
    table: NameTable,
    config: TransformerConfig,
    architecture: PyTree,
    wanted: PyTree,
    dtype: np.dtype,
    place: Callable[[str, np.ndarray], jax.Array],
) -> tuple[PyTree, tuple[str, ...]]:
    """Parameters in the structure of `wanted`, and the names of the known tensors that were left out.

    `architecture` holds the shapes of the model with all of its components, `wanted` those of the components that the
    readout needs; what only the former has is left out, as are heads that no readout uses. `what` opens the error.
    `place` puts a leaf, by its path, on devices; tensors are read, cast and placed one at a time.

    Raises one `InputError` listing every tensor that is unknown, missing, of another shape than the config asks for,
    not floating, or not finite, every copy that differs from its original, and names that mean the same tensor.
    """
    known, leaves = leaf_shapes(architecture), leaf_shapes(wanted)
    rules = [rule for rule in tensor_rules(table, config.layers) if all(leaf in known for leaf in rule.leaves)]
    stored, problems = canonical_names(tensors, table)
    problems += _resolve_copies(tensors, stored, table, {rule.tensor for rule in rules})

    filled, left_out = {}, []
    for rule in rules:
        name = stored.pop(rule.tensor, None)
        if not all(leaf in leaves for leaf in rule.leaves):
            left_out += [] if name is None else [rule.tensor]
        elif name is None:
            problems.append(f"tensor {rule.tensor!r}, which holds {', '.join(rule.leaves)}, is missing")
        elif fault := _fault(tensor := tensors[name], _stored_shape(rule, config, leaves)):
            problems.append(f"tensor {rule.tensor!r} {fault}")
        else:
            filled |= {leaf: place(leaf, part.astype(dtype)) for leaf, part in unpack(rule, config, tensor).items()}
    for canonical, name in stored.items():
        if _matches(table.other_heads, canonical):
            left_out.append(canonical)
        elif not _matches(table.buffers, canonical):
            shape = tensors[name].shape
            problems.append(f"tensor {canonical!r} {shape} is unknown; this architecture has no such weight")
    refuse(what, problems)
    return jax.tree.unflatten(jax.tree.structure(wanted), [filled[leaf] for leaf in leaves]), tuple(sorted(left_out))


def leaf_shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    """Shapes by path, in the tree's own order, of a tree of arrays or of abstract arrays."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves}


def canonical_names(tensors: Mapping[str, Any], table: NameTable) -> tuple[dict[str, str], list[str]]:
    """Names without the prefix and with today's names of norms, each with that in the file; and those that coincide."""
    stored, problems = {}, []
    for name in tensors:
        canonical = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name.removeprefix(table.prefix)))
        if canonical in stored:
            problems.append(f"tensor {canonical!r} is stored under two names, one of them {name!r}")
        stored[canonical] = name
    return stored, problems


def _resolve_copies(tensors: Mapping[str, Any], stored: dict[str, str], table: NameTable, ruled: set[str]) -> list[str]:
    """Remove tied copies, which may stand in for an original that was not stored; report those that differ."""
    problems = []
    for copy, original in table.tied.items():
        # A copy that has a rule of its own is a weight of its own: the config does not tie it.
        if copy in stored and copy not in ruled:
            name = stored.pop(copy)
            first = stored.setdefault(original, name)
            if first != name and not np.array_equal(tensors[name], tensors[first]):
                problems.append(f"tensor {copy!r} differs from {original!r}, but the config ties the two")
    return problems


def _stored_shape(
    rule: TensorRule, config: TransformerConfig, leaves: Mapping[str, tuple[int, ...]]
) -> tuple[int, ...]:
    """Shape of the tensor that holds these leaves."""
    abstract = [jax.ShapeDtypeStruct(leaves[leaf], jnp.float32) for leaf in rule.leaves]
    return jax.eval_shape(lambda *parts: rule.layout.pack(config, parts), *abstract).shape


def _fault(tensor: np.ndarray, shape: tuple[int, ...]) -> str | None:
    if not jnp.issubdtype(tensor.dtype, jnp.floating):
        return f"holds {tensor.dtype}; only floating weights are supported, so load a checkpoint that is not quantised"
    if tensor.shape != shape:
        return f"has shape {tensor.shape}; config.json asks for {shape}"
    if bad := int(tensor.size - np.isfinite(tensor).sum()):
        return f"holds {bad} NaN or infinite values of {tensor.size}; fetch or train the checkpoint again"
    return None


def _matches(patterns: tuple[str, ...], name: str) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)
