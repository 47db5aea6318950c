"""Models small enough to be trained many times in a test, and references written without the package."""

from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np

from ntkft.finetuning import FinetuneResult, Optimizer, finetune


def descend(apply_fn, params, examples, optimizer: Optimizer, epochs: SupportsIndex, **options: Any) -> FinetuneResult:
    """Full-batch training on the squared loss that records nothing in between; `options` say what is different."""
    plain: dict[str, Any] = {"loss": "squared", "batch_size": None, "record_at": [], "evaluate": {}}
    return finetune(apply_fn, params, examples, optimizer=optimizer, epochs=epochs, **plain | options)


def linear(params, inputs):
    """Inputs `[n, p]` times weights `[p, k]`, no bias."""
    return inputs @ params["w"]


def linear_case(seed: int, *, n: int = 8, p: int = 3, k: int = 1):
    """Parameters, inputs and targets of a noisy linear regression."""
    rng = np.random.default_rng(seed)
    params, x = {"w": rng.normal(size=(p, k))}, rng.normal(size=(n, p))
    return params, x, x @ rng.normal(size=(p, k)) + 0.3 * rng.normal(size=(n, k))


def attention(params, inputs):
    """One attention head over embedded tokens, mean-pooled to two outputs; padding is not attended to."""
    x = params["embedding"][inputs["ids"]]
    q, k, v = (x @ params[name] for name in ("q", "k", "v"))
    scores = jnp.einsum("ntd,nsd->nts", q, k) / jnp.sqrt(q.shape[-1])
    scores = jnp.where(inputs["mask"][:, None, :] > 0, scores, -jnp.inf)
    mixed = jnp.einsum("nts,nsd->ntd", jax.nn.softmax(scores, axis=-1), v)
    mask = inputs["mask"][:, :, None].astype(mixed.dtype)
    return jnp.sum(mixed * mask, axis=1) / jnp.sum(mask, axis=1) @ params["head"]


def attention_params(seed: int, *, d: int = 4, k: int = 2):
    """Normal parameters of `attention`."""
    shapes = {"embedding": (7, d), "q": (d, d), "k": (d, d), "v": (d, d), "head": (d, k)}
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.normal(size=shape)) for name, shape in shapes.items()}


def sentences(seed: int, n: int):
    """Token ids and masks of n sentences with 2 to 5 tokens of 7."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, 6, size=n)
    return {
        "ids": rng.integers(0, 7, size=(n, 5)).astype(np.int32),
        "mask": (np.arange(5)[None] < lengths[:, None]).astype(np.int32),
    }


def attention_case(seed: int, *, n: int = 7):
    """Parameters, inputs and two regression targets for `attention`."""
    targets = np.random.default_rng(seed + 100).normal(size=(n, 2))
    return attention_params(seed), sentences(seed + 1, n), targets


def flat_jacobian(apply_fn, params, inputs) -> np.ndarray:
    """J `[n·k, p]` by reverse mode, all leaves side by side."""
    blocks = jax.tree.leaves(jax.jacrev(apply_fn)(params, inputs))
    rows = int(np.prod(jax.eval_shape(apply_fn, params, inputs).shape))
    return np.concatenate([np.asarray(block).reshape(rows, -1) for block in blocks], axis=1)


def flat(params) -> np.ndarray:
    """All leaves as one vector."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)])
