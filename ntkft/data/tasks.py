"""Tasks: texts with targets, from a named source, split with a stated seed.

A task is what a model is fine-tuned on and judged by. Its sources are a table of rows: the built-in documentation
sentences, a file, or a data set of the Hugging Face Hub. Whatever the source, rows are validated as a whole, turned
into texts and targets, and split by `splits`; the digest of the result says whether two runs saw the same data.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from ntkft._errors import InputError, refuse
from ntkft.data import columns
from ntkft.data._listing import listing
from ntkft.data.builtin import documentation_sentences
from ntkft.data.files import read_file
from ntkft.data.hub import read_hub
from ntkft.data.splits import random_split, stratified_split

Kind: TypeAlias = Literal["classification", "regression"]

DOCS = "docs"
HUB = "hf:"


@dataclass(frozen=True, eq=False)
class Examples:
    """n texts, or pairs of texts, with their targets: class numbers, or values in the units of the data."""

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    targets: Int[np.ndarray, " n"] | Float[np.ndarray, " n"]

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.texts)


@dataclass(frozen=True, eq=False)
class Task:
    """Three disjoint sets of examples; `labels[c]` is the name of class c, and there are none for regression.

    The first rows of `train` are the training set of the same task with a smaller n (see `splits`), so that a
    learning curve over n may cut one kernel instead of computing several.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    train: Examples
    validation: Examples
    test: Examples

    @property
    def digest(self) -> str:
        """SHA-256 over kind, labels and, set by set, every text and target in order; not over the name."""
        sets = [(part.texts, part.pairs, part.targets.tolist()) for part in (self.train, self.validation, self.test)]
        return hashlib.sha256(json.dumps([self.kind, self.labels, sets]).encode()).hexdigest()

    def report(self) -> str:
        """One sentence for logs and reports: sizes, class shares of the training set, digest."""
        shares = np.bincount(self.train.targets, minlength=len(self.labels)) / len(self.train) if self.labels else ()
        classes = ", ".join(f"{name} {share:.0%}" for name, share in zip(self.labels, shares, strict=True))
        return (
            f"{self.name}: {self.kind}{f' ({classes})' if classes else ''}, {len(self.train)} training, "
            f"{len(self.validation)} validation and {len(self.test)} test examples, digest {self.digest[:12]}"
        )


def load_task(
    source: str | Path,
    *,
    n: int,
    validation: int,
    test: int,
    seed: int,
    kind: Kind | None = None,
    text_column: str = "text",
    pair_column: str | None = None,
    label_column: str = "label",
    labels: Sequence[str] | None = None,
    drop_empty: bool = False,
) -> Task:
    """The task in `source`: `n` training, `validation` and `test` examples drawn without replacement.

    `source` is `"docs"` (the built-in documentation sentences, a classification task), the path of a `.tsv`, `.csv`,
    `.jsonl` or `.parquet` file, or `"hf:OWNER/NAME"` or `"hf:OWNER/NAME/CONFIG"` (its split `train`; needs the extra
    `datasets`). `kind` must be given for files and the Hub: labels 0..4 may be classes or grades, and only you know.
    `pair_column` names the second text of sentence pairs. `drop_empty` leaves out rows whose text is missing or blank,
    which are refused otherwise.

    Classification: `labels` restricts the task to these classes and fixes their numbers; without it all classes
    are kept, numbered with whole numbers in numerical order first, then words in alphabetical order.
    Splits are stratified, nest in n, and depend on nothing but the rows and `seed` (see `splits`).

    Raises `InputError`, with all problems of the rows at once, for a source that cannot be read, columns that are not
    there, missing, empty or non-numeric values (rows counted from 1), labels that do not exist, a single class, and
    sizes that the rows cannot fill. Cost: reading all rows of the source.
    """
    what = f"data {str(source)!r}"
    if kind is None and source != DOCS:
        raise InputError(f"{what}: kind is missing; wanted kind='classification' or kind='regression'")
    if kind == "regression" and labels is not None:
        raise InputError(f"{what}: labels choose among classes and a regression task has none; leave them out")

    kind = kind or "classification"
    name, table = _read_source(source)
    text_columns = [text_column] if pair_column is None else [text_column, pair_column]
    refuse(what, columns.check_columns(table, [*text_columns, label_column]))
    if drop_empty:
        table = columns.drop_empty(table, text_columns)
    texts = [columns.texts(table, column) for column in text_columns]
    problems = [problem for _, found in texts for problem in found]
    sizes = {"n": n, "validation": validation, "test": test, "seed": seed}
    if kind == "regression":
        values, found = columns.numbers(table, label_column)
        refuse(what, problems + found)
        labels, targets = (), np.array(values)
        rows = np.arange(len(targets))
        split = random_split(len(rows), **sizes)
    else:
        words, found = columns.class_names(table, label_column)
        refuse(what, problems + found)
        labels, targets = _number_classes(what, label_column, words, labels)
        rows = np.flatnonzero(targets >= 0)
        split = stratified_split(targets[rows], labels, **sizes)

    def take(chosen: np.ndarray) -> Examples:
        first, *second = (tuple(column[row] for row in rows[chosen]) for column, _ in texts)
        return Examples(first, second[0] if second else None, targets[rows[chosen]])

    return Task(name, kind, labels, take(split.train), take(split.validation), take(split.test))


def _read_source(source: str | Path) -> tuple[str, pa.Table]:
    """Name and rows of a source."""
    if source == DOCS:
        sentences, modules = documentation_sentences()
        return DOCS, pa.table({"text": sentences, "label": modules})
    if isinstance(source, str) and source.startswith(HUB):
        return source, read_hub(source.removeprefix(HUB))
    return Path(source).name, read_file(Path(source))


def _number_classes(
    what: str, column: str, words: Sequence[str], labels: Sequence[str] | None
) -> tuple[tuple[str, ...], Int[np.ndarray, " rows"]]:
    """Class names in order, and the class number of each row: -1 where its class is not among `labels`."""
    there = sorted(set(words), key=_class_order)
    chosen = tuple(there if labels is None else labels)
    problems = [f"there is no class {label!r}" for label in chosen if label not in there]
    problems += [f"class {label!r} is asked for {times} times" for label, times in Counter(chosen).items() if times > 1]
    if len(chosen) < 2:
        problems.append("classification needs two classes or more")
    refuse(f"{what}, column {column!r} with class {listing(map(repr, there))}", problems)
    number = {label: c for c, label in enumerate(chosen)}
    return chosen, np.array([number.get(word, -1) for word in words])


def _class_order(word: str) -> tuple[bool, int, str]:
    """Whole numbers first, by value; then words."""
    whole = re.fullmatch(r"[+-]?\d+", word) is not None
    return not whole, int(word) if whole else 0, word
