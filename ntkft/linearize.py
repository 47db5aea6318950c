"""The model as the kernel sees it: its first-order Taylor expansion in the parameters, and the way there.

    f_lin(θ, x) = f(θ₀, x) + J(θ₀, x) (θ − θ₀)

Kernel predictions are exact for f_lin: trained by gradient descent on the squared loss it follows the closed forms of
the kernel to rounding, so training f_lin and training f with the same optimiser separates the error of linearising
from every other one. f_lin is itself a model, and goes wherever a model goes. `lazy` is a model in between: the larger
its scale, the less parameters have to move, and the nearer training comes to that of f_lin.
"""

from typing import SupportsFloat

import jax
import jax.numpy as jnp

from ntkft._errors import InputError, refuse
from ntkft._tree import leaf_paths
from ntkft._types import ApplyFn, PyTree


def linearize(apply_fn: ApplyFn, params: PyTree) -> ApplyFn:
    """f_lin(θ, x) = f(θ₀, x) + J(θ₀, x)(θ − θ₀), the Taylor expansion of `apply_fn` at θ₀ = `params`, as a model.

    Args:
        apply_fn: the model f, differentiable in forward mode.
        params: the point of expansion θ₀, kept by the returned function (no copy).

    Returns:
        A function of `(params_new, inputs)` with outputs `[n, k]`; `params_new` has the structure and shapes of
        `params`, and anything else raises `InputError` naming every leaf that differs.

    Cost: one Jacobian-vector product, so two to three forward passes in time and twice the activations in memory; the
    Jacobian is never formed. θ − θ₀ is taken in the precision of the parameters: in float32 its relative error is about
    1e-7 ‖θ‖ / ‖θ − θ₀‖.

    Source: Lee et al. 2019, "Wide Neural Networks of Any Depth Evolve as Linear Models Under Gradient Descent", §2.2.
    """

    def apply_linearized(params_new: PyTree, inputs: PyTree, /) -> jax.Array:
        _check_shapes(params, params_new)
        direction = jax.tree.map(jnp.subtract, params_new, params)
        outputs, change = jax.jvp(lambda point: apply_fn(point, inputs), (params,), (direction,))
        return outputs + change

    return apply_linearized


def lazy(apply_fn: ApplyFn, params: PyTree, scale: SupportsFloat) -> ApplyFn:
    """f_α(θ, x) = f(θ₀, x) + α (f(θ, x) − f(θ₀, x)) at θ₀ = `params`: a model, with its change scaled by α.

    Its kernel at θ₀ is α²𝕂, so with step size ε/α² first-order predictions are those of f for every α, while the
    parameters move, and the kernel with them, in proportion to 1/α: as α → ∞ training becomes that of `linearize`.
    A fine-tuning run at several α shows what features learnt on the way are worth.

    Cost: two forward passes for one. Raises `InputError` for a scale that is not positive and finite.
    Source: Chizat, Oyallon & Bach 2019, *On lazy training in differentiable programming*, with f(θ₀) kept in place.
    """
    alpha = float(scale)
    if not 0 < alpha < float("inf"):
        raise InputError(f"lazy: scale is {alpha:g}; wanted a positive number, 1 for the model as it is")

    def apply_lazily(params_new: PyTree, inputs: PyTree, /) -> jax.Array:
        start = apply_fn(params, inputs)
        return start + alpha * (apply_fn(params_new, inputs) - start)

    return apply_lazily


def _check_shapes(expected: PyTree, got: PyTree) -> None:
    # Without this a leaf of the wrong shape would broadcast in θ − θ₀.
    shapes, got_shapes = ({path: jnp.shape(leaf) for path, leaf in leaf_paths(t).items()} for t in (expected, got))
    refuse(
        "linearize",
        [
            f"parameter {path!r} is {_describe(got_shapes, path)} but {_describe(shapes, path)} in the point of "
            "expansion; both must have the same leaves and shapes"
            for path in shapes | got_shapes
            if shapes.get(path) != got_shapes.get(path)
        ],
    )


def _describe(shapes: dict[str, tuple[int, ...]], path: str) -> str:
    return str(list(shapes[path])) if path in shapes else "missing"
