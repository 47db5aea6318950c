"""Stratified splits that nest: the rows of a smaller training set are the first rows of a larger one.

Sets are drawn without replacement in the order test, validation, training. Hence, for one seed, the test set does not
know how large the other two are, and neither test nor validation set knows n: along a learning curve over n only the
training set changes, and only by growing. The kernel for a smaller n is the leading block of the kernel for a larger.

Classes are represented in proportion. Test and validation counts follow the largest-remainder rule exactly. That rule
cannot nest (a class may lose a row when n grows, the Alabama paradox), so the training order follows a divisor method,
the only kind that never takes a row back (Balinski & Young 1982, *Fair Representation*, ch. 3-4).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from ntkft._errors import refuse
from ntkft.data._listing import listing


@dataclass(frozen=True, eq=False)
class Split:
    """Row numbers (from 0) of three disjoint sets; those of `train` are in nesting order."""

    train: Int[np.ndarray, " n"]
    validation: Int[np.ndarray, " v"]
    test: Int[np.ndarray, " m"]


def stratified_split(
    classes: Int[np.ndarray, " rows"],
    names: Sequence[str],
    *,
    n: int,
    validation: int,
    test: int,
    seed: int,
) -> Split:
    """Rows for training, validation and test, each set with the classes in proportion.

    `classes` holds class numbers below `len(names)`, of which `names` are the words used in messages. Test and
    validation sets have exactly the largest-remainder counts; the k classes of every prefix of a set are in proportion
    as `_interleave` states, and every training prefix of k rows or more holds all of them.

    Raises `InputError` if the sets ask for more rows than there are, if n is below the number of classes, or if
    test and validation set leave a class without a row to train on. Cost: O(rows log rows).
    """
    sizes = np.bincount(classes, minlength=len(names))
    refuse("split", _size_problems(len(classes), n, validation, test, seed, f" ({_class_sizes(names, sizes)})"))
    tested, validated = largest_remainder(test, sizes), largest_remainder(validation, sizes)
    refuse("split", _class_problems(names, sizes, sizes - tested - validated, n))

    order = np.random.default_rng(seed).permutation(len(classes))
    pools = [order[classes[order] == c] for c in range(len(names))]
    sets = [np.split(pool, [t, t + v]) for pool, t, v in zip(pools, tested, validated, strict=True)]
    test_rows, validation_rows, train_rows = (_interleave(parts) for parts in zip(*sets, strict=True))
    return Split(train_rows[:n], validation_rows, test_rows)


def random_split(rows: int, *, n: int, validation: int, test: int, seed: int) -> Split:
    """Rows for training, validation and test, drawn uniformly: for regression, where there is nothing to stratify.

    Raises `InputError` if the sets ask for more rows than there are.
    """
    refuse("split", _size_problems(rows, n, validation, test, seed))
    order = np.random.default_rng(seed).permutation(rows)
    test_rows, validation_rows, train_rows = np.split(order, [test, test + validation])
    return Split(train_rows[:n], validation_rows, test_rows)


def largest_remainder(total: int, sizes: Int[np.ndarray, " k"]) -> Int[np.ndarray, " k"]:
    """Whole numbers that sum to `total` in proportion to `sizes`: the quota's floor, then the largest remainders.

    Equal remainders go to the larger class, then to the earlier one. Each number is within one of its quota
    total·size/Σ sizes and, when total ≤ Σ sizes, at most its size.
    """
    whole, remainder = np.divmod(total * sizes, sizes.sum())
    first = np.lexsort((-sizes, -remainder))[: total - whole.sum()]
    return whole + np.isin(np.arange(len(sizes)), first)


def _interleave(pools: Sequence[np.ndarray]) -> np.ndarray:
    """All rows of k pools, in an order of which every prefix is stratified.

    First one row of each class; from then on Webster's method: row j (from 0) of a class of s rows has its place at
    (j + 1/2)/s. A prefix that ends at place x holds max(1, round(x·s)) rows of each class, so that a class with share
    p of the rows has a count within 1 + k·p of p times the length of the prefix.
    """
    places = [(np.arange(len(pool)) + 0.5) / max(len(pool), 1) for pool in pools]
    for place in places:
        place[:1] = 0.0
    return np.concatenate(pools)[np.argsort(np.concatenate(places), kind="stable")]


def _size_problems(rows: int, n: int, validation: int, test: int, seed: int, detail: str = "") -> list[str]:
    least = {"n": (n, 1), "validation": (validation, 0), "test": (test, 0), "seed": (seed, 0)}
    problems = [f"{name} = {size}; wanted {low} or more" for name, (size, low) in least.items() if size < low]
    if not problems and n + validation + test > rows:
        problems.append(
            f"n + validation + test = {n} + {validation} + {test} = {n + validation + test} rows asked for, "
            f"but there are {rows}{detail}; ask for fewer"
        )
    return problems


def _class_problems(names: Sequence[str], sizes: np.ndarray, left: np.ndarray, n: int) -> list[str]:
    problems = []
    if n < len(names):
        problems.append(
            f"n = {n} rows cannot hold all {len(names)} classes; ask for n >= {len(names)} or fewer classes"
        )
    if used_up := [c for c, rows in enumerate(left) if rows < 1]:
        problems.append(
            "validation and test set leave no row for training of class "
            f"{_class_sizes([names[c] for c in used_up], sizes[used_up])}; ask for smaller sets or fewer classes"
        )
    return problems


def _class_sizes(names: Sequence[str], sizes: np.ndarray) -> str:
    return listing(f"{name}: {size}" for name, size in zip(names, sizes, strict=True))
