"""Texts to tokens: a byte-pair tokenizer of the corpus, packed rows, and what counting alone predicts.

The tokenizer is GPT-2's kind (byte-level pairs, so that every text has a spelling; Radford et al. 2019, §2.2), its
pairs learnt from the training part alone. Documents are joined by `<|endoftext|>` and cut into rows of context + 1
tokens that share their end points, so that every token but the first is predicted once.
"""

import importlib.metadata
import json
import os
import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from experiments.pretrain.corpus import package_corpus, text_corpus
from experiments.pretrain.sizes import END, Setting
from ntkft._errors import InputError


@dataclass(frozen=True, eq=False)
class Text:
    """A corpus as a model reads it."""

    tokenizer: Tokenizer
    train: Int[np.ndarray, "rows t"]
    held_out: Int[np.ndarray, "rows t"]
    facts: dict[str, Any]
    """Digest, bytes, documents and tokens; with counts of the training part for company."""


def prepare(out: Path, setting: Setting, texts: Path | None) -> Text:
    """The corpus of a setting as tokens, made once and kept in `out/corpus`, whatever is installed later.

    Raises `InputError` when the held-out part is too short.
    """
    folder = out / "corpus"
    if not folder.is_dir():
        draft = out / f"corpus.{os.getpid()}"
        _write(draft, setting, texts)
        try:
            draft.rename(folder)
        except OSError:  # a process beside this one, at work on another size, was faster
            shutil.rmtree(draft)
    return Text(
        Tokenizer.from_file(str(folder / "tokenizer.json")),
        np.load(folder / "train.npy"),
        np.load(folder / "held_out.npy"),
        json.loads((folder / "corpus.json").read_text()),
    )


def _write(folder: Path, setting: Setting, texts: Path | None) -> None:
    split = {"held_out": setting.held_out, "seed": setting.seed}
    corpus = package_corpus(setting.packages, **split) if texts is None else text_corpus(texts, **split)
    tokenizer = train_tokenizer(corpus.train, setting.vocabulary)
    train, held_out = (packed(part, tokenizer, setting.context) for part in (corpus.train, corpus.held_out))
    if len(held_out) < setting.held_out_rows or len(train) < setting.batch:
        raise InputError(
            f"corpus: {len(train)} rows of {setting.context} tokens to train on and {len(held_out)} held out, wanted "
            f"{setting.batch} and {setting.held_out_rows}; give a longer text"
        )
    measured = held_out[: setting.held_out_rows]
    facts = {
        "digest": corpus.digest,
        "bytes": corpus.sizes,
        "versions": {} if texts else _versions(setting.packages),
        "documents": {"train": len(corpus.train), "held_out": len(corpus.held_out)},
        "tokens": {"train": train[:, 1:].size, "held_out": held_out[:, 1:].size, "measured": measured[:, 1:].size},
        "repeated": corpus.repeated,
        "unigram loss": unigram_loss(train, measured, setting.vocabulary),
        "bigram loss": bigram_loss(train, measured, setting.vocabulary),
    }
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    np.save(folder / "train.npy", train)
    np.save(folder / "held_out.npy", measured)
    (folder / "corpus.json").write_text(json.dumps(facts, indent=1))


def _versions(packages: Sequence[str]) -> dict[str, str]:
    installed = importlib.metadata.packages_distributions()
    return {
        package: platform.python_version() if package == "stdlib" else importlib.metadata.version(installed[package][0])
        for package in packages
    }


def train_tokenizer(texts: Sequence[str], vocabulary: int) -> Tokenizer:
    """Byte-level byte-pair encoding with `vocabulary` tokens, `<|endoftext|>` as token 0.

    Raises `InputError` when the texts have too few pairs for a vocabulary of this size.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    if (got := tokenizer.get_vocab_size()) != vocabulary:
        raise InputError(
            f"tokenizer: {len(texts)} documents give {got} tokens, wanted {vocabulary}; give a longer text"
        )
    return tokenizer


def packed(texts: Sequence[str], tokenizer: Tokenizer, context: int) -> Int[np.ndarray, "rows t"]:
    """Rows of context + 1 tokens; the last of a row is the first of the next. A remainder is dropped.

    A text that spells `<|endoftext|>` ends there, as it would anywhere else.
    """
    end = tokenizer.token_to_id(END)
    encoded = tokenizer.encode_batch(list(texts), add_special_tokens=False)
    stream = np.fromiter((token for text in encoded for token in (*text.ids, end)), np.int32)
    starts = np.arange(0, max(stream.size - context, 0), context)
    return stream[starts[:, None] + np.arange(context + 1)]


def unigram_loss(train: Int[np.ndarray, "rows t"], held_out: Int[np.ndarray, "rows t"], vocabulary: int) -> float:
    """Held-out loss in nats per token of the training frequencies with one added to every count (Laplace)."""
    return float(-np.log(_frequencies(train, vocabulary)[held_out[:, 1:]]).mean())


def bigram_loss(train: Int[np.ndarray, "rows t"], held_out: Int[np.ndarray, "rows t"], vocabulary: int) -> float:
    """Held-out loss in nats per token of p(w | v) = (c(v, w) + T(v) p(w)) / (c(v) + T(v)), p as for `unigram_loss`.

    c counts pairs of the training rows, T(v) how many different tokens follow v: there is nothing to tune. Source:
    Witten & Bell 1991, "The Zero-Frequency Problem", method C, interpolated.
    """
    pairs, counts = np.unique(_pairs(train, vocabulary), return_counts=True)
    first = pairs // vocabulary
    kinds = np.bincount(first, minlength=vocabulary)
    total = np.bincount(first, weights=counts, minlength=vocabulary)
    wanted = _pairs(held_out, vocabulary)
    place = np.minimum(np.searchsorted(pairs, wanted), pairs.size - 1)
    seen = np.where(pairs[place] == wanted, counts[place], 0)
    before, after = wanted // vocabulary, wanted % vocabulary
    # A token that nothing ever followed says nothing of the next one.
    back_off = np.maximum(kinds, 1)[before]
    likelihood = (seen + back_off * _frequencies(train, vocabulary)[after]) / (total[before] + back_off)
    return float(-np.log(likelihood).mean())


def _frequencies(rows: Int[np.ndarray, "rows t"], vocabulary: int) -> Float[np.ndarray, " v"]:
    counts = 1 + np.bincount(rows[:, 1:].ravel(), minlength=vocabulary)
    return counts / counts.sum()


def _pairs(rows: Int[np.ndarray, "rows t"], vocabulary: int) -> Int[np.ndarray, " pairs"]:
    return (rows[:, :-1].astype(np.int64) * vocabulary + rows[:, 1:]).ravel()
