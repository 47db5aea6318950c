"""The model as the kernel sees it: its first-order Taylor expansion in the parameters.

    f_lin(θ, x) = f(θ₀, x) + J(θ₀, x) (θ − θ₀)

Kernel predictions are exact for f_lin: trained by gradient descent on the squared loss it follows the closed forms of
the kernel to rounding, so training f_lin and training f with the same optimiser separates the error of linearising
from every other one. f_lin is itself a model, and goes wherever a model goes.
"""

import jax
import jax.numpy as jnp

from ntkft._errors import refuse
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
