"""Gradient descent on any loss, in kernel space: what has no closed form is iterated, on n·k numbers instead of p.

The linearised model never leaves θ_PT + Jᵀα. On the loss (1/n) Σ_i ℓ(f(x_i), y_i) + (λ/2) ‖θ − θ_PT‖² its dual
coefficients α `[n, k]` move by

    v ← βv + ε [ ℓ′(f)/n + λα ],    α ← α − v,    f = f_PT + 𝕂α,

which is gradient descent (β = 0) or heavy ball on the parameters, with weight decay λ towards the pretrained ones. Its
fixed point is kernel regression with penalty λ: for cross-entropy, kernel logistic regression.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, SupportsFloat, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Float, Num

from ntkft._errors import InputError, refuse
from ntkft._types import Array
from ntkft.dynamics.filters import Steps, checked_positive, refuse_unstable, whole_steps
from ntkft.dynamics.prediction import per_output
from ntkft.spectra.complexity import checked_scale
from ntkft.spectra.eigen import EmpiricalKernel, as_columns

LossName: TypeAlias = Literal["squared", "cross_entropy", "logistic"]


def kernel_descent(
    kernel: EmpiricalKernel | Num[Array, "..."],
    targets: Num[Array, "..."],
    pretrained: Num[Array, "..."],
    *,
    loss: LossName,
    step_size: SupportsFloat,
    momentum: SupportsFloat,
    penalty: SupportsFloat,
    steps: Steps,
) -> Float[np.ndarray, "s n k"]:
    """Dual coefficients after full-batch steps on any loss, `[s, n, k]`, for `outputs_at`.

    kernel:   of the n training examples with themselves, a record or `[n, n]` or `[n, k, n, k]`, unnormalised; a trace
              record is divided by k (see `ntkft.dynamics.prediction`)
    loss:     "squared" (ℓ = ½ Σ_a (y − f)², targets `[n]` or `[n, k]`), "cross_entropy" (ℓ = −log softmax(f)_y, targets
              classes `[n]`) or "logistic" (ℓ = log(1 + exp(−yf)), one output, targets ±1)
    penalty:  λ ≥ 0; momentum: 0 ≤ β < 1; steps: whole numbers, in any order

    In float64 whatever JAX's default is, in one compiled loop.

    Cost: 2n²k FLOPs a step (n²k² twice for a full kernel) and the largest eigenvalue of the kernel. Raises `InputError`
    for shapes and targets that do not fit, a step size at or above the limit below which descent must converge, which
    is 2(1 + β)/(cλ̂₁ + λ) with the largest curvature of the loss c = 1, ½ and ¼, and steps that are not whole.
    Source: Jacot, Gabriel & Hongler 2018, kernel gradient; Polyak 1964, momentum.
    """
    epsilon = checked_positive("kernel_descent", "step size", step_size)
    decay, beta = checked_scale("kernel_descent", "penalty", penalty), float(momentum)
    times = whole_steps("kernel_descent", steps).astype(np.int64)
    if not 0 <= beta < 1:
        raise InputError(f"kernel_descent: momentum is {beta:g}; wanted 0 ≤ momentum < 1")
    start = np.asarray(pretrained, np.float64)
    start = start.reshape(len(start), -1)
    n, k = start.shape
    matrix = np.asarray(per_output(kernel, k), np.float64)
    wanted = _targets(loss, targets, n, k)
    if matrix.shape not in ((n, n), (n, k, n, k)):
        raise InputError(
            f"kernel_descent: kernel has shape {list(matrix.shape)}; wanted [{n}, {n}] or [{n}, {k}, {n}, {k}] for "
            f"{n} examples with {k} outputs"
        )
    matrix = matrix.reshape(n * k if matrix.ndim == 4 else n, -1)
    largest = scipy.linalg.eigvalsh(matrix, subset_by_index=[len(matrix) - 1] * 2) / n
    refuse_unstable("kernel_descent", epsilon, CURVATURE[loss] * largest + decay, limit=2 * (1 + beta))
    order = np.argsort(times, kind="stable")
    gaps = np.diff(times[order], prepend=0)
    with jax.enable_x64(True):
        dual = np.asarray(_descend(matrix, wanted, start, gaps, epsilon, beta, decay, slope=_SLOPES[loss]))
    return dual[np.argsort(order, kind="stable")]


@partial(jax.jit, static_argnames="slope")
def _descend(matrix, targets, start, gaps, epsilon, beta, decay, *, slope):
    n, k = start.shape

    def step(_, state):
        dual, velocity = state
        outputs = start + (matrix @ dual.reshape(len(matrix), -1)).reshape(n, k)
        velocity = beta * velocity + epsilon * (slope(outputs, targets) / n + decay * dual)
        return dual - velocity, velocity

    def until(state, gap):
        state = jax.lax.fori_loop(0, gap, step, state)
        return state, state[0]

    nothing = jnp.zeros_like(start)
    return jax.lax.scan(until, (nothing, nothing), gaps)[1]


_SLOPES: dict[str, Callable[[Array, Array], Array]] = {
    "squared": lambda f, y: f - y,
    "cross_entropy": lambda f, y: jax.nn.softmax(f, axis=1) - jax.nn.one_hot(y, f.shape[1], dtype=f.dtype),
    "logistic": lambda f, y: -y * jax.nn.sigmoid(-y * f),
}
"""ℓ′ of each loss in the outputs, `[n, k]`."""
CURVATURE = {"squared": 1.0, "cross_entropy": 0.5, "logistic": 0.25}
"""The largest eigenvalue of ℓ″ over all outputs."""


def _targets(loss: str, targets: Num[Array, "..."], n: int, k: int) -> np.ndarray:
    """Targets as the loss wants them, or `InputError`."""
    if loss not in _SLOPES:
        raise InputError(f"kernel_descent: got loss={loss!r}; wanted one of {', '.join(map(repr, _SLOPES))}")
    array, problems = np.asarray(targets), []
    if loss == "cross_entropy":
        if array.shape != (n,) or not np.issubdtype(array.dtype, np.integer):
            problems.append(f"targets are {array.dtype} {list(array.shape)}; wanted integer classes [{n}]")
        elif array.min() < 0 or array.max() >= k:
            problems.append(f"classes run from {array.min()} to {array.max()}; wanted 0 … {k - 1} for {k} outputs")
        refuse("kernel_descent", problems)
        return array
    columns = as_columns("targets", array, n)
    if columns.shape != (n, k):
        problems.append(f"targets have {columns.shape[1]} columns for {k} outputs")
    if loss == "logistic" and (k != 1 or not np.all(np.abs(columns) == 1)):
        problems.append(f"loss 'logistic' wants one output and targets ±1; got {k} outputs; or take 'cross_entropy'")
    refuse("kernel_descent", problems)
    return columns
