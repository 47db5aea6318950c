"""The kernel by neural-tangents: another library's implementations, for agreement and for comparison.

One call per parameter group, with the other groups closed over, since neural-tangents sums over all parameters that
it is given. Nothing here bounds memory: the whole block of examples is differentiated at once.
"""

import warnings
from collections.abc import Callable

import jax
import numpy as np

from ntkft._tree import count_examples, leaf_paths
from ntkft._types import ApplyFn, Outputs, PyTree
from ntkft.kernels._neural_tangents import neural_tangents
from ntkft.kernels.kernel import Kernel, Plan


def neural_tangents_kernel(
    apply_fn: ApplyFn,
    params: PyTree,
    x1: PyTree,
    x2: PyTree | None,
    k: int,
    *,
    outputs: Outputs,
    group_of: dict[str, str],
    implementation: int,
    progress: Callable[[int, int], None] | None,
) -> Kernel:
    """The kernel of `empirical_ntk` by `neural_tangents.empirical_ntk_fn(implementation=1, 2 or 3)`.

    1: Jacobian contraction; 2: NTK-vector products; 3: structured derivatives (Novak, Sohl-Dickstein & Schoenholz
    2022, "Fast finite width neural tangent kernel").

    Its axes and scale are converted to ours: full kernels from `[n, m, k, k]`; traces from the mean over outputs
    to the sum. Raises `ImportError` where this JAX is too new for it.
    """
    nt = neural_tangents()
    structure = jax.tree.structure(params)
    leaves = leaf_paths(params)
    n, m = count_examples(x1), count_examples(x1 if x2 is None else x2)
    names = sorted(set(group_of.values()))
    sizes = {name: sum(leaf.size for path, leaf in leaves.items() if group_of[path] == name) for name in names}
    groups, done = {}, 0
    for name in names:
        chosen = {path: leaf for path, leaf in leaves.items() if group_of[path] == name}

        def apply_chosen(subset, inputs):
            return apply_fn(jax.tree.unflatten(structure, (leaves | subset).values()), inputs)

        kernel_fn = nt.empirical_ntk_fn(
            apply_chosen,
            trace_axes=() if outputs == "full" else (-1,),
            vmap_axes=0,
            implementation=implementation,
        )
        with jax.default_matmul_precision("highest"), warnings.catch_warnings():
            # Implementation 3 warns that it has no rule for gathers: a matter of cost, not of the result.
            warnings.filterwarnings("ignore", message="No Jacobian rule found")
            kernel = np.asarray(jax.jit(kernel_fn)(x1, x2, chosen))
        groups[name] = np.moveaxis(kernel, 1, 2) if outputs == "full" else kernel * k
        done += sizes[name]
        if progress is not None:
            progress(done, sum(sizes.values()))
    dtype = jax.numpy.result_type(*leaves.values())
    shape = (n, k, m, k) if outputs == "full" else (n, m)
    plan = Plan(
        method=f"neural_tangents:{implementation}",
        parameters=sum(sizes.values()),
        zeros=0,
        pieces=len(names),
        micro_batch=max(n, m),
        bytes=(n + m) * k * max(sizes.values()) * dtype.itemsize,
    )
    total = sum(groups.values(), np.zeros(shape, dtype))
    return Kernel(total, groups, outputs, str(dtype), x2 is None, plan)
