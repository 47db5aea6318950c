"""The kernels of optimisers that step by the sign of the gradient: signed gradient descent, and Adam early in training.

A step of signed gradient descent on example x' moves the parameters by −ε·sign(∇f(x')) up to the sign of the loss's
derivative, and so the output at x by −ε⟨∇f(x), sign ∇f(x')⟩: the *asymmetric* kernel. The *symmetric* one puts a sign
on both sides. Both are taken with respect to single parameters, so no factored form exists: they are products of
explicit Jacobian slices (`jacobian`).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, TypeAlias

import jax.numpy as jnp

from ntkft._errors import InputError
from ntkft._tree import assign_groups
from ntkft._types import ApplyFn, Outputs, PyTree
from ntkft.kernels.checks import check_apply_fn, check_form, check_outputs
from ntkft.kernels.jacobian import Side, jacobian_kernel, unchanged
from ntkft.kernels.kernel import Kernel
from ntkft.kernels.memory import budget_bytes
from ntkft.kernels.tiles import Progress

SignKind: TypeAlias = Literal["symmetric", "asymmetric"]

_SIDES: dict[str, tuple[Side, Side]] = {"symmetric": (jnp.sign, jnp.sign), "asymmetric": (unchanged, jnp.sign)}


def signgd_ntk(
    apply_fn: ApplyFn,
    params: PyTree,
    x1: PyTree,
    x2: PyTree | None = None,
    *,
    outputs: Outputs,
    kind: SignKind,
    groups: Mapping[str, str] | None = None,
    memory: int | float | str | None = None,
    check: bool = True,
    progress: Progress | None = None,
) -> Kernel:
    """Exact SignGD kernels of examples x1 (rows) and x2 (columns; None means x1), unnormalised.

    kind: "symmetric"   Θ[i,a,j,b] = ⟨sign ∂f_a(x1_i)/∂θ, sign ∂f_b(x2_j)/∂θ⟩
          "asymmetric"  Θ[i,a,j,b] = ⟨∂f_a(x1_i)/∂θ, sign ∂f_b(x2_j)/∂θ⟩: rows are the examples whose output changes,
          columns those trained on. With x2=None it is square but not symmetric; `Kernel.symmetric` says so, and
          eigenvalues of it may be complex

    Other arguments, forms ("trace" is Σ_a Θ[i,a,j,a]) and groups are those of `empirical_ntk`; all examples are held
    in one tile. `progress` is called in Jacobian columns.

    sign 0 = 0: a parameter that an example does not touch adds nothing. A gradient that is zero only by an identity
    comes out as rounding noise, whose sign is ±1: the bias of attention keys, which the softmax cancels, adds noise of
    the size of its parameter count. Give such leaves a group of their own and subtract it from the total.
    With several outputs the kernels describe steps on one output at a time: sign Σ_a c_a ∂f_a is not Σ_a c_a sign ∂f_a.

    Cost: that of method "jacobian"; the asymmetric square kernel takes the full product instead of half.
    Raises `InputError` as `empirical_ntk` does, and for another `kind`.
    Source: Malladi, Wettig, Yu, Chen & Arora 2023, *A kernel-based view of language model fine-tuning*, section 4.
    """
    if kind not in _SIDES:
        raise InputError(f"signgd_ntk: got kind={kind!r}; wanted one of {', '.join(map(repr, _SIDES))}")
    k = check_form(apply_fn, params, x1, outputs)
    if x2 is not None:
        check_form(apply_fn, params, x2, outputs)
    group_of, budget = assign_groups(params, groups), budget_bytes(memory)
    if check:
        check_apply_fn(apply_fn, params, x1)
        check_outputs(apply_fn, params, x1)
    kernel = jacobian_kernel(
        apply_fn,
        params,
        x1,
        x2,
        k,
        outputs=outputs,
        group_of=group_of,
        memory=budget,
        progress=progress,
        sides=_SIDES[kind],
    )
    return replace(kernel, plan=replace(kernel.plan, method=f"signgd:{kind}"))
