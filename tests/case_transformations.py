"""Models written with JAX's own transformations, so that weights are used inside the programs of other equations."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.case_parts import (
    WIDTH,
    Case,
    N,
    T,
    block_params,
    causal_mask,
    decode,
    decoder_block,
    decoder_params,
    embed,
    embeddings,
    normal,
    tokens,
)
from tests.references import layer_norm, mean_of_tokens

LAYERS = 3


def remat_blocks() -> Case:
    """`jax.checkpoint` around blocks: the weights are used inside another equation's program."""
    draw = normal(50)
    params = decoder_params(draw, layers=2) | {"head": draw(WIDTH, 2)}

    def apply_fn(params, inputs):
        return decode(params, inputs, jax.checkpoint(decoder_block)) @ params["head"]

    return Case(apply_fn, params, tokens(50))


def scan_layers() -> Case:
    """`lax.scan` over stacked layers: each leaf `[L, ...]` is sliced by the loop and used once in each round."""
    draw = normal(51)
    params = embeddings(draw) | {"blocks": _stacked(draw), "head": draw(WIDTH, 2)}

    def apply_fn(params, inputs):
        mask = causal_mask(inputs)
        hidden, _ = jax.lax.scan(
            lambda hidden, block: (decoder_block(block, hidden, mask), None), embed(params, inputs), params["blocks"]
        )
        return hidden[:, -1] @ params["head"]

    return Case(apply_fn, params, tokens(51))


def scan_remat() -> Case:
    """The same with `jax.checkpoint` in the loop, a norm that all rounds share, and outputs stacked by the loop."""
    draw = normal(52)
    shared = {"scale": 1 + draw(WIDTH), "bias": draw(WIDTH), "probe": draw(WIDTH, 2)}
    params = embeddings(draw) | {"blocks": _stacked(draw), "shared": shared, "mix": draw(LAYERS)}

    def apply_fn(params, inputs):
        mask, shared = causal_mask(inputs), params["shared"]

        @jax.checkpoint
        def layer(hidden, block):
            hidden = layer_norm(decoder_block(block, hidden, mask), shared["scale"], shared["bias"])
            return hidden, mean_of_tokens(hidden, inputs["attention_mask"]) @ shared["probe"]

        _, logits = jax.lax.scan(layer, embed(params, inputs), params["blocks"])
        return jnp.einsum("lnk,l->nk", logits, params["mix"])

    return Case(apply_fn, params, tokens(52))


def scan_over_tokens() -> Case:
    """A recurrent network: the loop runs over tokens and uses whole weights, one site for each token."""
    draw = normal(53)
    params = embeddings(draw) | {
        "state": draw(WIDTH, WIDTH),
        "bias": draw(WIDTH),
        "start": draw(WIDTH),
        "head": draw(WIDTH, 2),
    }

    def apply_fn(params, inputs):
        hidden = embed(params, inputs)

        def step(state, token):
            x, kept = token
            new = jnp.tanh(x + state @ params["state"] + params["bias"][None])
            return jnp.where(kept[:, None] > 0, new, state), None

        start = jnp.broadcast_to(params["start"], hidden[:, 0].shape)
        state, _ = jax.lax.scan(step, start, (hidden.swapaxes(0, 1), inputs["attention_mask"].T))
        return state @ params["head"]

    return Case(apply_fn, params, tokens(53))


def vmap_over_tokens() -> Case:
    """Written for one token and mapped over tokens and examples inside `jit`: products of vectors and matrices."""
    draw = normal(54)
    params = embeddings(draw) | {"dense": draw(WIDTH, 6), "bias": draw(6), "score": draw(6), "head": draw(6, 2)}

    def token(params, index, position):
        x = jnp.tanh((params["token"][index] + params["position"][position]) @ params["dense"] + params["bias"])
        return x, x @ params["score"]

    def example(params, ids, mask):
        hidden, scores = jax.vmap(token, (None, 0, 0))(params, ids, np.arange(len(ids)))
        return jax.nn.softmax(jnp.where(mask > 0, scores, -1e30)) @ hidden @ params["head"]

    def apply_fn(params, inputs):
        mapped = jax.jit(jax.vmap(example, (None, 0, 0)))
        return mapped(params, inputs["input_ids"], inputs["attention_mask"])

    return Case(apply_fn, params, tokens(54))


def map_over_examples() -> Case:
    """`lax.map` over examples with a `cond` that sends each to one of two matrices: a loop, and a branch in it."""
    draw = normal(55)

    def example(params, x):
        hidden = jax.lax.cond(
            x[0] > 0,
            lambda x: jnp.tanh(x @ params["right"]),
            lambda x: jnp.sin(x @ params["left"] + params["bias"]),
            x,
        )
        return hidden @ params["head"]

    params = {"left": draw(5, 4), "right": draw(5, 4), "bias": draw(4), "head": draw(4, 2)}
    return Case(lambda params, xs: jax.lax.map(lambda x: example(params, x), xs), params, draw(N, 5))


def custom_jvp() -> Case:
    """Two activations with their own derivative: ReLU at its kink, on padding, and a step with a surrogate slope."""
    draw = normal(56)

    @jax.custom_jvp
    def step(x):
        return (x > 0).astype(x.dtype)

    step.defjvps(lambda tangent, _, x: tangent / (1 + jnp.abs(x)) ** 2)

    def apply_fn(params, x):
        hidden = jax.nn.relu(x @ params["dense"] + params["bias"][None, None])
        spikes = step(hidden @ params["second"] - params["threshold"][None, None])
        return spikes.sum(1) @ params["head"] + hidden.sum(1) @ params["skip"]

    params = {
        "dense": draw(5, 6),
        "bias": np.zeros(6),
        "second": draw(6, 4),
        "threshold": draw(4),
        "head": draw(4, 2),
        "skip": draw(6, 2),
    }
    return Case(apply_fn, params, normal(57)(N, T, 5) * tokens(57)["attention_mask"][:, :, None])


def custom_vjp_dense() -> Case:
    """A dense layer with its own backward pass, as fused kernels have: weights are arguments of a `custom_vjp`."""
    draw = normal(58)

    def plain(x, kernel, bias):
        return jnp.tanh(x @ kernel + bias[None])

    def backward(saved, cotangent):
        x, kernel, value = saved
        inner = cotangent * (1 - value**2)
        return inner @ kernel.T, x.T @ inner, inner.sum(0)

    dense = jax.custom_vjp(plain)
    dense.defvjp(lambda x, kernel, bias: (plain(x, kernel, bias), (x, kernel, plain(x, kernel, bias))), backward)

    def network(layer):
        def apply_fn(params, x):
            for weights in params[:-1]:
                x = layer(x, weights["kernel"], weights["bias"])
            return x @ params[-1]["kernel"]

        return apply_fn

    params = [{"kernel": draw(a, b), "bias": draw(b)} for a, b in ((5, 6), (6, 4))] + [{"kernel": draw(4, 2)}]
    return Case(network(dense), params, draw(N, 5), reference=network(plain))


def straight_through() -> Case:
    """Quantised weights and activations whose `custom_vjp` passes the cotangent on: no derivative of the program."""
    draw = normal(59)

    def rounded(x):
        return jnp.round(4 * x) / 4

    quantise = jax.custom_vjp(rounded)
    quantise.defvjp(lambda x: (rounded(x), None), lambda _, cotangent: (cotangent,))

    def network(quantise):
        def apply_fn(params, x):
            x = quantise(jnp.tanh(x @ quantise(params["dense"]) + params["bias"][None]))
            return x @ params["head"]

        return apply_fn

    params = {"dense": draw(5, 6), "bias": draw(6), "head": draw(6, 2)}
    return Case(
        network(quantise),
        params,
        draw(N, 5),
        reference=network(lambda x: x + jax.lax.stop_gradient(rounded(x) - x)),
    )


def _stacked(draw):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *(block_params(draw) for _ in range(LAYERS)))


CASES = (
    remat_blocks,
    scan_layers,
    scan_remat,
    scan_over_tokens,
    vmap_over_tokens,
    map_over_examples,
    custom_jvp,
    custom_vjp_dense,
    straight_through,
)
