"""Words as token ids: a label word must be exactly one known token, or its logit is not the word's."""

import json

import numpy as np
from jaxtyping import Int
from tokenizers import Tokenizer

from ntkft._errors import InputError, refuse
from ntkft._special_tokens import MASK_TOKENS


def mask_token_id(what: str, tokenizer: Tokenizer | None) -> int:
    """Id of the mask token; `what` opens the `InputError` for a tokenizer that has none (or no tokenizer)."""
    known = [] if tokenizer is None else [tokenizer.token_to_id(token) for token in MASK_TOKENS]
    ids = [token for token in known if token is not None]
    if not ids:
        raise InputError(f"{what}: there is no mask token ({' or '.join(MASK_TOKENS)}) to read at; use position=last")
    return ids[0]


def word_token_ids(
    what: str, words: tuple[str | int, ...], vocab_size: int, tokenizer: Tokenizer | None
) -> Int[np.ndarray, " k"]:
    """The token id of every word; an integer is a token id already.

    Raises `InputError`, opened by `what` and listing every word at fault: several tokens (shown), not in the
    vocabulary, an id outside it, or the same token for two words.
    """
    if tokenizer is None and any(isinstance(word, str) for word in words):
        raise InputError(f"{what}: this model has no tokenizer; give token ids instead of words")
    problems, ids = [], []
    for word in words:
        if isinstance(word, str) and tokenizer is not None:
            problems += _problems_of_word(word, tokenizer)
            ids += tokenizer.encode(word, add_special_tokens=False).ids
        elif word in range(vocab_size):
            ids.append(word)
        else:
            problems.append(f"token id {word} is not in the vocabulary of {vocab_size} tokens")
    if not problems and len(set(ids)) < len(ids):
        problems.append(f"words {', '.join(map(repr, words))} are tokens {ids}; every class needs a token of its own")
    refuse(what, problems)
    return np.array(ids)


def _problems_of_word(word: str, tokenizer: Tokenizer) -> list[str]:
    pieces = tokenizer.encode(word, add_special_tokens=False).tokens
    unknown = json.loads(tokenizer.to_str())["model"].get("unk_token")
    if unknown in pieces:
        return [f"word {word!r} is not in the vocabulary (it becomes {' '.join(pieces)}); choose another"]
    if len(pieces) == 1:
        return []
    spaced = len(tokenizer.encode(f" {word}", add_special_tokens=False).tokens) == 1
    remedy = f"{f' {word}'!r}, with its space, is one" if spaced else "choose a word that is one token"
    return [f"word {word!r} is {len(pieces)} tokens ({', '.join(pieces)}); {remedy}"]
