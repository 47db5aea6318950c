"""Adapters: a user's own Flax module as `apply_fn(params, inputs)` and a nested dict of parameters.

Only parameters are differentiated. All other state (batch statistics, random number streams) is held as it is, in
evaluation mode, so that row i of the outputs depends on example i only. A plain function needs no adapter.
"""

from collections.abc import Mapping
from typing import Any, cast

import jax
from flax import linen, nnx

from ntkft._errors import InputError
from ntkft._types import ApplyFn, PyTree


def from_nnx(module: nnx.Module) -> tuple[ApplyFn, PyTree]:
    """`apply_fn` and parameters of a Flax NNX module that maps inputs to outputs `[n, k]`.

    The parameters are its `nnx.Param`s, as a nested dict (lists are keyed by integers). The module is copied and the
    copy put into evaluation mode by `module.eval()`: dropout is off, batch statistics are used and not updated; the
    module given stays as it was. Raises `InputError` for a module without `nnx.Param`s, and when `apply_fn` is called
    with parameters of another structure.
    """
    module = nnx.clone(module)
    module.eval()
    graph, state, fixed = nnx.split(module, nnx.Param, ...)
    params = nnx.to_pure_dict(state)
    structure = jax.tree.structure(params)
    if not structure.num_leaves:
        raise InputError(f"from_nnx: {type(module).__name__} has no nnx.Param, so it has no kernel")

    def apply_fn(params: PyTree, inputs: PyTree, /) -> jax.Array:
        # NNX merges leaves by their order, so other keys could exchange them silently.
        if jax.tree.structure(params) != structure:
            raise InputError(f"from_nnx: parameters have the structure {jax.tree.structure(params)}, not {structure}")
        return nnx.merge(graph, params, fixed)(inputs)

    return apply_fn, params


def from_linen(module: linen.Module, variables: Mapping[str, Any], **arguments: Any) -> tuple[ApplyFn, PyTree]:
    """`apply_fn` and parameters of a Flax Linen module that maps inputs to outputs `[n, k]`.

    `variables` is what `module.init` returned: "params" is differentiated, every other collection is held fixed.
    `arguments` are passed on to each call; put the module's own switch for evaluation there, such as `train=False`,
    `deterministic=True` or `use_running_average=True`. Raises `InputError` for variables without "params".
    """
    if not variables.get("params"):
        raise InputError(
            f"from_linen: variables hold {', '.join(variables) or 'nothing'}; wanted a collection 'params'"
        )
    fixed = {name: collection for name, collection in variables.items() if name != "params"}

    def apply_fn(params: PyTree, inputs: PyTree, /) -> jax.Array:
        return cast(jax.Array, module.apply({**fixed, "params": params}, inputs, **arguments))

    return apply_fn, variables["params"]
