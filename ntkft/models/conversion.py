"""Checkpoint tensors to parameters, as a bijection: every tensor is used once, every leaf is filled once.

A family's `NameTable` has one row per module, (tensor prefix, leaf prefix, kind); `#` stands for the layer. The kind
says which tensors a module has, which leaves each becomes, and whether it is stored transposed. One tensor may hold
several leaves side by side along its last axis (the fused query-key-value projection of GPT-2): they are split, so
that each keeps its own kernel group.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from ntkft._errors import refuse
from ntkft._types import PyTree


@dataclass(frozen=True)
class TensorRule:
    """Tensor `tensor` holds the leaves `leaves`, side by side along the last axis, after an optional transpose."""

    tensor: str
    leaves: tuple[str, ...]
    transposed: bool


Kind: TypeAlias = tuple[TensorRule, ...]

LINEAR: Kind = (TensorRule(".weight", ("/kernel",), True), TensorRule(".bias", ("/bias",), False))
"""A torch linear layer stores [out, in]; our kernels are [in, out]."""
CONV1D: Kind = (TensorRule(".weight", ("/kernel",), False), TensorRule(".bias", ("/bias",), False))
"""GPT-2's linear layer, stored [in, out]."""
FUSED_CONV1D: Kind = tuple(
    TensorRule(stored, tuple(f"/{part}/{leaf}" for part in ("query", "key", "value")), False)
    for stored, leaf in ((".weight", "kernel"), (".bias", "bias"))
)
NORM: Kind = (TensorRule(".weight", ("/scale",), False), TensorRule(".bias", ("/bias",), False))
TABLE: Kind = (TensorRule(".weight", ("",), False),)
DECODER: Kind = (TensorRule(".weight", ("/kernel",), True),)
BIAS: Kind = (TensorRule(".bias", ("/bias",), False),)


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
        TensorRule(tensor + rule.tensor, tuple(leaf + part for part in rule.leaves), rule.transposed)
        for tensor, leaf, kind in rows
        for rule in kind
    ]


def split_tensor(rule: TensorRule, tensor: np.ndarray) -> dict[str, np.ndarray]:
    """The leaves that a tensor holds, by path."""
    parts = np.split(tensor.T if rule.transposed else tensor, len(rule.leaves), axis=-1)
    return dict(zip(rule.leaves, parts, strict=True))


def to_params(
    what: str,
    tensors: Mapping[str, np.ndarray],
    table: NameTable,
    architecture: PyTree,
    wanted: PyTree,
    dtype: np.dtype,
) -> tuple[PyTree, tuple[str, ...]]:
    """Parameters in the structure of `wanted`, and the names of the known tensors that were left out.

    `architecture` holds the shapes of the model with all of its components, `wanted` those of the components that the
    readout needs; what only the former has is left out, as are heads that no readout uses. `what` opens the error.

    Raises one `InputError` listing every tensor that is unknown, missing, of another shape than the config asks for,
    not floating, or not finite, every copy that differs from its original, and names that mean the same tensor.
    """
    known, leaves = leaf_shapes(architecture), leaf_shapes(wanted)
    layers = len(architecture["layers"])
    rules = [rule for rule in tensor_rules(table, layers) if all(leaf in known for leaf in rule.leaves)]
    stored, problems = _canonical(tensors, table)
    problems += _resolve_copies(stored, table, {rule.tensor for rule in rules})

    filled, left_out = {}, []
    for rule in rules:
        tensor = stored.pop(rule.tensor, None)
        if not all(leaf in leaves for leaf in rule.leaves):
            left_out += [] if tensor is None else [rule.tensor]
        elif tensor is None:
            problems.append(f"tensor {rule.tensor!r}, which holds {', '.join(rule.leaves)}, is missing")
        elif fault := _fault(tensor, _stored_shape(rule, leaves)):
            problems.append(f"tensor {rule.tensor!r} {fault}")
        else:
            filled |= split_tensor(rule, tensor)
    for name, tensor in stored.items():
        if _matches(table.other_heads, name):
            left_out.append(name)
        elif not _matches(table.buffers, name):
            problems.append(f"tensor {name!r} {tensor.shape} is unknown; this architecture has no such weight")
    refuse(what, problems)

    params = jax.tree.unflatten(
        jax.tree.structure(wanted), [jnp.asarray(filled[leaf].astype(dtype)) for leaf in leaves]
    )
    return params, tuple(sorted(left_out))


def leaf_shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    """Shapes by path, in the tree's own order, of a tree of arrays or of abstract arrays."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves}


def _canonical(tensors: Mapping[str, np.ndarray], table: NameTable) -> tuple[dict[str, np.ndarray], list[str]]:
    """Tensors without the prefix and with today's names of LayerNorm weights, and the names that then coincide."""
    stored, problems = {}, []
    for name, tensor in tensors.items():
        canonical = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name.removeprefix(table.prefix)))
        if canonical in stored:
            problems.append(f"tensor {canonical!r} is stored under two names, one of them {name!r}")
        stored[canonical] = tensor
    return stored, problems


def _resolve_copies(stored: dict[str, np.ndarray], table: NameTable, ruled: set[str]) -> list[str]:
    """Remove tied copies, which may stand in for an original that was not stored; report those that differ."""
    problems = []
    for copy, original in table.tied.items():
        # A copy that has a rule of its own is a weight of its own: the config does not tie it.
        if copy in stored and copy not in ruled:
            tensor = stored.pop(copy)
            if not np.array_equal(tensor, stored.setdefault(original, tensor)):
                problems.append(f"tensor {copy!r} differs from {original!r}, but the config ties the two")
    return problems


def _stored_shape(rule: TensorRule, leaves: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Shape of the tensor that holds these leaves: the inverse of `split_tensor`."""
    *rows, columns = leaves[rule.leaves[0]]
    shape = (*rows, columns * len(rule.leaves))
    return shape[::-1] if rule.transposed else shape


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
