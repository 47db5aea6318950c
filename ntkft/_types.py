"""One alphabet of axes and the few types that every layer shares.

Axis letters in all shapes, docstrings and jaxtyping annotations:

    n, m   examples (m: the second set, or a test set)        k   outputs per example
    p      parameters                                         t   tokens
    d      width                                              r   eigenpairs or rank
    s      steps (epochs of full-batch gradient descent)
"""

from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import jax
import numpy as np

Array: TypeAlias = jax.Array | np.ndarray
PyTree: TypeAlias = Any

Outputs: TypeAlias = Literal["full", "trace", "scalar"]
"""Which form of the kernel: every pair of outputs, the sum over equal outputs, or a model with one output."""


@runtime_checkable
class ApplyFn(Protocol):
    """A model as JAX sees it: a pure function from parameters and n examples to n rows of k outputs.

    `inputs` is any pytree whose leaves share a leading example axis; row i of the result may depend on example i
    only, and on no randomness (evaluation mode: no dropout, no batch statistics).
    """

    def __call__(self, params: PyTree, inputs: PyTree, /) -> jax.Array:
        """Outputs `[n, k]`."""
        ...
