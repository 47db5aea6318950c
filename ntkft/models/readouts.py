"""Readouts: how the hidden states of a transformer become the k outputs whose kernel is asked for.

Two kinds of initialisation (Sun & Raskutti 2026, §2):

* *mixed*: the backbone is pretrained, the head is fresh, f = Wᵀ h with W_ij ~ N(0, scale²/d): `linear`, `regression`;
* *pretrained*: the outputs exist already, as logits of the language model: `label_words`, `logit_difference`,
  `next_token`; or as the classes of a checkpoint that was fine-tuned already: `classifier`.

Which one, read at which position and at which scale, changes the kernel, so there is no default readout.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int
from tokenizers import Tokenizer

from ntkft._errors import InputError, refuse
from ntkft._types import PyTree
from ntkft.models.config import TransformerConfig
from ntkft.models.inputs import Inputs
from ntkft.models.transformer import Transformer
from ntkft.models.vocabulary import mask_token_id, word_token_ids

Pool: TypeAlias = Literal["mean", "first", "last", "pooler"]
Position: TypeAlias = Literal["mask", "last"]


@dataclass(frozen=True)
class BoundReadout:
    """A readout for one model: its fresh parameters, and how to read the outputs."""

    head: dict[str, Float[np.ndarray, "..."]]
    """Fresh parameters in float64, to be cast to the dtype of the model; empty when all are pretrained."""
    read: Callable[[Transformer, PyTree, Inputs], jax.Array]
    """(model, head, inputs) -> outputs `[n, k]`."""
    mask_token: int | None
    """Id of the token that every example must hold exactly once; None when no mask is read."""


@dataclass(frozen=True)
class Readout:
    """A choice of outputs, made by one of the constructors below and bound to a model when that is loaded."""

    description: str
    """The readout as text, in the form that `parse_readout` reads."""
    components: tuple[str, ...]
    """Optional parts of the transformer that it needs, of "pooler" and "lm_head"."""
    bind: Callable[[TransformerConfig, Tokenizer | None], BoundReadout]


def linear(
    outputs: int | np.integer,
    *,
    pool: Pool,
    scale: float | int,
    seed: int | np.integer,
    bias: bool = False,
) -> Readout:
    """A fresh linear head, f = Wᵀ h `[n, outputs]` with W_ij ~ N(0, scale²/d).

    `pool` makes h `[n, d]` from the hidden states: their "mean" over real tokens, the "first" or the "last" real
    token, or the checkpoint's own "pooler" (tanh of a dense layer on the first token; BERT has one). The draw depends
    on `seed`, d and `outputs` alone, not on the dtype. The theory's head has no bias; `bias=True` adds one, at zero.

    Raises `InputError` for fewer than one output, a negative scale or seed, an unknown pool, and, once the model is
    known, for the pooler of an architecture that has none.
    """
    return _fresh("linear", outputs, pool, scale, seed, bias)


def regression(*, pool: Pool, scale: float | int, seed: int | np.integer, bias: bool = False) -> Readout:
    """One fresh output `[n, 1]` for a real-valued target: `linear` with a single output."""
    return _fresh("regression", 1, pool, scale, seed, bias)


def label_words(words: Sequence[str | int], *, position: Position) -> Readout:
    """The language model's logits of one word per class, `[n, len(words)]`, in the order given.

    They are read at position "mask", the mask token that every example must hold exactly once (one that does not
    yields NaN, and `Model.check_inputs` refuses it), or "last", the last real token. A word is text, encoded as it
    stands (for byte-level tokenizers usually with its leading space), or a token id.

    Raises `InputError` for an empty list or an unknown position and, once the model is known, for a word that is not
    one known token, for two words that are the same token, and for a tokenizer without a mask token.
    """
    if isinstance(words, str) or not words:
        raise InputError(f"label_words: words is {words!r}; give a list with one word per class, as ['bad', 'good']")
    return _of_logits(f"label_words:words={'|'.join(map(_text, words))}", tuple(words), position, lambda logits: logits)


def logit_difference(negative: str | int, positive: str | int, *, position: Position) -> Readout:
    """One output `[n, 1]`, the logit of `positive` minus that of `negative`, both read as by `label_words`.

    The scalar of a binary prompt task with targets -1 and +1 (Malladi et al. 2023).
    """
    description = f"logit_difference:negative={_text(negative)},positive={_text(positive)}"
    return _of_logits(description, (negative, positive), position, lambda logits: logits[:, 1:] - logits[:, :1])


def next_token() -> Readout:
    """Logits of the whole vocabulary at the last real token, `[n, vocab_size]`."""
    return _of_logits("next_token", None, "last", lambda logits: logits)


def parse_readout(text: str, outputs: int | np.integer) -> Readout:
    """The readout that `text` describes, for instance `linear:pool=mean,scale=1,seed=0`.

    The forms, where `bias` may be left out:

        linear:pool=POOL,scale=S,seed=N,bias=false              label_words:words=WORD|WORD,position=POSITION
        regression:pool=POOL,scale=S,seed=N,bias=false          logit_difference:negative=WORD,positive=WORD,position=…
        next_token

    A WORD is taken as it stands, spaces included; `#17` is token id 17. `outputs` is how many outputs the task asks
    for: `linear` gets that many, `label_words` must name that many, and the others do not depend on it.

    Raises `InputError` for a name that is not a readout, listing those that are, for settings that are unknown,
    missing, given twice or unreadable, and for whatever the constructor refuses.
    """
    name, _, rest = text.partition(":")
    if name not in _FORMS:
        raise InputError(f"readout {text!r}: {name!r} is none; choose one of {', '.join(_FORMS)}")
    make, required, optional = _FORMS[name]
    known = (*required, *optional)
    pairs = [item.partition("=")[::2] for item in rest.split(",")] if rest else []
    keys = [key for key, _ in pairs]
    takes = f"{name} takes {', '.join(known)}" if known else f"{name} takes none"
    problems = [f"setting {key!r} is unknown; {takes}" for key in dict.fromkeys(keys) if key not in known]
    problems += [f"setting {key!r} is missing; {takes}" for key in required if key not in keys]
    problems += [f"setting {key!r} is given {keys.count(key)} times" for key in known if keys.count(key) > 1]
    settings = {}
    for key, value in pairs:
        try:
            settings[key] = _READ.get(key, str)(value)
        except (ValueError, KeyError):
            problems.append(f"setting {key}={value!r} cannot be read as {_KIND[key]}")
    if len(words := settings.get("words", ())) not in (0, outputs):
        problems.append(f"words names {len(words)} classes ({'|'.join(map(_text, words))}); the task has {outputs}")
    refuse(f"readout {text!r}", problems)
    return make(outputs, **settings) if name == "linear" else make(**settings)


def _text(word: str | int) -> str:
    return word if isinstance(word, str) else f"#{word}"


def _word(text: str) -> str | int:
    return int(text[1:]) if re.fullmatch(r"#\d+", text) else text


def classifier() -> Readout:
    """The outputs of the classification head that the checkpoint was fine-tuned with, `[n, labels]`.

    They are read where the family's own model reads them: BERT from the pooler, RoBERTa and ViT from the first token
    (RoBERTa through a dense layer of its own), decoders from the last real token.

    Raises `InputError`, once the model is known, for a checkpoint without such a head.
    """

    def bind(config: TransformerConfig, tokenizer: Tokenizer | None) -> BoundReadout:
        if config.classifier is None:
            raise InputError("classifier: this architecture has no classification head; choose another readout")
        state = config.classifier.state

        def read(model: Transformer, head: PyTree, inputs: Inputs) -> jax.Array:
            hidden = model(inputs)
            return model.classify(_pool(model, hidden, _real(inputs, hidden), state))

        return BoundReadout({}, read, mask_token=None)

    return Readout("classifier", ("classifier",), bind)


_FORMS: dict[str, tuple[Callable[..., Readout], tuple[str, ...], tuple[str, ...]]] = {
    "linear": (linear, ("pool", "scale", "seed"), ("bias",)),
    "label_words": (label_words, ("words", "position"), ()),
    "logit_difference": (logit_difference, ("negative", "positive", "position"), ()),
    "regression": (regression, ("pool", "scale", "seed"), ("bias",)),
    "next_token": (next_token, (), ()),
    "classifier": (classifier, (), ()),
}
_READ: dict[str, Callable[[str], Any]] = {
    "scale": float,
    "seed": int,
    "bias": {"true": True, "false": False}.__getitem__,
    "words": lambda text: [_word(part) for part in text.split("|")],
    "negative": _word,
    "positive": _word,
}
_KIND = {"scale": "a number", "seed": "an integer", "bias": "true or false"}


def _fresh(
    name: str, outputs: int | np.integer, pool: Pool, scale: float | int, seed: int | np.integer, bias: bool
) -> Readout:
    problems = [] if pool in get_args(Pool) else [f"pool is {pool!r}; choose one of {', '.join(get_args(Pool))}"]
    if outputs < 1:
        problems.append(f"outputs is {outputs}; it must be at least 1")
    if not 0 <= scale < np.inf:
        problems.append(f"scale is {scale}; it must be finite and not negative")
    if seed < 0:
        problems.append(f"seed is {seed}; it must not be negative")
    refuse(name, problems)
    description = f"{name}:pool={pool},scale={float(scale)},seed={seed}{',bias=true' if bias else ''}"

    def bind(config: TransformerConfig, tokenizer: Tokenizer | None) -> BoundReadout:
        if pool == "pooler" and not config.pooler:
            raise InputError(f"{description}: this architecture has no pooler; choose mean, first or last")
        draw = np.random.default_rng(seed).standard_normal((config.hidden_width, outputs))
        head = {"kernel": draw * (scale / np.sqrt(config.hidden_width))} | ({"bias": np.zeros(outputs)} if bias else {})
        return BoundReadout(head, read, mask_token=None)

    def read(model: Transformer, head: PyTree, inputs: Inputs) -> jax.Array:
        hidden = model(inputs)
        outputs = _pool(model, hidden, _real(inputs, hidden), pool) @ head["kernel"]
        return outputs + head["bias"][None] if bias else outputs

    return Readout(description, ("pooler",) if pool == "pooler" else (), bind)


def _pool(
    model: Transformer, hidden: Float[jax.Array, "n t d"], mask: Bool[jax.Array, "n t"], pool: Pool
) -> Float[jax.Array, "n d"]:
    if pool == "mean":
        count = jnp.maximum(mask.sum(axis=1, keepdims=True), 1)
        return jnp.einsum("ntd,nt->nd", hidden, (mask / count).astype(hidden.dtype))
    if pool == "last":
        return _at(hidden, _last(mask))
    first = _at(hidden, jnp.argmax(mask, axis=1))
    return model.pool(first) if pool == "pooler" else first


def _of_logits(
    description: str,
    words: tuple[str | int, ...] | None,
    position: Position,
    combine: Callable[[jax.Array], jax.Array],
) -> Readout:
    """Outputs that `combine` makes of the logits `[n, len(words)]`, or of all logits when `words` is None."""
    if position not in get_args(Position):
        raise InputError(f"{description}: position is {position!r}; choose one of {', '.join(get_args(Position))}")
    if words is not None:
        description = f"{description},position={position}"

    def bind(config: TransformerConfig, tokenizer: Tokenizer | None) -> BoundReadout:
        if config.lm_head is None:
            raise InputError(f"{description}: this architecture has no LM head; read hidden states with linear")
        mask_token = mask_token_id(description, tokenizer) if position == "mask" else None
        tokens = None if words is None else word_token_ids(description, words, config.tokens.vocab_size, tokenizer)

        def read(model: Transformer, head: PyTree, inputs: Inputs) -> jax.Array:
            hidden = model(inputs)
            mask = _real(inputs, hidden)
            if mask_token is None:
                return select(model.logits(_at(hidden, _last(mask))))
            masks = mask & (jnp.asarray(inputs["input_ids"]) == mask_token)
            outputs = select(model.logits(_at(hidden, jnp.argmax(masks, axis=1))))
            return jnp.where(masks.sum(axis=1, keepdims=True) == 1, outputs, jnp.nan)

        def select(logits: jax.Array) -> jax.Array:
            return combine(logits if tokens is None else logits[:, tokens])

        return BoundReadout({}, read, mask_token)

    return Readout(description, ("lm_head",), bind)


def _real(inputs: Inputs, hidden: Float[jax.Array, "n t d"]) -> Bool[jax.Array, "n t"]:
    """Which hidden states belong to real tokens; all of an image's do."""
    return (
        jnp.asarray(inputs["attention_mask"]) != 0 if "attention_mask" in inputs else jnp.ones(hidden.shape[:2], bool)
    )


def _at(hidden: Float[jax.Array, "n t d"], index: Int[jax.Array, " n"]) -> Float[jax.Array, "n d"]:
    return jnp.take_along_axis(hidden, index[:, None, None], axis=1)[:, 0]


def _last(mask: Bool[jax.Array, "n t"]) -> Int[jax.Array, " n"]:
    return mask.shape[1] - 1 - jnp.argmax(mask[:, ::-1], axis=1)
