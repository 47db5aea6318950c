"""What is minimised and what is measured.

Every loss is a mean over examples of ℓ(f(x), y):

    squared         ½ Σ_a (y_a − f_a)²        targets floating [n, k]     so that the loss is (1/2n) Σ_i Σ_a (y − f)²
    cross_entropy   −log softmax(f)_y         targets integer  [n]        in nats

The mean squared error that is reported is (1/m) Σ_i Σ_a (y − f)², twice the squared loss: the unit of predicted risk.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ntkft._types import Array
from ntkft.dynamics.classification import accuracy

Loss = Callable[[Array, Array], jax.Array]
"""ℓ of each example: outputs `[n, k]` and targets to `[n]`."""


def squared(outputs: Array, targets: Array) -> jax.Array:
    """½ Σ_a (y_a − f_a)² of each example: outputs and targets `[n, k]` to `[n]`."""
    return 0.5 * jnp.sum(jnp.square(targets - outputs), axis=1)


def cross_entropy(outputs: Array, targets: Array) -> jax.Array:
    """−log softmax(f)_y of each example: logits `[n, k]` and classes `[n]` to `[n]`."""
    return optax.losses.softmax_cross_entropy_with_integer_labels(jnp.asarray(outputs), jnp.asarray(targets))


LOSSES: dict[str, Loss] = {"squared": squared, "cross_entropy": cross_entropy}


def target_problems(loss: str, targets: Array, n: int, k: int) -> list[str]:
    """Every reason why `targets` cannot be compared with outputs `[n, k]` under `loss`."""
    got = f"got {targets.dtype} {list(targets.shape)}"
    if len(targets) != n:
        return [f"{n} examples but {len(targets)} targets; every example needs one"]
    if loss == "squared":
        if targets.shape != (n, k) or not np.issubdtype(targets.dtype, np.floating):
            return [f"{got}; the squared loss compares outputs with floating targets [n, k] = [{n}, {k}]"]
        bad = np.flatnonzero(~np.isfinite(targets).all(axis=1))
        if bad.size:
            return [f"targets are NaN or infinite in {bad.size} of {n} rows, first row {bad[0]}; drop or mend them"]
        return []
    if targets.shape != (n,) or not np.issubdtype(targets.dtype, np.integer):
        return [f"{got}; the cross-entropy needs integer classes [n] = [{n}]"]
    if targets.min() < 0 or targets.max() >= k:
        return [f"classes run from {targets.min()} to {targets.max()}; the model's {k} outputs allow 0 to {k - 1}"]
    return []


def measure(outputs: np.ndarray, targets: np.ndarray, loss: str) -> dict[str, np.floating]:
    """The training loss and, where the targets define them, mean squared error and accuracy: means in float64."""
    measured: dict[str, np.floating] = {"loss": np.mean(np.asarray(LOSSES[loss](outputs, targets), np.float64))}
    if targets.ndim == 2:
        with np.errstate(over="ignore"):  # a diverging run is told by its infinite error, not by a warning
            measured["mse"] = np.mean(np.sum(np.square(targets - outputs.astype(np.float64)), axis=1))
    if (right := accuracy(outputs, targets)) is not None:
        measured["accuracy"] = np.float64(right)
    return measured
