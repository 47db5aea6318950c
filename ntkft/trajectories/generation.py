"""Text from between two models: tokens drawn one after the other from their interpolated distribution.

Every token is drawn from p ∝ relu(λ₁ p_small + λ₂ p_large) given all before it (`ntkft.trajectories.interpolation`):
with λ = (1, −1) the text is what the small model prefers and the large one has learnt to avoid (Xia et al. 2023, §4).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, SupportsIndex, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from ntkft._errors import refuse
from ntkft._types import ApplyFn, PyTree
from ntkft.models import Model, next_token
from ntkft.trajectories.interpolation import Weights, checked_weights, rectified
from ntkft.trajectories.likelihood import token_log_likelihoods

Draw: TypeAlias = Literal["sample", "greedy"]


@dataclass(frozen=True, eq=False)
class Generated:
    """Tokens drawn behind n prompts, and what both models made of each when it was drawn.

    tokens:           `[n, t]` ids, without the prompt
    small, large:     `[n, t]` log-likelihood of the token under either model
    fell_back:        `[n, t]` where no token had a positive weight, and the large model was drawn from
    """

    tokens: Int[np.ndarray, "n t"]
    small: Float[np.ndarray, "n t"]
    large: Float[np.ndarray, "n t"]
    fell_back: Bool[np.ndarray, "n t"]


def generate(
    small: Model,
    large: Model,
    prompts: Sequence[Sequence[SupportsIndex]],
    *,
    weights: Weights,
    tokens: SupportsIndex,
    draw: Draw,
    seed: SupportsIndex,
) -> Generated:
    """`tokens` tokens behind every prompt, drawn one by one from the interpolation of two models.

    small, large: causal models loaded with the readout `next_token()`, of one tokenizer
    prompts:      token ids, as `model.tokenizer.encode(text).ids`, at least one each; lengths may differ
    weights:      (λ₁ of the small model, λ₂ of the large one), each in [−1, 1]
    draw:         "sample" from the distribution, or "greedy": its most probable token, the first of equal ones
    seed:         of the draws. Token i of prompt r uses the key folded with r and then with i, so that a prompt's text
                  does not depend on the others; greedy drawing uses none

    An end-of-text token does not end a text. Every token takes a forward pass of both models over the whole buffer of
    (longest prompt + `tokens`) places, nothing being kept from the token before: simple and exact, and quadratic in the
    length. One compilation for a shape of buffer, whatever the weights.

    Raises `InputError` listing models that do not fit each other or the task, prompts that are empty or hold unknown
    ids, texts longer than a model's positions, and settings outside their range.
    """
    count, checked = int(tokens), checked_weights("generate", weights)
    ids = [[int(token) for token in prompt] for prompt in prompts]
    problems = [f"tokens is {count}; wanted at least 1"] if count < 1 else []
    if draw not in get_args(Draw):
        problems.append(f"draw is {draw!r}; choose one of {', '.join(get_args(Draw))}")
    refuse("generate", problems + _pair_problems(small, large))
    refuse("generate", _prompt_problems(small, large, ids, count))
    lengths = np.array([len(prompt) for prompt in ids])
    buffer = np.zeros((len(ids), lengths.max() + count), np.int32)
    for row, prompt in enumerate(ids):
        buffer[row, : len(prompt)] = prompt
    models = small.apply_fn, large.apply_fn, small.params, large.params
    found = _generate(*models, buffer, lengths, checked, jax.random.key(int(seed)), count, draw)
    return Generated(*(np.asarray(values).T for values in found))


@partial(jax.jit, static_argnums=(0, 1, 8, 9))
def _generate(
    apply_small: ApplyFn,
    apply_large: ApplyFn,
    params_small: PyTree,
    params_large: PyTree,
    buffer: jax.Array,
    lengths: jax.Array,
    weights: tuple[float | jax.Array, float | jax.Array],
    key: jax.Array,
    count: int,
    draw: Draw,
) -> tuple[jax.Array, ...]:
    """Tokens, both log-likelihoods and the status, each `[count, n]`."""
    rows = jnp.arange(len(buffer))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, rows)

    def step(buffer: jax.Array, position: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        end = lengths + position
        real = (jnp.arange(buffer.shape[1])[None] < end[:, None]).astype(buffer.dtype)
        inputs = {"input_ids": buffer, "attention_mask": real}
        outputs = apply_small(params_small, inputs), apply_large(params_large, inputs)
        wide = jnp.promote_types(jnp.result_type(*outputs), jnp.float32)
        p_small, p_large = (jax.nn.softmax(logits.astype(wide), axis=-1) for logits in outputs)
        mixed = rectified(p_small, p_large, *weights)
        if draw == "greedy":
            chosen = jnp.argmax(mixed.probabilities, axis=-1)
        else:
            here = jax.vmap(jax.random.fold_in, (0, None))(keys, position)
            chosen = jax.vmap(jax.random.categorical)(here, jnp.log(mixed.probabilities))
        chosen = chosen.astype(buffer.dtype)
        likelihoods = [token_log_likelihoods(logits[:, None], chosen[:, None])[:, 0] for logits in outputs]
        return buffer.at[rows, end].set(chosen), (chosen, *likelihoods, mixed.fell_back)

    return jax.lax.scan(step, buffer, jnp.arange(count))[1]


def _pair_problems(small: Model, large: Model) -> list[str]:
    models, wanted = {"small": small, "large": large}, next_token().description
    problems = [
        f"the {name} model has the readout {model.readout}; load it with {wanted}"
        for name, model in models.items()
        if model.readout != wanted
    ]
    if problems:
        return problems
    problems += [
        f"the {name} model is not causal; choose a decoder such as GPT-2"
        for name, model in models.items()
        if not model.config.causal
    ]
    sizes = [model.config.tokens.vocab_size for model in models.values()]
    if sizes[0] != sizes[1]:
        problems.append(f"the vocabularies have {sizes[0]} and {sizes[1]} tokens; models must share one tokenizer")
    elif small.tokenizer and large.tokenizer and small.tokenizer.get_vocab() != large.tokenizer.get_vocab():
        problems.append("the tokenizers give tokens different ids; models must share one tokenizer")
    return problems


def _prompt_problems(small: Model, large: Model, prompts: list[list[int]], count: int) -> list[str]:
    if not prompts:
        return ["there are no prompts; give at least one"]
    size = small.config.tokens.vocab_size
    positions = min(model.config.tokens.max_positions for model in (small, large))
    empty = [row for row, prompt in enumerate(prompts) if not prompt]
    unknown = [row for row, prompt in enumerate(prompts) if any(not 0 <= token < size for token in prompt)]
    problems = (
        [f"prompts {empty} are empty; begin each with a token, such as that of the start of text"] if empty else []
    )
    if unknown:
        problems.append(f"prompts {unknown} hold ids outside 0..{size - 1}; encode them with the models' tokenizer")
    if (longest := max(map(len, prompts))) + count > positions:
        problems.append(f"{longest} tokens and {count} more are over the {positions} positions; ask for fewer")
    return problems
