"""Low-rank adapters (LoRA): a few trained columns beside frozen weights.

A linear layer x W + b becomes (Hu et al. 2022, eq. 3)

    x W + b + s (x A) B,    s = alpha/rank,    A [in, rank],    B [rank, out],

with W and b held fixed. The gradients are ∂f/∂A = s ∂f/∂W Bᵀ and ∂f/∂B = s Aᵀ ∂f/∂W. Adapters start at B = 0: outputs
are those of the base model, the kernel of all A is zero, and that of all B is

    Θ_B(x, x') = s² Σ_layers ⟨Aᵀ ∂f(x)/∂W, Aᵀ ∂f(x')/∂W⟩,

which is s² times the base model's kernel of W where A Aᵀ is the identity.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ntkft._errors import InputError, refuse
from ntkft._tree import leaf_paths
from ntkft._types import Array, PyTree
from ntkft.models.loading import LoRA, Model, check_structure, groups_of
from ntkft.models.transformer import Transformer

GROUPS = {"lora_a": r"^lora/.*/a$", "lora_b": r"^lora/.*/b$"}
"""The groups of adapters; leaves that are trained beside them have those of `ntkft.models.GROUPS`."""

OF_READOUTS = ("head/kernel", "lm_head/kernel")
"""Kernels that are no linear layers: a readout multiplies by them itself."""


class Adapted(nnx.Module):
    """A linear layer with an adapter beside it: two thin products, never the one wide product A B."""

    def __init__(self, linear: nnx.Linear, a: jax.Array, b: jax.Array, scale: float):
        self.linear, self.a, self.b, self.scale = linear, nnx.Param(a), nnx.Param(b), scale

    def __call__(self, inputs: jax.Array) -> jax.Array:
        return self.linear(inputs) + self.scale * ((inputs @ self.a[...]) @ self.b[...])


def attach_lora(
    model: Model, *, targets: str, rank: int, alpha: float, seed: int | np.integer, train: str | None = None
) -> Model:
    """The model with an adapter beside every linear layer whose kernel's path `targets` is found in.

    `targets` is a regular expression, as `attention/(query|value)/kernel$`; kernels that a readout applies itself (a
    fresh head, an LM head's decoder) are no linear layers. The new model's parameters are the adapters, under `lora`
    at the layer's path, and the base model's leaves in which the regular expression `train` is found (`^head/`, say).
    All others are closed over. Its groups are `lora_a`, `lora_b` and those of the other trained leaves.

    B is zero; A is drawn as PEFT draws it, Kaiming-uniform with a = √5, which is uniform in ±1/√in. The draw depends on
    `seed` and the layer's path alone, not on the other targets or the dtype.

    Cost of a forward pass: 2 · rank · (in + out) more operations a token and layer. Raises `InputError` listing a model
    that has adapters, expressions that match nothing or cannot be read, and numbers out of range.
    """
    refuse_adapted("attach_lora", model)
    leaves = leaf_paths(model.params)
    problems = [] if rank >= 1 else [f"rank is {rank}; it must be at least 1"]
    if not 0 < alpha < np.inf:
        problems.append(f"alpha is {alpha}; it must be positive and finite")
    if seed < 0:
        problems.append(f"seed is {seed}; it must not be negative")
    kernels = [path for path in leaves if path.endswith("/kernel") and path not in OF_READOUTS]
    layers = [path.removesuffix("/kernel") for path in _found("targets", targets, kernels, problems)]
    trained = [] if train is None else _found("train", train, list(leaves), problems)
    refuse("attach_lora", problems)
    factors = {}
    for layer in layers:
        kernel = leaves[f"{layer}/kernel"]
        width, outputs = kernel.shape
        # The bytes of the path seed the draw too, so that a layer's A does not depend on which others have one.
        draw = np.random.default_rng([int(seed), *layer.encode()]).uniform(-1, 1, (width, rank)) / np.sqrt(width)
        factors |= {
            f"{layer}/a": jnp.asarray(draw, kernel.dtype),
            f"{layer}/b": jnp.zeros((rank, outputs), kernel.dtype),
        }
    return adapted_model(LoRA(model, rank, float(alpha)), factors, {path: leaves[path] for path in trained})


def merge_lora(model: Model, *, params: PyTree | None = None) -> PyTree:
    """Parameters of the base model with s A B added to the kernels, at `params` (None: the model's own).

    The sum is taken in float32 at least and rounded once. Raises `InputError` for a model without adapters and for
    parameters of another structure.
    """
    lora, params = opened("merge_lora", model, params)
    leaves = _base_leaves(lora.base, params)
    for layer, (a, b) in factors_of(params).items():
        kernel = leaves[f"{layer}/kernel"]
        wide = jnp.promote_types(kernel.dtype, jnp.float32)
        product = jnp.matmul(a.astype(wide), b.astype(wide), precision=jax.lax.Precision.HIGHEST)
        leaves[f"{layer}/kernel"] = (kernel.astype(wide) + lora.alpha / lora.rank * product).astype(kernel.dtype)
    return jax.tree.unflatten(jax.tree.structure(lora.base.params), list(leaves.values()))


def adapted_model(lora: LoRA, factors: Mapping[str, Array], trained: Mapping[str, Array]) -> Model:
    """The model whose parameters are the factors, by layer/a and layer/b, and leaves of the base model, by path."""
    base, scale = lora.base, lora.alpha / lora.rank
    params = _nested({f"lora/{path}": leaf for path, leaf in factors.items()} | dict(trained))
    structure = jax.tree.structure(params)
    base_structure = jax.tree.structure(base.params)

    def forward(params: PyTree, inputs: Mapping[str, Array], change: Callable[[Transformer], Transformer]) -> jax.Array:
        check_structure(f"{base.name} with adapters", params, structure)
        whole = jax.tree.unflatten(base_structure, list(_base_leaves(base, params).values()))
        return base.forward(whole, inputs, lambda transformer: change(_graft(transformer, params, scale)))

    def apply_fn(params: PyTree, inputs: Mapping[str, Array], /) -> jax.Array:
        return forward(params, inputs, lambda transformer: transformer)

    groups = GROUPS | groups_of(params)
    return replace(base, apply_fn=apply_fn, params=params, groups=groups, forward=forward, lora=lora)


def _graft(transformer: Transformer, params: PyTree, scale: float) -> Transformer:
    """Put the adapters beside their layers; the transformer was merged for this call, so it may be changed."""
    for layer, (a, b) in factors_of(params).items():
        parent: Any = transformer
        for key in _keys(layer)[:-1]:
            parent = parent[key] if isinstance(key, int) else getattr(parent, key)
        name = layer.rpartition("/")[2]
        setattr(parent, name, Adapted(getattr(parent, name), a, b, scale))
    return transformer


def factors_of(params: PyTree) -> dict[str, tuple[Any, Any]]:
    """A and B by layer."""
    leaves = leaf_paths(params["lora"])
    return {path[:-2]: (leaf, leaves[path[:-1] + "b"]) for path, leaf in leaves.items() if path.endswith("/a")}


def _base_leaves(base: Model, params: PyTree) -> dict[str, Any]:
    """The base model's leaves, in its own order, with those that are trained beside the adapters."""
    trained = {path: leaf for path, leaf in leaf_paths(params).items() if not path.startswith("lora/")}
    return leaf_paths(base.params) | trained


def _nested(leaves: Mapping[str, Array]) -> PyTree:
    tree: dict[str | int, Any] = {}
    for path, leaf in leaves.items():
        *parents, last = _keys(path)
        node = tree
        for key in parents:
            node = node.setdefault(key, {})
        node[last] = leaf
    return tree


def _keys(path: str) -> list[str | int]:
    return [int(key) if key.isdigit() else key for key in path.split("/")]


def _found(what: str, regex: str, paths: list[str], problems: list[str]) -> list[str]:
    try:
        found = [path for path in paths if re.search(regex, path)]
    except re.error as error:
        problems.append(f"{what} {regex!r} is no regular expression: {error}")
        return []
    if not found:
        problems.append(f"{what} {regex!r} matches none of {len(paths)} paths; the first is {paths[0]!r}")
    return found


def refuse_adapted(call: str, model: Model) -> None:
    if model.lora:
        raise InputError(
            f"{call}: this model has adapters already; give its base, at merge_lora's parameters if need be"
        )


def opened(call: str, model: Model, params: PyTree | None) -> tuple[LoRA, PyTree]:
    if model.lora is None:
        raise InputError(f"{call}: this model has no adapters; attach_lora or load_lora gives one that has")
    if params is None:
        return model.lora, model.params
    check_structure(f"{model.name} with adapters", params, jax.tree.structure(model.params))
    return model.lora, params
