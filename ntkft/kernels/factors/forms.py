"""The exact ways to contract a block's factors into its kernel, and what each costs.

For a block with gradients G_i = Σ_t a_it b_itᵀ (`[rows, width]`, a sum over its sites):

    materialise  form slices of G for all examples, add one product G Gᵀ per slice:
                 2·n·k·t·rows·width to form, n²·k²·rows·width to contract (half a product, by symmetry)
    pairs        Σ_ts ⟨a_it, a_js⟩⟨b_it, b_js⟩: n²·t²·(rows + k²·width), and no gradient is ever formed
    reduced      the gradient is a vector, already summed over tokens: one product
    rows         of a table, only pairs of examples that share a token: Σ_u m_u²·k²·width over tokens u in m_u examples

Trace and scalar kernels have k in place of k².
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from ntkft._types import Outputs
from ntkft.kernels.factors.capture import Block, Program

Form: TypeAlias = Literal["materialise", "pairs", "reduced", "rows"]


@dataclass(frozen=True)
class Extent:
    """The examples of a kernel block: n, and m more when it is rectangular (m = 0: symmetric), each with k outputs."""

    n: int
    m: int
    k: int
    outputs: Outputs

    @property
    def count(self) -> int:
        """Examples to differentiate."""
        return self.n + self.m

    @property
    def rows_each(self) -> int:
        """Rows of the kernel for each example."""
        return self.k if self.outputs == "full" else 1

    @property
    def shape(self) -> tuple[int, int]:
        """Of the kernel as a matrix."""
        return self.n * self.rows_each, (self.m or self.n) * self.rows_each

    @property
    def pairs(self) -> float:
        """Pairs of examples to contract: the lower triangle, or all."""
        return float(self.n * self.m) if self.m else self.n**2 / 2


def possible_forms(program: Program, block: Block) -> tuple[Form, ...]:
    """Forms that compute this block exactly, the natural one first."""
    kinds = {program.sites[i].kind for i in block.sites}
    if kinds <= {"affine", "explicit"}:
        return ("reduced",)
    if kinds == {"rows"}:
        return ("rows",)
    if len(block.sites) == 1:
        return ("materialise", "pairs")
    return ("materialise",)


def form_flops(form: Form, sizes: tuple[int, int, int], extent: Extent, tokens: int) -> float:
    """Operations of a form for a block of `sizes` (batch, rows, width); for "rows", at most."""
    batch, rows, width = sizes
    k_pairs = extent.k**2 if extent.outputs == "full" else extent.k
    if form == "pairs":
        return 2 * extent.pairs * batch * tokens**2 * (rows + k_pairs * width)
    forming = 2 * extent.count * extent.k * tokens * batch * rows * width if form == "materialise" else 0
    return forming + 2 * extent.pairs * k_pairs * batch * rows * width
