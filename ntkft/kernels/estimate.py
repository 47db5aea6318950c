"""What a kernel will cost, from shapes alone: before weights are loaded, or a machine is rented."""

from dataclasses import dataclass

import jax

from ntkft._tree import count_examples
from ntkft._types import ApplyFn, Outputs, PyTree
from ntkft.kernels.checks import check_form
from ntkft.kernels.factors.capture import capture
from ntkft.kernels.factors.forms import Extent, form_flops, possible_forms
from ntkft.kernels.factors.planning import block_tokens


@dataclass(frozen=True)
class Estimate:
    """The least work of an exact kernel by method "factors", and the memory that frames it.

    parameters:      p
    sweep_flops:     of evaluating and differentiating the model: three forward-sized passes
    form_flops:      of contracting every weight's factors in its cheapest form
    kernel_bytes:    of the kernel, in float32, one for each group and the total
    gradients_bytes: of the n·k gradients, in float32, which "factors" never holds and other methods do
    """

    parameters: int
    sweep_flops: float
    form_flops: float
    kernel_bytes: int
    gradients_bytes: int

    @property
    def flops(self) -> float:
        """All operations."""
        return self.sweep_flops + self.form_flops


def estimate_cost(apply_fn: ApplyFn, params: PyTree, inputs: PyTree, *, outputs: Outputs, groups: int) -> Estimate:
    """The cost of the symmetric kernel of `inputs`; leaves of `params` and `inputs` may be `jax.ShapeDtypeStruct`s.

    Forms are counted in operations, where a real plan measures them; table rows at most; padding is work like any
    other. Cost: a few traces of one example. Raises `InputError` as `empirical_ntk` does for outputs that do not fit.
    """
    k, n = check_form(apply_fn, params, inputs, outputs), count_examples(inputs)
    program, extent = capture(apply_fn, params, inputs), Extent(n, 0, k, outputs)
    forward = contraction = 0.0
    for block in program.blocks:
        tokens = block_tokens(program, block)
        batch, rows, width = block.sizes
        if possible_forms(program, block)[0] == "materialise":
            forward += 2 * n * tokens * batch * rows * width
        contraction += min(form_flops(form, block.sizes, extent, tokens) for form in possible_forms(program, block))
    p = sum(leaf.size for leaf in jax.tree.leaves(params))
    size = extent.shape[0] ** 2 * 4
    return Estimate(p, (1 + 2 * k) * forward, contraction, (groups + 1) * size, 4 * n * k * p)
