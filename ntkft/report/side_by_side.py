"""Kernel methods side by side: what each takes on a workload, and how far its numbers are from float64.

The functions here run in fresh processes (`fresh_process`): they take and give plain values, and leave kernels in
files.
"""

from dataclasses import asdict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntkft._errors import InputError
from ntkft._tree import take_examples
from ntkft._types import ApplyFn, Outputs, PyTree
from ntkft.kernels import empirical_ntk
from ntkft.kernels._neural_tangents import neural_tangents
from ntkft.kernels.memory import budget_bytes
from ntkft.report.cost import measured
from ntkft.report.machine import environment, gemm_rate, load
from ntkft.report.workload import Workload, dense_parameters, floor_flops

NAIVE = "naive"


def measure_machine(*, gemm_size: int, repeats: int = 9) -> dict[str, Any]:
    """What the machine is, its float32 GEMM rate, and the load that it had."""
    met = load()
    return {"environment": environment(), "flops": gemm_rate(gemm_size, repeats), "load": met}


def describe(*, workload: dict[str, Any], memory: int | float | str | None) -> dict[str, Any]:
    """The size of a workload, its floor in operations, and the budget in bytes."""
    chosen = Workload(**workload)
    apply_fn, params, inputs = chosen.build()
    dense = dense_parameters(apply_fn, params, inputs)
    k = jax.eval_shape(apply_fn, params, inputs).shape[1]
    return {
        "parameters": sum(leaf.size for leaf in params.values()),
        "dense_parameters": dense,
        "k": k,
        "memory": budget_bytes(memory),
        "floor_flops": floor_flops(
            examples=chosen.examples, tokens=chosen.tokens, parameters=dense, k=k, outputs=chosen.outputs
        ),
    }


def measure_method(
    *, workload: dict[str, Any], method: str, memory: int, calls: int, file: str, tile: int | None = None
) -> dict[str, Any]:
    """One exact method within `memory` bytes; its costs and plan. The kernel goes to `file`.

    neural-tangents' implementations take memory as they like: their tile is the largest power of two for which the
    Jacobians of both its sides fit, unless it is given. Raises `InputError` when the method cannot be run.
    """
    chosen = Workload(**workload)
    apply_fn, params, inputs = chosen.build()
    if method == NAIVE:
        kernel, found = measured(lambda: naive_kernel(apply_fn, params, inputs, chosen.outputs, memory), calls=calls)
        np.save(file, kernel)
        return found
    if method.startswith("neural_tangents"):
        neural_tangents()  # importing it is no part of a kernel's cost
        each = jax.eval_shape(apply_fn, params, inputs).shape[1] * sum(leaf.nbytes for leaf in params.values())
        tile = tile or 1 << max(0, (memory // (2 * each)).bit_length() - 1)
    options: dict[str, Any] = {"outputs": chosen.outputs, "method": method, "memory": memory, "tile": tile}
    kernel, found = measured(lambda: empirical_ntk(apply_fn, params, inputs, **options), calls=calls)
    np.save(file, kernel.total)
    return found | {"plan": asdict(kernel.plan)}


def reference(*, workload: dict[str, Any], first: int, memory: int, file: str) -> None:
    """The kernel of the first examples in float64, from slices of the Jacobian, to `file`; needs x64."""
    chosen = Workload(**workload)
    apply_fn, params, inputs = chosen.build(jnp.float64)
    few = take_examples(inputs, slice(0, first))
    np.save(file, empirical_ntk(apply_fn, params, few, outputs=chosen.outputs, method="jacobian", memory=memory).total)


def disagreement(kernel: np.ndarray, reference: np.ndarray) -> float:
    """Largest |ΔK| / √(K_ii K_jj) over the leading examples that both kernels have, K being the reference.

    Kernels are `[n, n]` or `[n, k, n, k]`.
    """
    n = min(len(kernel), len(reference))
    mine, exact = (_leading(array, n) for array in (kernel, reference))
    scale = np.sqrt(np.diag(exact))
    return float(np.max(np.abs(mine - exact) / np.outer(scale, scale)))


def naive_kernel(apply_fn: ApplyFn, params: PyTree, inputs: PyTree, outputs: Outputs, memory: int) -> np.ndarray:
    """What one writes first: `vmap` of the Jacobian of one example, and one product for each weight.

    Raises `InputError` when the Jacobian of all examples takes more than `memory` bytes.
    """
    n, k = jax.eval_shape(apply_fn, params, inputs).shape
    wanted = n * k * sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    if wanted > memory:
        raise InputError(f"{NAIVE}: the Jacobian takes {wanted / 1e9:.3g} GB, the budget is {memory / 1e9:.3g} GB")
    axes = {"full": "iap,jbp->iajb", "trace": "iap,jap->ij", "scalar": "iap,jap->ij"}[outputs]

    @jax.jit
    def kernel(params, inputs):
        def one(params, example):
            return apply_fn(params, jax.tree.map(lambda leaf: leaf[None], example))[0]

        jacobian = jax.vmap(jax.jacrev(one), (None, 0))(params, inputs)
        parts = [leaf.reshape(n, k, -1) for leaf in jax.tree.leaves(jacobian)]
        return sum(jnp.einsum(axes, part, part, precision="highest") for part in parts)

    return np.asarray(kernel(params, inputs))


def _leading(kernel: np.ndarray, n: int) -> np.ndarray:
    """The kernel of the first n examples as a float64 matrix."""
    part = kernel[:n, :n] if kernel.ndim == 2 else kernel[:n, :, :n]
    return part.reshape(int(np.sqrt(part.size)), -1).astype(np.float64)
