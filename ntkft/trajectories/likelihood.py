"""What a causal model makes of a text: the log-likelihood of every token, perplexity, scores of answer options.

    ℓ_i = log p(x_i | x_0 … x_{i−1}),      perplexity = exp(−mean ℓ_i),      score of an option = mean of its own ℓ_i

The first token has nothing before it and no ℓ. An option's score is length-normalised (Xia et al. 2023, §5): a sum
would prefer short options.

    model = load(checkpoint, readout=every_token())
    likelihoods = compile_outputs(model.apply_fn, 8)(model.params, inputs)         # [n, t − 1]
    perplexities = np.exp(−likelihoods)                                            # of the tokens
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Num, Shaped
from tokenizers import Tokenizer

from ntkft._errors import InputError, refuse
from ntkft._types import Array, PyTree
from ntkft.models import Readout, TransformerConfig
from ntkft.models.inputs import Inputs
from ntkft.models.readouts import BoundReadout
from ntkft.models.transformer import Transformer


def every_token() -> Readout:
    """The log-likelihood of every token after the first, `[n, t − 1]`, in place of a model's last logits.

    Column i is token i + 1 given those before it. It is 0 where that token or the one before it is padding, so a sum
    over columns is that of the text. Never below float32. Memory: logits of all places, n·t·vocabulary numbers at once.

    Raises `InputError`, once the model is known, for an architecture that is not causal or has no LM head.
    """

    def bind(config: TransformerConfig, tokenizer: Tokenizer | None) -> BoundReadout:
        if config.lm_head is None or not config.causal:
            raise InputError(
                "every_token: this architecture is no causal language model, so a token's likelihood given those "
                "before it is not what it computes; choose a decoder such as GPT-2"
            )
        return BoundReadout({}, read, mask_token=None)

    def read(model: Transformer, head: PyTree, inputs: Inputs) -> jax.Array:
        ids, real = jnp.asarray(inputs["input_ids"]), jnp.asarray(inputs["attention_mask"]) != 0
        hidden = model(inputs)[:, :-1]
        n, t, d = hidden.shape
        found = token_log_likelihoods(model.logits(hidden.reshape(n * t, d)).reshape(n, t, -1), ids[:, 1:])
        return jnp.where(real[:, 1:] & real[:, :-1], found, 0)

    return Readout("every_token", ("lm_head",), bind)


def token_log_likelihoods(logits: Num[Array, "n t v"], ids: Int[Array, "n t"]) -> Float[jax.Array, "n t"]:
    """The log softmax of logits at the token that came: `[n, t]` for logits `[n, t, v]` and ids `[n, t]`.

    logits[:, i] must be what the model says of ids[:, i], which is its output one place earlier. Never below float32;
    an id outside the vocabulary yields NaN.
    """
    scores = jnp.asarray(logits)
    logs = jax.nn.log_softmax(scores.astype(jnp.promote_types(scores.dtype, jnp.float32)), axis=-1)
    at = jnp.asarray(ids)[..., None]
    return jnp.take_along_axis(logs, at, axis=-1, mode="fill", fill_value=jnp.nan)[..., 0]


def option_scores(log_likelihoods: Num[Array, "..."], counted: Shaped[Array, "..."]) -> Float[np.ndarray, " n"]:
    """Mean log-likelihood of the counted tokens of every text, `[n]`; exp of minus it is their perplexity.

    log_likelihoods: `[n, t]`, as of `every_token`; counted: `[n, t]`, not 0 where a token belongs to what is scored:
    the option behind a question, or all real tokens

    Raises `InputError` for shapes that differ, and naming rows without a counted token or with a counted value that is
    NaN or infinite.
    """
    values, chosen = np.asarray(log_likelihoods, np.float64), np.asarray(counted) != 0
    if values.ndim != 2 or values.shape != chosen.shape:
        raise InputError(
            f"option_scores: got log-likelihoods {list(values.shape)} and counted {list(chosen.shape)}; wanted the same"
            " [texts, tokens]"
        )
    lengths = chosen.sum(axis=1)
    rules = {
        "no counted token": lengths == 0,
        "log-likelihoods that are NaN or infinite": (chosen & ~np.isfinite(values)).any(axis=1),
    }
    refuse(
        "option_scores",
        [f"rows {np.flatnonzero(bad).tolist()} have {rule}" for rule, bad in rules.items() if bad.any()],
    )
    return np.where(chosen, values, 0).sum(axis=1) / lengths
