"""Training by the sign of the gradient, in kernel space: one example a step.

The gradient of ℓ(f(x_i), y_i) for a model with one output is ℓ′·∇f(x_i), and its sign is sign(ℓ′)·sign ∇f(x_i). A step
θ ← θ − ε sign(∇ℓ) on example i therefore moves the linearised model, whose ∇f never changes, by

    f(x) ← f(x) − ε sign ℓ′(f(x_i), y_i) 𝕂^A(x, x_i),       𝕂^A(x, x′) = ⟨∇f(x), sign ∇f(x′)⟩,

for any loss and any number of steps: f = f_PT + 𝕂^A α with α_i ← α_i − ε sign ℓ′. That is exact for one example a step
and one output only. sign(Σ_i ℓ′_i ∇f(x_i)) over a larger batch, or over several outputs of one example, is no sum of
signs, and no kernel follows it.

Adam is this rule in its first step (m̂/√v̂ is the sign of the first gradient, up to its 10⁻⁸) and whenever it forgets at
once (both decay rates 0); for as long as gradients keep their size it is close to it.
"""

from typing import Literal, SupportsFloat, TypeAlias

import numpy as np
from jaxtyping import Float, Int, Num

from ntkft._errors import refuse
from ntkft._types import Array
from ntkft.dynamics.filters import Steps, checked_positive, whole_steps
from ntkft.spectra.eigen import EmpiricalKernel, as_columns

MonotoneLoss: TypeAlias = Literal["squared", "logistic"]


def signed_descent(
    kernel: EmpiricalKernel | Num[Array, "..."],
    targets: Num[Array, "..."],
    pretrained: Num[Array, "..."],
    *,
    loss: MonotoneLoss,
    step_size: SupportsFloat,
    order: Int[Array, " u"],
    steps: Steps,
) -> Float[np.ndarray, "s n 1"]:
    """Dual coefficients after steps of signed gradient descent on one example each, `[s, n, 1]`, for `outputs_at`.

    kernel:  𝕂^A of the n training examples with themselves, `signgd_ntk(..., kind="asymmetric")` or `[n, n]`; rows are
             outputs that change, columns examples trained on. Predict with 𝕂^A of the test examples (rows) with these
    targets, pretrained: `[n]` or `[n, 1]`; one output
    loss:    "squared" (sign ℓ′ = sign(f − y)) or "logistic" (targets ±1; sign ℓ′ = −y whatever f is, so that α_i is
             ε y_i times the number of visits to example i)
    order:   the example of every update, numbers below n: for u updates of minibatches of one, the permutations of
             the epochs one after the other
    steps:   numbers of updates, whole, at most u, in any order

    Every coefficient is a whole multiple of ε. A step does not shrink where the loss is small: on the squared loss
    outputs end by oscillating with an amplitude of about ε 𝕂^A(x_i, x_i).

    Cost: n operations an update, in float64. Raises `InputError` for more outputs than one, shapes
    and targets that do not fit, and numbers in `order` or `steps` that are not there.
    Source: Malladi, Wettig, Yu, Chen & Arora 2023, *A kernel-based view of language model fine-tuning*, section 4, the
    A-SignGD kernel, which they state for steps on one example; here without their limit of small steps.
    """
    epsilon = checked_positive("signed_descent", "step size", step_size)
    times = whole_steps("signed_descent", steps).astype(np.int64)
    n = len(pretrained)
    start, wanted = as_columns("pretrained", pretrained, n), as_columns("targets", targets, n)
    matrix = np.asarray(kernel if isinstance(kernel, Array) else kernel.total, np.float64)
    visited = np.asarray(order)
    problems = []
    if start.shape[1] != 1 or wanted.shape[1] != 1:
        problems.append(
            f"got {start.shape[1]} outputs and {wanted.shape[1]} targets an example; wanted one, since the sign of a "
            "sum over outputs is no sum of signs: train the difference of two logits"
        )
    if matrix.shape != (n, n):
        problems.append(f"kernel has shape {list(matrix.shape)}; wanted [{n}, {n}] for {n} examples")
    if loss not in ("squared", "logistic"):
        problems.append(f"got loss={loss!r}; wanted 'squared' or 'logistic'")
    if loss == "logistic" and not np.all(np.abs(wanted) == 1):
        problems.append("loss 'logistic' wants targets ±1")
    if visited.min(initial=0) < 0 or visited.max(initial=0) >= n:
        problems.append(f"order runs from {visited.min()} to {visited.max()}; wanted examples 0 … {n - 1}")
    if times.max(initial=0) > len(visited):
        problems.append(f"step {times.max()} of an order of {len(visited)} updates; give a longer order")
    refuse("signed_descent", problems)
    signs = _signs(matrix, wanted[:, 0], start[:, 0], visited[: times.max(initial=0)], epsilon, loss)
    taken = [np.bincount(visited[:t], weights=-epsilon * signs[:t], minlength=n) for t in times]
    return np.reshape(taken, (len(times), n, 1))


def _signs(
    matrix: np.ndarray, targets: np.ndarray, start: np.ndarray, order: np.ndarray, step_size: float, loss: str
) -> np.ndarray:
    """The sign of ℓ′ at every update."""
    if loss == "logistic":
        return -targets[order]
    outputs, signs = start.copy(), np.zeros(len(order))
    for update, i in enumerate(order):
        signs[update] = np.sign(outputs[i] - targets[i])
        outputs -= step_size * signs[update] * matrix[:, i]
    return signs
