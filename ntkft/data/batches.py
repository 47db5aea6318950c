"""From texts to arrays of token ids, padded no further than needed.

The attention mask makes padding harmless, so padded lengths are a matter of cost only: of memory and time, which grow
with the padded length, and of compilations, one per distinct shape. Hence two numbers: every length is rounded up to
a multiple, and `buckets` groups examples of similar length, so that a few long texts do not set the price of all.
On the documentation sentences (1,310 sentences, 18,114 tokens of MiniLM's vocabulary, median 13, longest 41) one array
padded to the longest holds 62,880 positions, 3.5 per token; buckets of width 8 hold 22,912, 1.3 per token, in 6 shapes.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int32
from tokenizers import Encoding, Tokenizer

from ntkft._errors import InputError, refuse
from ntkft.data._listing import listing
from ntkft.data.tasks import Examples


@dataclass(frozen=True, eq=False)
class Tokens:
    """n tokenised examples, padded on the right to one length t.

    `inputs` holds int32 arrays `[n, t]`: `input_ids`, `attention_mask` (1 for tokens, 0 for padding) and, where the
    tokenizer numbers the texts of a pair, `token_type_ids`. `lengths` counts tokens per example, `truncated` the
    examples that were cut.
    """

    inputs: dict[str, Int32[np.ndarray, "n t"]]
    lengths: Int[np.ndarray, " n"]
    truncated: int
    max_length: int

    def report(self) -> str:
        """One sentence for logs and reports: sizes, what was cut, what padding costs."""
        n, padded = self.inputs["input_ids"].shape
        if n == 0:
            return "0 examples"
        cut = f"{self.truncated} cut at" if self.truncated else "none cut at"
        return (
            f"{n} examples of {self.lengths.min()} to {self.lengths.max()} tokens (median "
            f"{np.median(self.lengths):g}), {cut} {self.max_length}, padded to {padded} "
            f"({self.lengths.sum() / (n * padded):.0%} of the positions are used)"
        )


class Bucket(NamedTuple):
    """Examples of similar length: their row numbers, and their inputs padded to the bucket's length."""

    rows: Int[np.ndarray, " b"]
    inputs: dict[str, Int32[np.ndarray, "b t"]]


def tokenize(
    examples: Examples | list[str] | tuple[str, ...], tokenizer: Tokenizer, *, max_length: int, multiple: int = 8
) -> Tokens:
    """Token ids of texts or text pairs, with the tokenizer's own special tokens and pair template.

    Examples longer than `max_length` (special tokens included) are cut at the end, of a pair the longer text first.
    All are padded to the longest, rounded up to `multiple`, but never beyond `max_length`. The padding id is the
    tokenizer's own, else that of `[PAD]` or `<pad>`, else 0: it is masked in any case. `token_type_ids` are present
    if any is not zero, which is what models without them assume. `tokenizer` keeps its settings.

    Raises `InputError` if `max_length` leaves no room for a token of each text, if pairs are given to a tokenizer
    without a pair template (it would run the two texts together), or if a text has no tokens at all.
    """
    texts, pairs = (examples.texts, examples.pairs) if isinstance(examples, Examples) else (examples, None)
    _check_settings(tokenizer, max_length, multiple, paired=pairs is not None)
    cutter = Tokenizer.from_str(tokenizer.to_str())  # tokenizers are mutable: set up a copy
    cutter.no_padding()
    cutter.enable_truncation(max_length)
    encodings = cutter.encode_batch(list(texts) if pairs is None else list(zip(texts, pairs, strict=True)))

    empty = [str(row + 1) for row, encoding in enumerate(encodings) if not len(encoding)]
    if empty:
        raise InputError(f"tokenize: no tokens in the text of example {listing(empty)}; leave it out")
    truncated = sum(bool(encoding.overflowing) for encoding in encodings)
    return pad_encodings(encodings, tokenizer, max_length=max_length, multiple=multiple, truncated=truncated)


def pad_encodings(
    encodings: list[Encoding], tokenizer: Tokenizer, *, max_length: int, multiple: int, truncated: int
) -> Tokens:
    """Encodings of at most `max_length` tokens as arrays, padded as `tokenize` says."""
    lengths = np.array([len(encoding) for encoding in encodings], np.int64)
    padded = min(_round_up(int(lengths.max(initial=1)), multiple), max_length)
    arrays = {
        "input_ids": _pad([encoding.ids for encoding in encodings], padded, _padding_id(tokenizer)),
        "attention_mask": _pad([encoding.attention_mask for encoding in encodings], padded, 0),
        "token_type_ids": _pad([encoding.type_ids for encoding in encodings], padded, 0),
    }
    if not arrays["token_type_ids"].any():
        del arrays["token_type_ids"]
    return Tokens(arrays, lengths, truncated, max_length)


def buckets(tokens: Tokens, *, multiple: int = 8) -> list[Bucket]:
    """The examples grouped by length, shortest first: bucket b holds those of (b-1)·multiple + 1 to b·multiple tokens.

    Every example is in exactly one bucket, in its original order there; empty buckets are left out. A larger
    `multiple` means fewer shapes to compile and more padding.
    """
    longest = tokens.inputs["input_ids"].shape[1]
    edges = np.minimum(_round_up(tokens.lengths, multiple), longest)
    return [
        Bucket(rows, {name: array[rows, :edge] for name, array in tokens.inputs.items()})
        for edge in np.unique(edges)
        for rows in [np.flatnonzero(edges == edge)]
    ]


def _check_settings(tokenizer: Tokenizer, max_length: int, multiple: int, *, paired: bool) -> None:
    special = tokenizer.num_special_tokens_to_add(is_pair=paired)
    least = special + 1 + paired
    problems = []
    if max_length < least:
        problems.append(
            f"max_length = {max_length} leaves no room for the text beside {special} special tokens; "
            f"wanted {least} or more"
        )
    if multiple < 1:
        problems.append(f"multiple = {multiple}; wanted 1 or more")
    if paired and special == 0:
        problems.append(
            "this tokenizer has no template for pairs and would run the two texts together; "
            "join them into one text with words of your choice"
        )
    refuse("tokenize", problems)


def _padding_id(tokenizer: Tokenizer) -> int:
    if tokenizer.padding is not None:
        return tokenizer.padding["pad_id"]
    ids = (tokenizer.token_to_id(token) for token in ("[PAD]", "<pad>"))
    return next((token_id for token_id in ids if token_id is not None), 0)


def _pad(rows: list[list[int]], length: int, value: int) -> np.ndarray:
    array = np.full((len(rows), length), value, np.int32)
    for filled, row in zip(array, rows, strict=True):
        filled[: len(row)] = row
    return array


def _round_up(lengths, multiple: int):
    return -(-lengths // multiple) * multiple
