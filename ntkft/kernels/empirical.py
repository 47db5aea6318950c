"""The public call: one quantity, several exact methods, chosen by name."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, TypeAlias

from ntkft._errors import InputError
from ntkft._tree import assign_groups
from ntkft._types import ApplyFn, Outputs, PyTree
from ntkft.kernels.checks import check_apply_fn, check_form
from ntkft.kernels.jacobian import jacobian_kernel
from ntkft.kernels.kernel import Kernel
from ntkft.kernels.memory import budget_bytes
from ntkft.kernels.reference import neural_tangents_kernel
from ntkft.kernels.store import KernelStore, kernel_request

Method: TypeAlias = Literal["auto", "jacobian", "neural_tangents:1", "neural_tangents:2", "neural_tangents:3"]
Progress: TypeAlias = Callable[[int, int], None]
"""Called as `progress(done, total)`, in parameters contracted so far."""


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
    check: bool = True,
    store: str | Path | None = None,
    progress: Progress | None = None,
) -> Kernel:
    """Exact empirical neural tangent kernel Θ[i,a,j,b] = ⟨∂f_a(x1_i)/∂θ, ∂f_b(x2_j)/∂θ⟩, unnormalised.

    Jacot, Gabriel & Hongler 2018, eq. 4, at the given parameters instead of in expectation over random ones.

    apply_fn: `(params, inputs) -> [n, k]`; row i depends on example i only
    x1, x2:   pytrees of arrays with a leading example axis (n and m); `None` for x2 means x1, and half the work
    outputs:  "full" `[n, k, m, k]`; "trace" `[n, m]` summed over equal outputs (neural-tangents' trace is divided
              by k, this one is not); "scalar" `[n, m]` for a model with k = 1. Required: these are different kernels
    method:   how it is computed; every method gives the same numbers up to rounding. "jacobian" computes slices of
              the Jacobian within `memory`; "neural_tangents:1|2|3" is that library's implementation of that number
              (Jacobian contraction, NTK-vector products, structured derivatives), without a memory bound on one
              block; "auto" is "jacobian"
    groups:   group name → regular expression over parameter paths, a partition of the leaves; None is one group
    memory:   budget for the kernel's own arrays, in bytes or as "4GB"; None is half of the free device memory
    check:    refuse randomness, dependent rows and non-finite values first (one forward pass over x1)
    store:    a folder (`K.zarr`) that receives the result with its provenance; an interrupted "jacobian" run
              resumes from it, a finished one is read back, a different run's folder is refused
    progress: called after each slice

    Cost of "jacobian" with s slices: s forward passes, the backward passes down to the slice's leaves, and
    n·m·k²·p multiply-adds for the product (half if x2 is None; k instead of k² for the trace).
    Raises `InputError` on unusable input, each with what to do about it.
    """
    k = check_form(apply_fn, params, x1, outputs)
    if x2 is not None:
        check_form(apply_fn, params, x2, outputs)
    group_of = assign_groups(params, groups)
    budget = budget_bytes(memory)
    if check:
        check_apply_fn(apply_fn, params, x1)
    if method in ("auto", "jacobian"):
        archive = None
        if store is not None:
            request = kernel_request(apply_fn, params, x1, x2, outputs=outputs, groups=groups, method="jacobian")
            archive = KernelStore(store, request)
        if archive is not None and (finished := archive.read()) is not None:
            return finished
        kernel = jacobian_kernel(
            apply_fn, params, x1, x2, k, outputs=outputs, group_of=group_of, memory=budget, archive=archive,
            progress=progress,
        )  # fmt: skip
        if archive is not None:
            archive.write(kernel)
        return kernel
    name, _, implementation = method.partition(":")
    if name != "neural_tangents" or implementation not in ("1", "2", "3"):
        raise InputError(f"empirical_ntk: got method={method!r}; wanted one of {', '.join(Method.__args__)}")
    if store is not None:
        raise InputError(f"empirical_ntk: method={method!r} keeps no store; use method='jacobian' or leave store out")
    return neural_tangents_kernel(
        apply_fn, params, x1, x2, k, outputs=outputs, group_of=group_of, implementation=int(implementation),
        progress=progress,
    )  # fmt: skip
