"""Classes: which one outputs speak for, and which one targets stand for.

One output is a class by its sign, zero counting as positive; several by the largest. Targets are classes when they are
integers `[m]`, signs ±1 in one column, or one-hot rows, shifted and scaled at will (two values in all, and the high one
once in every row). Anything else is numbers to regress on.
"""

import numpy as np
from jaxtyping import Float, Int, Num

from ntkft._types import Array


def decide(outputs: Num[Array, "*rows k"]) -> Int[np.ndarray, "*rows"]:
    """The class that outputs speak for."""
    array = np.asarray(outputs)
    return (array[..., 0] >= 0).astype(int) if array.shape[-1] == 1 else np.argmax(array, axis=-1)


def class_of(targets: Num[Array, "..."]) -> Int[np.ndarray, " m"] | None:
    """The class of each example, `[m]`; None where the targets are numbers to regress on."""
    array = np.asarray(targets)
    if array.ndim == 1:
        return array if np.issubdtype(array.dtype, np.integer) else None
    values = np.unique(array)
    if array.shape[1] == 1:
        return decide(array) if np.isin(values, (-1, 1)).all() else None
    one_hot = values.size == 2 and ((array == values[1]).sum(axis=1) == 1).all()
    return decide(array) if one_hot else None


def accuracy(outputs: Num[Array, "*steps m k"], targets: Num[Array, "..."]) -> Float[np.ndarray, "*steps"] | None:
    """The share of examples that outputs put in their class, at every step; None where targets are no classes."""
    wanted = class_of(targets)
    return None if wanted is None else np.asarray(np.mean(decide(outputs) == wanted, axis=-1))
