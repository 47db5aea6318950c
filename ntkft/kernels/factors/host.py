"""The method's work on one CPU: the sweep in chunks of examples, side by side on threads; contraction by BLAS."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntkft._types import PyTree
from ntkft.kernels.compilation import compile_once
from ntkft.kernels.factors import blas, calibration
from ntkft.kernels.factors.forms import Extent, Form
from ntkft.kernels.factors.planning import SLICES, Work
from ntkft.kernels.memory import return_freed_memory


class Host:
    """Where steps run and blocks are contracted: threads that share the memory of one CPU."""

    tokens = 256
    """Differentiated at once by each thread: enough for the products, little enough to stay in the cache."""
    devices = 1

    def __init__(self, memory: int):
        self._memory = memory
        self.threads = blas.available_workers()
        self._workers = blas.Workers(self.threads)

    def faster_form(
        self, possible: tuple[Form, ...], sizes: tuple[int, int, int], tokens: int, extent: Extent, dtype: np.dtype
    ) -> Form:
        """As measured on this machine."""
        return calibration.faster_form(possible, sizes, tokens, extent, dtype, self.threads)

    def overhead(self, held: int, again: float, segments: int, equations: int) -> float:
        """As measured on two cores: touching memory is dear, more so than a forward pass (docs/design.md)."""
        return held / 5e8 + again / 7e10 + segments / 4 + equations / 70

    def compile(self, step: Callable, arguments: Sequence[Any]) -> Callable:
        """The step compiled for arguments like these, on a chunk of examples `[batches, micro, ...]`."""
        return compile_once(step, arguments)

    def place(self, weights: Sequence[Any]) -> list[Any]:
        """Weights where the steps take them."""
        return [jnp.asarray(weight) for weight in weights]

    def chunks(self, examples: PyTree, work: Work) -> list[list[np.ndarray]]:
        """Leaves of the examples, chunk by chunk, filled up with the first examples."""
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(examples)]
        chunks = work.chunks(len(leaves[0]))
        rows = np.arange(chunks * work.batches * work.micro) % len(leaves[0])
        arrays = [leaf[rows].reshape(chunks, work.batches, work.micro, *leaf.shape[1:]) for leaf in leaves]
        return [list(chunk) for chunk in zip(*arrays, strict=True)]

    def each(self, step: Callable, weights: Sequence[Any], *columns: Sequence[Any]) -> list[Any]:
        """The step on each chunk, several at a time; what it needed on the way is given back to the system."""

        def one(row):
            return jax.block_until_ready(step(weights, *row))

        done = self._workers.map(one, list(zip(*columns, strict=True)))
        return_freed_memory()
        return done

    def part(self, swapped: bool, kind: str, operands: Sequence[Any], cotangents: Sequence[Any]) -> blas.Part:
        """One site's factors, chunk by chunk, without copies where memory is shared."""
        flat = [None if operand is None else _examples(operand) for operand in operands]
        return blas.Part(kind, swapped, flat, [_examples(cotangent) for cotangent in cotangents])

    def zeros(self, extent: Extent, dtype: np.dtype) -> np.ndarray:
        """A kernel to be added to."""
        return np.zeros(extent.shape, dtype)

    def contract(
        self, form: Form, parts: Sequence[blas.Part], sizes: tuple[int, int, int], extent: Extent, kernel: np.ndarray
    ) -> np.ndarray:
        """The kernel with a block's added."""
        column = self.threads * extent.count * extent.k * kernel.dtype.itemsize
        columns = max(1, min(blas.COLUMNS, self._memory // SLICES // column))
        blas.contract(form, parts, sizes, extent, kernel, self._workers, columns=columns)
        return kernel

    def collect(self, kernel: np.ndarray) -> np.ndarray:
        """The finished kernel."""
        return kernel


def _examples(array: jax.Array) -> np.ndarray:
    return np.asarray(array).reshape(-1, *array.shape[2:])
