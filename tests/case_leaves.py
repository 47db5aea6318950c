"""Leaves that are no layer's matrix: stacks of experts, scalars, constants, and leaves that nothing uses."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.case_parts import WIDTH, Case, N, embed, embeddings, normal, tokens
from tests.references import mean_of_tokens

EXPERTS = 3


def expert_gather() -> Case:
    """Each token takes its expert's matrix out of the stack, by an index that the data decide."""
    draw = normal(70)
    params = embeddings(draw) | _experts(draw) | {"router": draw(WIDTH, EXPERTS)}

    def apply_fn(params, inputs):
        hidden = embed(params, inputs)
        routes = jax.nn.softmax(hidden @ params["router"], axis=-1)
        chosen = routes.argmax(-1)
        inner = jax.nn.gelu(jnp.einsum("ntd,ntdf->ntf", hidden, params["up"][chosen]))
        outer = jnp.einsum("ntf,ntfd->ntd", inner, params["down"][chosen])
        hidden = hidden + outer * jnp.take_along_axis(routes, chosen[..., None], axis=-1)
        return mean_of_tokens(hidden, inputs["attention_mask"]) @ params["head"]

    return Case(apply_fn, params, tokens(70))


def expert_batch() -> Case:
    """Soft mixture of experts: the stack `[E, d, f]` is one operand of a product batched over experts."""
    draw = normal(71)
    params = embeddings(draw) | _experts(draw) | {"slots": draw(WIDTH, EXPERTS)}

    def apply_fn(params, inputs):
        hidden, kept = embed(params, inputs), inputs["attention_mask"][:, :, None] > 0
        scores = hidden @ params["slots"]
        dispatch = jax.nn.softmax(jnp.where(kept, scores, -1e30), axis=1)
        slots = jnp.einsum("ntd,nte->ned", hidden, dispatch)
        inner = jax.nn.gelu(jnp.einsum("ned,edf->nef", slots, params["up"]))
        outer = jnp.einsum("nef,efd->ned", inner, params["down"])
        hidden = hidden + jnp.einsum("ned,nte->ntd", outer, jax.nn.softmax(scores, axis=-1))
        return mean_of_tokens(hidden, inputs["attention_mask"]) @ params["head"]

    return Case(apply_fn, params, tokens(71))


def unused_leaves() -> Case:
    """Leaves without influence: one never read, one behind `stop_gradient`, one read and dropped, an empty one."""
    draw = normal(72)
    params = {
        "kernel": draw(5, 2),
        "pooler": {"kernel": draw(5, 5), "bias": draw(5)},
        "frozen": draw(5, 2),
        "dropped": draw(5, 3),
        "empty": np.zeros((0, 4)),
    }

    def apply_fn(params, x):
        _ = x @ params["dropped"]
        return x @ params["kernel"] + x @ jax.lax.stop_gradient(params["frozen"])

    return Case(apply_fn, params, draw(N, 5))


def scalar_leaves() -> Case:
    """A residual gate that multiplies and a temperature that divides: leaves without axes, broadcast over all."""
    draw = normal(73)
    params = {
        "layers": [{"kernel": draw(5, 5), "gate": np.array(0.7)}, {"kernel": draw(5, 5), "gate": np.array(-0.4)}],
        "head": draw(5, 3),
        "log_temperature": np.array(0.3),
        "power": np.array(1.5),
    }

    def apply_fn(params, x):
        for layer in params["layers"]:
            x = x + layer["gate"] * jnp.tanh(x @ layer["kernel"])
        logits = x @ params["head"] / jnp.exp(params["log_temperature"])
        return (1 + logits**2) ** params["power"]

    return Case(apply_fn, params, draw(N, 5))


def constant_logit() -> Case:
    """A learned logit for "none of these", equal for all examples: the leaf itself is an output."""
    draw = normal(74)
    params = {"kernel": draw(5, 2), "none": draw(1), "offset": draw(3)}

    def apply_fn(params, x):
        none = jnp.broadcast_to(params["none"], (len(x), 1))
        return jnp.concatenate([x @ params["kernel"], none], axis=1) - params["offset"][None]

    return Case(apply_fn, params, draw(N, 5))


def affine_features() -> Case:
    """Scales and shifts of the inputs before the first matrix: subtracted, divided, a bound, a matrix from the left."""
    draw = normal(75)
    params = {"mean": draw(5), "deviation": 2 + draw(5), "bound": 0.5 * draw(5), "kernel": draw(2, 5)}

    def apply_fn(params, x):
        x = (params["mean"][None] - x) / params["deviation"][None]
        x = jnp.minimum(x, params["bound"][None])
        return (params["kernel"] @ jnp.sin(x).T).T

    return Case(apply_fn, params, 2 * draw(N, 5))


def _experts(draw):
    return {
        "up": draw(EXPERTS, WIDTH, 6),
        "down": draw(EXPERTS, 6, WIDTH),
        "head": draw(WIDTH, 2),
    }


CASES = (expert_gather, expert_batch, unused_leaves, scalar_leaves, constant_logit, affine_features)
