"""The public call: one quantity, several exact methods, chosen by name, over tiles of examples."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

from jax.sharding import Mesh

from ntkft._errors import InputError
from ntkft._tree import assign_groups, count_examples, leaf_paths
from ntkft._types import ApplyFn, Outputs, PyTree
from ntkft.kernels.checks import check_apply_fn, check_form
from ntkft.kernels.factors.forms import Extent
from ntkft.kernels.factors.method import factors_method
from ntkft.kernels.factors.planning import FormChoice
from ntkft.kernels.jacobian import jacobian_kernel
from ntkft.kernels.kernel import Kernel, Plan, Precision
from ntkft.kernels.memory import budget_bytes
from ntkft.kernels.reference import neural_tangents_kernel
from ntkft.kernels.store import KernelStore, begun_with, kernel_request
from ntkft.kernels.tiles import Progress, default_tile, jax_processes, tile_grid, tiled_kernel

Method: TypeAlias = Literal[
    "auto",
    "factors",
    "factors:materialise",
    "factors:pairs",
    "jacobian",
    "neural_tangents:1",
    "neural_tangents:2",
    "neural_tangents:3",
]

_FORMS: dict[str, FormChoice] = {"": "auto", "materialise": "materialise", "pairs": "pairs"}


def empirical_ntk(
    apply_fn: ApplyFn,
    params: PyTree,
    x1: PyTree,
    x2: PyTree | None = None,
    *,
    outputs: Outputs,
    method: Method = "auto",
    groups: Mapping[str, str] | None = None,
    memory: int | float | str | None = None,
    tile: int | None = None,
    mesh: Mesh | None = None,
    precision: Precision = "full",
    check: bool = True,
    store: str | Path | None = None,
    progress: Progress | None = None,
    announce: Callable[[Plan], None] | None = None,
) -> Kernel:
    """Exact empirical neural tangent kernel Θ[i,a,j,b] = ⟨∂f_a(x1_i)/∂θ, ∂f_b(x2_j)/∂θ⟩, unnormalised.

    Jacot, Gabriel & Hongler 2018, eq. 4, at the given parameters instead of in expectation over random ones.

    apply_fn: `(params, inputs) -> [n, k]`; row i depends on example i only
    x1, x2:   pytrees of arrays with a leading example axis (n and m); `None` for x2 means x1, and half the work
    outputs:  "full" `[n, k, m, k]`; "trace" `[n, m]` summed over equal outputs (neural-tangents' trace is divided
              by k, this one is not); "scalar" `[n, m]` for a model with k = 1. Required: these are different kernels
    method:   how it is computed; every method gives the same numbers up to rounding. "factors" differentiates each
              example once and contracts what each weight's gradient is made of, by the cheaper of two exact forms;
              "factors:materialise" and "factors:pairs" take one form wherever it is possible, for study; "jacobian"
              computes slices of the Jacobian; "neural_tangents:1|2|3" is that library's implementation of that
              number (Jacobian contraction, NTK-vector products, structured derivatives), without a memory bound on
              one tile; "auto" is "factors"
    groups:   group name → regular expression over parameter paths, a partition of the leaves; None is one group
    memory:   budget for the kernel's own arrays of one tile on each device, in bytes or as "4GB"; None is half of the
              free device memory, or what a store was begun with
    tile:     examples a side of a tile. None is what the store was begun with; else all up to 2,048 examples, and
              beyond, or with a new store, 1,024; for "factors" halved until a tile fits in `memory`
    mesh:     devices that compute one tile together, for "factors": they share out its examples, then the work of
              each weight. `params` stay where they are placed (replicated, or sharded over the same devices). Axes do
              not matter. Devices of this process only: processes share tiles through a store. None is the CPU's
              cores, or the first accelerator
    check:    refuse non-finite parameters, randomness and dependent rows first (three forward passes over four
              examples), and each tile in which an example's values are not finite
    store:    a folder (`K.zarr`) that receives each tile when it is finished, with the provenance of all. The same
              call goes on from what is there, after a kill at any moment, to the same bytes; computes anew a tile
              whose checksum fails; reads a finished kernel back; and refuses a different run's folder. Processes of
              `jax.distributed` share the work through it, on a file system that all see
    precision: how numbers are rounded (`kernels.Precision`), which the kernel carries and its spectrum's floor shows
    progress: called as `progress(done, total)`, in pairs of examples × parameters
    announce: called with the plan of "factors" before its work begins

    Cost of "factors": 2 to 4 forward-sized passes, then what `kernels.factors.forms` says.
    Cost of "jacobian" with s slices: s forward passes, the backward passes down to the slice's leaves, and
    n·m·k²·p multiply-adds for the product (half if x2 is None; k instead of k² for the trace). With r rows of tiles,
    the passes are run r times for each example.
    Raises `InputError` on unusable input, each with what to do about it.
    """
    k = check_form(apply_fn, params, x1, outputs)
    if x2 is not None:
        check_form(apply_fn, params, x2, outputs)
    group_of = assign_groups(params, groups)
    budget = budget_bytes(memory)
    if tile is not None and tile < 1:
        raise InputError(f"tile: got {tile}; wanted a positive number of examples")
    if method not in Method.__args__:
        raise InputError(f"empirical_ntk: got method={method!r}; wanted one of {', '.join(Method.__args__)}")
    name, _, variant = method.replace("auto", "factors").partition(":")
    if name == "neural_tangents" and store is not None:
        raise InputError(f"empirical_ntk: method={method!r} keeps no store; use method='jacobian' or leave store out")
    if name != "factors" and (mesh is not None or precision != "full"):
        raise InputError(
            f"empirical_ntk: method={method!r} takes no mesh and no precision; use method='factors' or leave them out"
        )
    if precision not in Precision.__args__:
        raise InputError(f"precision: got {precision!r}; wanted one of {', '.join(Precision.__args__)}")
    if check:
        check_apply_fn(apply_fn, params, x1)

    n, m = count_examples(x1), count_examples(x1 if x2 is None else x2)
    processes = jax_processes()
    begun = None if store is None else begun_with(store)
    if begun is not None and memory is None:
        budget = begun.memory
    side = tile or (begun.tile if begun is not None else default_tile(n, m, stored=store is not None))
    common = {"outputs": outputs, "group_of": group_of}
    if name == "factors":
        largest = partial(_largest, n, None if x2 is None else m, k, outputs)
        side, plan, method_of_block = factors_method(
            apply_fn,
            params,
            x1,
            side=side,
            shrink=tile is None and begun is None,
            largest=largest,
            group_of=group_of,
            memory=budget,
            form=_FORMS[variant],
            precision=precision,
            mesh=mesh,
        )
        if announce is not None:
            announce(replace(plan, tiles=len(tile_grid(n, None if x2 is None else m, side))))
    elif name == "jacobian":
        method_of_block = partial(jacobian_kernel, apply_fn, params, k=k, memory=budget, **common)
    else:
        method_of_block = partial(neural_tangents_kernel, apply_fn, params, k=k, implementation=int(variant), **common)
    archive = None
    if store is not None:
        request = kernel_request(
            apply_fn, params, x1, x2, outputs=outputs, groups=groups, method=name, precision=precision
        )
        shape = (n, k, m, k) if outputs == "full" else (n, m)
        archive = processes.in_turn(partial(KernelStore, store, request, shape=shape, tile=side, memory=budget))
    return tiled_kernel(
        method_of_block,
        x1,
        x2,
        tile=side,
        parameters=sum(leaf.size for leaf in leaf_paths(params).values()),
        check=check,
        store=archive,
        processes=processes,
        progress=progress,
    )


def _largest(n: int, m: int | None, k: int, outputs: Outputs, side: int) -> Extent:
    """The largest block of a kernel of n × m examples (None: n × n, symmetric) in tiles of this side."""
    if m is None:
        return Extent(min(n, side), 0 if n <= side else side, k, outputs)
    return Extent(min(n, side), min(m, side), k, outputs)
