"""The record that every kernel method returns and everything downstream consumes."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from jaxtyping import Float

from ntkft._types import Array, Outputs

Precision: TypeAlias = Literal["full", "tensorfloat32", "bfloat16"]
"""How numbers are rounded on the way to a kernel; products always accumulate in float32 or better.

full:          every number in the parameters' own type, float32 products never in less
tensorfloat32: products of float32 round their operands to 10 bits where the device has such products (GPUs)
bfloat16:      operands and cotangents are kept in bfloat16: half the memory
"""


@dataclass(frozen=True)
class LeafPlan:
    """What a method did with one leaf of the parameters, in one tile.

    path:  the leaf's path
    sites: kinds of the places where the program uses it
    form:  how its product was contracted: "materialise", "pairs", "reduced", "rows" or "explicit"
    flops: floating-point operations of that form
    bytes: memory of that form
    """

    path: str
    sites: tuple[str, ...]
    form: str
    flops: float
    bytes: int


@dataclass(frozen=True)
class Plan:
    """What a method did: the size of the work.

    All but `parameters` and `tiles` are those of the first tile of examples, which is the whole when there is one.

    parameters:  parameters of the model, p
    zeros:       of those, parameters whose gradient is exactly zero for every example, left out of the work
                 (rows of an embedding table whose token never occurs)
    pieces:      parts of the work, one after the other: segments of the program, or slices of the Jacobian
    micro_batch: examples differentiated at once
    bytes:       estimated peak device memory of the kernel's own arrays
    tiles:       tiles that the pairs of examples were cut into
    leaves:      the work leaf by leaf, for methods that choose by leaf
    """

    method: str
    parameters: int
    zeros: int
    pieces: int
    micro_batch: int
    bytes: int
    tiles: int = 1
    leaves: tuple[LeafPlan, ...] = ()

    @property
    def flops(self) -> float:
        """Operations of all forms of one tile: what is left is 2 to 4 forward-sized passes."""
        return sum(leaf.flops for leaf in self.leaves)

    def __str__(self) -> str:
        tiles = "" if self.tiles == 1 else f"{self.tiles} tiles, each like the first: "
        forms = Counter(leaf.form for leaf in self.leaves)
        contraction = ", ".join(f"{count} {form}" for form, count in forms.most_common())
        return (
            f"{self.method}: {tiles}{self.parameters:,} parameters ({self.zeros:,} never touched), "
            f"{self.pieces} {'piece' if self.pieces == 1 else 'pieces'} in micro-batches of {self.micro_batch}, "
            f"{self.bytes / 1e9:.2f} GB"
            + (f"; contraction of {self.flops / 1e12:.3g} TFLOP in blocks: {contraction}" if forms else "")
        )


@dataclass(frozen=True)
class Kernel:
    """An empirical neural tangent kernel, unnormalised, on the host.

    total:     `[n, m]` for outputs "trace" and "scalar", `[n, k, m, k]` for "full":
               Θ[i,a,j,b] = ⟨∂f_a(x_i)/∂θ, ∂f_b(x_j)/∂θ⟩; "trace" is Σ_a Θ[i,a,j,a], not divided by k
    groups:    the same over each parameter group alone; they sum to `total`
    outputs:   which of the three forms this is
    precision: floating type to which gradients and products were rounded; it sets the eigenvalues' numerical floor
    symmetric: whether the second set of examples is the first
    plan:      what was done to get it
    """

    total: Float[Array, "..."]
    groups: Mapping[str, Float[Array, "..."]]
    outputs: Outputs
    precision: str
    symmetric: bool
    plan: Plan

    def matrix(self, group: str | None = None) -> Float[Array, "r c"]:
        """The total, or one group's kernel, as a matrix: `[n, m]`, or `[n·k, m·k]` in (example, output) order."""
        array = self.total if group is None else self.groups[group]
        return array if array.ndim == 2 else array.reshape(array.shape[0] * array.shape[1], -1)
