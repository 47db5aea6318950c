"""The method's work on accelerators: one chunk of all examples, sharded over a mesh; contraction by XLA.

The sweep is data parallel: each device differentiates its share of every micro-batch, with weights where the caller
placed them (replicated, or sharded and gathered by XLA where a step needs them). For a block, the longer side of its
factors is then dealt out anew, so that each device holds all examples for its share of the block (`xla`).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ntkft._errors import InputError
from ntkft._types import PyTree
from ntkft.kernels.factors import xla
from ntkft.kernels.factors.forms import Extent, Form, form_flops
from ntkft.kernels.factors.planning import SLICES, Work
from ntkft.kernels.kernel import Precision


class Devices:
    """Where steps run and blocks are contracted: the devices of a mesh, each with a memory of its own.

    mesh: devices of this process; axes and their types do not matter, all are used for examples. None is the first
    """

    tokens = 4096
    """Differentiated at once by each device: enough to fill it with one product of a small model."""
    threads = 1

    def __init__(self, mesh: Mesh | None, memory: int, precision: Precision):
        devices: np.ndarray = np.asarray(jax.local_devices()[:1] if mesh is None else mesh.devices)
        others = sorted({d.process_index for d in devices.flat} - {jax.process_index()})
        if others:
            raise InputError(
                f"mesh: got devices of other processes ({others}, this one is {jax.process_index()}); wanted a mesh "
                "over jax.local_devices(). Processes share a kernel's tiles through store="
            )
        self._mesh, self._memory = Mesh(devices.reshape(-1), ("examples",)), memory
        # What a product rounds to is a default of the devices; TensorFloat-32 is not float32.
        self._products = "tensorfloat32" if precision == "tensorfloat32" else "highest"
        self._whole = NamedSharding(self._mesh, PartitionSpec())
        self._split = NamedSharding(self._mesh, PartitionSpec(None, "examples"))
        self.devices = devices.size

    def faster_form(
        self, possible: tuple[Form, ...], sizes: tuple[int, int, int], tokens: int, extent: Extent, dtype: np.dtype
    ) -> Form:
        """The form with the fewest operations: on accelerators, both run at the speed of their products."""
        return min(possible, key=lambda form: form_flops(form, sizes, extent, tokens))

    def overhead(self, held: int, again: float, segments: int, equations: int) -> float:
        """Memory that is there costs nothing; neither do segments, beside what is done again."""
        return again

    def compile(self, step: Callable, arguments: Sequence[Any]) -> Callable:
        """The step on the chunk of all examples `[batches, micro, ...]`, its micro-batches shared out.

        Compiled when it is called: once for each way in which weights are sharded.
        """
        return jax.jit(step, out_shardings=self._split)

    def place(self, weights: Sequence[Any]) -> list[jax.Array]:
        """Weights as they are on the mesh's devices, else one copy on each."""
        return [jax.device_put(weight, self._sharding(weight)) for weight in weights]

    def _sharding(self, weight: Any) -> NamedSharding:
        placed = weight.sharding if isinstance(weight, jax.Array) else None
        if not isinstance(placed, NamedSharding) or not isinstance(placed.mesh, Mesh):
            return self._whole
        return placed if np.array_equal(placed.mesh.devices.ravel(), self._mesh.devices) else self._whole

    def chunks(self, examples: PyTree, work: Work) -> list[list[jax.Array]]:
        """Leaves of the examples, filled up with the first ones."""
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(examples)]
        micro = work.micro * self.devices
        rows = np.arange(-(-len(leaves[0]) // micro) * micro) % len(leaves[0])
        return [[jax.device_put(leaf[rows].reshape(-1, micro, *leaf.shape[1:]), self._split) for leaf in leaves]]

    def each(self, step: Callable, weights: Sequence[Any], *columns: Sequence[Any]) -> list[Any]:
        """The step on the one chunk."""
        return [step(weights, *row) for row in zip(*columns, strict=True)]

    def part(self, swapped: bool, kind: str, operands: Sequence[Any], cotangents: Sequence[Any]) -> xla.Part:
        """One site's factors."""
        (operand,), (cotangent,) = operands, cotangents
        return xla.Part(kind, swapped, operand, cotangent)

    def zeros(self, extent: Extent, dtype: np.dtype) -> jax.Array:
        """A kernel to be added to."""
        return xla.zeros(extent, dtype, self._mesh)

    def contract(
        self, form: Form, parts: Sequence[xla.Part], sizes: tuple[int, int, int], extent: Extent, kernel: jax.Array
    ) -> jax.Array:
        """The kernel with a block's added, when that is done: the next segment's factors take this one's place."""
        column = extent.count * extent.k * kernel.dtype.itemsize
        columns = max(1, min(xla.COLUMNS, self._memory // SLICES // column))
        with jax.default_matmul_precision(self._products):
            return jax.block_until_ready(xla.contract(form, parts, sizes, extent, kernel, self._mesh, columns=columns))

    def collect(self, kernel: jax.Array) -> np.ndarray:
        """The finished kernel: the sum over devices."""
        return np.asarray(jnp.sum(kernel, axis=0))
