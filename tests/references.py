"""Naive dense references and layers, written from the definitions and sharing no code with the package."""

import math

import jax
import jax.numpy as jnp
import numpy as np


def flat_jacobian(apply_fn, params, inputs, mode=jax.jacfwd) -> np.ndarray:
    """J `[n, k, p]` over the whole batch, columns in the order of the leaves.

    mode: forward, the other one than the kernels'; jax.jacrev where its pass for each parameter is too many
    """
    jacobian = jax.jit(mode(apply_fn))(params, inputs)
    n, k = jax.eval_shape(apply_fn, params, inputs).shape
    return np.concatenate([np.asarray(leaf).reshape(n, k, -1) for leaf in jax.tree.leaves(jacobian)], axis=2)


def contract(j1: np.ndarray, j2: np.ndarray, outputs) -> np.ndarray:
    """The kernel of each form from two flat Jacobians."""
    if outputs == "full":
        return np.einsum("iap,jbp->iajb", j1, j2)
    return np.einsum("iap,jap->ij", j1, j2)


def dense_kernel(apply_fn, params, x1, x2, outputs) -> np.ndarray:
    """The kernel of each form, from flat Jacobians of both sets of examples."""
    j1 = flat_jacobian(apply_fn, params, x1)
    j2 = j1 if x2 is None else flat_jacobian(apply_fn, params, x2)
    return contract(j1, j2, outputs)


def layer_norm(x, scale, bias):
    """LayerNorm over the last axis, at NumPy's own broadcasting rules made explicit."""
    centred = x - x.mean(-1, keepdims=True)
    normal = centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return normal * scale[None, None] + bias[None, None]


def rms_norm(x, scale):
    """RMSNorm over the last axis: no mean subtracted, no bias."""
    return x / jnp.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * scale[None, None]


def attention(query, key, value, mask, bias=None):
    """softmax(q kᵀ/√d + bias) v over heads `[n, t, h, d]`, in the arrays' own precision.

    mask: `[n, 1, t or 1, s]`, what a query may see. jax.nn.dot_product_attention takes its softmax in float32, also
    of float64 arrays, which costs 1e-7 of agreement.
    """
    scores = jnp.einsum("nthd,nshd->nhts", query, key) / math.sqrt(query.shape[-1])
    if bias is not None:
        scores = scores + bias
    return jnp.einsum("nhts,nshd->nthd", jax.nn.softmax(jnp.where(mask, scores, -1e30), axis=-1), value)


def mean_of_tokens(hidden, mask):
    """Mean over the tokens of `[n, t, d]` that the mask `[n, t]` keeps."""
    kept = (mask > 0)[:, :, None]
    return jnp.where(kept, hidden, 0).sum(1) / kept.sum(1)
