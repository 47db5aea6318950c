"""Targets as the squared loss sees them: n rows of k outputs."""

import numpy as np
from jaxtyping import Float, Int

from ntkft._errors import InputError
from ntkft._types import Array


def signed_targets(classes: Int[Array, " n"]) -> Float[np.ndarray, "n 1"]:
    """One output for two classes: -1 for class 0, +1 for class 1 (Malladi et al. 2023, binary tasks).

    Raises `InputError` for any other class number.
    """
    classes = np.asarray(classes)
    _check_range("signed_targets", classes, 2, "for more classes use one_hot_targets")
    return np.where(classes == 1, 1.0, -1.0)[:, None]


def one_hot_targets(classes: Int[Array, " n"], k: int) -> Float[np.ndarray, "n k"]:
    """One output for each of k classes: 1 at the example's class, 0 elsewhere.

    Raises `InputError` for a class number that is not below k.
    """
    classes = np.asarray(classes)
    _check_range("one_hot_targets", classes, k, "k is the number of classes of the task")
    return (classes[:, None] == np.arange(k)[None]).astype(np.float64)


def regression_targets(values: Float[Array, " n"]) -> Float[np.ndarray, "n 1"]:
    """One output: the target itself, in its own units."""
    return np.asarray(values, np.float64)[:, None]


def _check_range(call: str, classes: np.ndarray, k: int, advice: str) -> None:
    outside = classes[(classes < 0) | (classes >= k)]
    if outside.size:
        raise InputError(f"{call}: got class {outside[0]}; wanted 0 to {k - 1} ({advice})")
