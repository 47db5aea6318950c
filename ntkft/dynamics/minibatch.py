"""Minibatch gradient descent on the squared loss, in expectation over the batches: the mean path and its noise.

A step on a batch of b examples moves the dual coefficients of the linearised model by (ε/b) S r, with S the diagonal
matrix that counts how often each example is in the batch and r = y − f_PT(X) − 𝕂α the residual. When every step draws
its batch afresh, S is independent of r and E[S] = (b/n) I, so that

    mean         ᾱ ← ᾱ + (ε/n) r̄                                 full-batch descent with as many steps, exactly
    covariance   V ← (I − (ε/n)𝕂) V (I − (ε/n)𝕂)ᵀ + κ (ε/b)² [ D(M) − M/n ],    M = r̄ r̄ᵀ + 𝕂 V 𝕂,

where D keeps the entries of M that belong to one example and κ = (b/n)(n − b)/(n − 1) for a batch of different
examples, b/n for independent draws. The expected squared error of any output is that of the mean path plus what the
covariance adds: minibatches cost variance, and never help the expected error of a linear model.

`ntkft.finetuning` draws without replacement through a whole epoch (a fresh permutation cut into batches). Batches of
one epoch are then not independent, and the expectation over permutations has no short form. With q equal batches the
mean of an epoch is (I − (ε/n)𝕂)^q r with 𝕂² in its second-order term, (ε/n)² q(q − 1)/2 · 𝕂², replaced by
n/(n − 1) · 𝕂 (𝕂 − D(𝕂)), since no example follows itself: it differs from full-batch descent at order ε². And because
every example has had its turn when an epoch ends, the noise of first order cancels there: its variance is of order ε⁴,
that of independent batches of order ε². For such training full-batch descent with as many steps is the better
prediction, and the noise here an upper estimate for the middle of an epoch.
"""

from dataclasses import dataclass
from operator import index
from typing import SupportsFloat, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Num

from ntkft._errors import InputError, refuse
from ntkft._types import Array
from ntkft.dynamics.filters import Steps, checked_positive, refuse_unstable, whole_steps
from ntkft.dynamics.prediction import outputs_at, per_output, precision_of
from ntkft.spectra.eigen import EmpiricalKernel, as_columns, spectrum_of_matrix


@dataclass(frozen=True, eq=False)
class MinibatchDescent:
    """Dual coefficients after steps on random batches: their mean and covariance.

    steps:      `[s]`
    mean:       `[s, n, k]`, for `outputs_at`: the path of full-batch descent
    covariance: `[s, r, r]`, r = nk in (example, output) order for a full kernel; for a kernel shared by all outputs
                r = n and the covariances of the k outputs are added up
    """

    steps: Float[np.ndarray, " s"]
    mean: Float[np.ndarray, "s n k"]
    covariance: Float[np.ndarray, "s r r"]


@dataclass(frozen=True, eq=False)
class ExpectedError:
    """E (1/m) Σ_i Σ_a (y − f_t)² at every step, in two parts, `[s]`.

    path:  squared error of the mean outputs, which is that of full-batch descent
    noise: what the choice of batches adds, the variance of the outputs
    """

    path: Float[np.ndarray, " s"]
    noise: Float[np.ndarray, " s"]

    @property
    def total(self) -> Float[np.ndarray, " s"]:
        """The expected squared error."""
        return self.path + self.noise


def minibatch_descent(
    kernel: EmpiricalKernel | Num[Array, "..."],
    targets: Num[Array, "..."],
    pretrained: Num[Array, "..."],
    *,
    batch_size: SupportsIndex,
    replace: bool,
    step_size: SupportsFloat,
    steps: Steps,
) -> MinibatchDescent:
    """Exact mean and covariance of minibatch descent on (1/2n) ‖y − f‖², each step on a batch drawn afresh.

    kernel:     of the n training examples with themselves, a record or `[n, n]` or `[n, k, n, k]`, unnormalised; a
                trace record is divided by k (see `ntkft.dynamics.prediction`)
    targets, pretrained: `[n]` or `[n, k]`
    batch_size: b examples a step, whose gradients are averaged
    replace:    whether a batch may hold an example twice (b independent draws) or not (b different examples)
    steps:      numbers of updates, whole, in any order; an epoch has ⌈n/b⌉

    Cost: four products of r × r matrices a step, r as in `MinibatchDescent`, and s r² doubles. Float64, one compiled
    loop. Raises `InputError` for shapes that do not fit, a batch that is empty or larger than the data can fill, a step
    size at or above 2/λ̂₁, where the mean diverges, and one at which the variance has grown beyond all numbers.
    Source: the second-moment recursion is that of stochastic gradient descent for least squares, Bach & Moulines 2013,
    section 2, and the finite-population variance Cochran 1977, theorem 2.2; put together here.
    """
    epsilon = checked_positive("minibatch_descent", "step size", step_size)
    times = whole_steps("minibatch_descent", steps)
    n = len(pretrained)
    start, wanted = as_columns("pretrained", pretrained, n), as_columns("targets", targets, n)
    k, batch = start.shape[1], index(batch_size)
    array = np.asarray(per_output(kernel, k), np.float64)
    problems = []
    if array.shape not in ((n, n), (n, k, n, k)):
        problems.append(
            f"kernel has shape {list(array.shape)}; wanted [{n}, {n}] or [{n}, {k}, {n}, {k}] for {n} examples with "
            f"{k} outputs"
        )
    if wanted.shape != start.shape:
        problems.append(f"targets have {wanted.shape[1]} columns for {k} outputs")
    if batch < 1 or (batch > n and not replace):
        problems.append(f"batch_size is {batch}; wanted 1 to n = {n}" + ("" if batch < 1 else ", or replace=True"))
    refuse("minibatch_descent", problems)
    spectrum = spectrum_of_matrix(array, precision=precision_of(kernel))
    refuse_unstable("minibatch_descent", epsilon, spectrum.eigenvalues, limit=2.0)

    order, block = (n, 1) if array.ndim == 2 else (n * k, k)
    share = batch / n if replace else batch * (n - batch) / (n * max(n - 1, 1))
    ordered = np.argsort(times, kind="stable")
    gaps = np.diff(times[ordered], prepend=0).astype(np.int64)
    with jax.enable_x64(True):
        found = _advance(
            array.reshape(order, order),
            np.kron(np.eye(n), np.ones((block, block))),
            (wanted - start).reshape(order, -1),
            gaps,
            epsilon / n,
            share * (epsilon / batch) ** 2,
            n,
        )
    back = np.argsort(ordered, kind="stable")
    mean, covariance = (np.asarray(part)[back] for part in found)
    if not np.isfinite(covariance).all():
        raise InputError(
            f"minibatch_descent: the variance diverges at step size {epsilon:g} with batches of {batch}, though the "
            "mean does not; take a smaller step or a larger batch"
        )
    return MinibatchDescent(times, mean.reshape(len(times), n, k), covariance)


def expected_error(
    descent: MinibatchDescent,
    kernel: EmpiricalKernel | Num[Array, "..."],
    targets: Num[Array, "..."],
    pretrained: Num[Array, "..."],
) -> ExpectedError:
    """Expected squared error at m examples, on the path and from noise: tr(𝕂_x V 𝕂_xᵀ)/m at every step.

    kernel: of the m examples with the n training examples, in the form that `minibatch_descent` was given;
    targets, pretrained: `[m]` or `[m, k]`.

    Cost: s m r² FLOPs. Raises `InputError` as `outputs_at` does, and for a kernel of the other form.
    """
    k = descent.mean.shape[2]
    array = np.asarray(per_output(kernel, k), np.float64)
    m, order = len(array), descent.covariance.shape[-1]
    outputs = outputs_at(array, descent.mean, pretrained)
    if array.size % order or array[0].size not in (order, k * order):
        raise InputError(
            f"expected_error: kernel {list(array.shape)} for a covariance of order {order}; wanted the form, shared by "
            "all outputs or of all pairs of them, that minibatch_descent was given"
        )
    path = np.mean(np.sum((outputs - as_columns("targets", targets, m)[None]) ** 2, axis=2), axis=1)
    rows = array.reshape(-1, order)
    noise = np.sum((rows @ descent.covariance) * rows[None], axis=(1, 2)) / m
    return ExpectedError(path, noise)


@jax.jit
def _advance(matrix, same_example, residual, gaps, rate, noise, n):
    def step(_, state):
        mean, covariance = state
        left = residual - matrix @ mean
        spread = matrix @ covariance
        moment = left @ left.T + spread @ matrix
        spread = covariance - rate * spread
        spread = spread - rate * spread @ matrix + noise * (same_example - 1 / n) * moment
        return mean + rate * left, spread

    def until(state, gap):
        state = jax.lax.fori_loop(0, gap, step, state)
        return state, state

    return jax.lax.scan(until, (jnp.zeros_like(residual), jnp.zeros_like(matrix)), gaps)[1]
