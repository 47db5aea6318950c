"""Splits: disjoint, proportional, nested, reproducible."""

import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft.data.splits import largest_remainder, random_split, stratified_split

NAMES = ("a", "b", "c", "d")
SIZES = np.array([271, 90, 33, 6])
CLASSES = np.random.default_rng(7).permutation(np.repeat(np.arange(4), SIZES))
ASKED = {"n": 150, "validation": 40, "test": 77, "seed": 3}


def counts(rows):
    return np.bincount(CLASSES[rows], minlength=4)


def split(**changed):
    return stratified_split(CLASSES, NAMES, **(ASKED | changed))


def test_sets_are_disjoint_and_of_the_sizes_asked_for():
    for drawn in (split(), random_split(400, **ASKED)):
        rows = np.concatenate([drawn.train, drawn.validation, drawn.test])
        assert len(np.unique(rows)) == len(rows) == 150 + 40 + 77
        assert rows.min() >= 0
        assert rows.max() < 400
        assert (len(drawn.train), len(drawn.validation), len(drawn.test)) == (150, 40, 77)


def test_all_rows_may_be_used():
    drawn = split(n=400 - 40 - 77)
    np.testing.assert_array_equal(np.sort(np.concatenate([drawn.train, drawn.validation, drawn.test])), np.arange(400))


@pytest.mark.parametrize(
    ("total", "sizes", "expected"),
    [
        (100, [53, 24, 23], [53, 24, 23]),
        (10, [53, 24, 23], [5, 3, 2]),  # quotas 5.3, 2.4, 2.3
        (1, [5, 5], [1, 0]),  # equal remainders: the earlier class
        (3, [2, 4, 6], [0, 1, 2]),  # quotas .5, 1, 1.5, equal remainders: the larger class
        (0, [3, 4], [0, 0]),
        (24, [14, 14, 2], [11, 11, 2]),  # with the next line the Alabama paradox: quotas 11.2, 11.2, 1.6 ...
        (25, [14, 14, 2], [12, 12, 1]),  # ... and 11.67, 11.67, 1.67: one row more, yet class 2 loses one
    ],
)
def test_largest_remainder_by_hand(total, sizes, expected):
    np.testing.assert_array_equal(largest_remainder(total, np.array(sizes)), expected)


def test_test_and_validation_sets_have_exactly_the_largest_remainder_counts():
    drawn = split()
    # 77·(271, 90, 33, 6)/400 = 52.17, 17.33, 6.35, 1.16 and 40·(...)/400 = 27.1, 9, 3.3, 0.6
    np.testing.assert_array_equal(counts(drawn.test), [52, 17, 7, 1])
    np.testing.assert_array_equal(counts(drawn.validation), [27, 9, 3, 1])


@pytest.mark.parametrize("smaller", [4, 5, 37, 149])
def test_smaller_training_sets_are_prefixes_and_held_out_sets_do_not_know_n(smaller):
    small, large = split(n=smaller), split()
    np.testing.assert_array_equal(small.train, large.train[:smaller])
    np.testing.assert_array_equal(small.validation, large.validation)
    np.testing.assert_array_equal(small.test, large.test)
    small, large = (random_split(400, **(ASKED | {"n": n})) for n in (smaller, 150))
    np.testing.assert_array_equal(small.train, large.train[:smaller])
    np.testing.assert_array_equal(small.test, large.test)


def test_the_test_set_does_not_know_the_validation_size():
    np.testing.assert_array_equal(split().test, split(validation=0).test)


def test_every_training_prefix_is_the_allocation_of_websters_method_and_holds_every_class():
    pool = SIZES - counts(split().test) - counts(split().validation)
    train = split(n=283).train
    for length in range(4, len(train) + 1):
        got = counts(train[:length])
        assert got.min() >= 1
        # Balinski & Young 1982, min-max characterisation: no class is owed a row more than another holds one.
        held = [(got[c] - 0.5) / pool[c] for c in range(4) if got[c] > 1]
        owed = [(got[c] + 0.5) / pool[c] for c in range(4)]
        assert max(held, default=0.0) <= min(owed) + 1e-12
        share = pool / pool.sum()
        assert (np.abs(got - share * length) < 1 + 4 * share).all()


def test_one_seed_gives_one_split_and_another_seed_another():
    for draw in (lambda seed: split(seed=seed), lambda seed: random_split(400, **(ASKED | {"seed": seed}))):
        once, again, other = draw(0), draw(0), draw(1)
        for name in ("train", "validation", "test"):
            np.testing.assert_array_equal(getattr(once, name), getattr(again, name))
            assert set(getattr(once, name)) != set(getattr(other, name))


def test_rows_of_a_class_are_drawn_uniformly():
    # 400 seeds, one test row of class b (90 rows) among 5 drawn: first and second half equally often, 5 s.e.
    halves = [np.flatnonzero(CLASSES == 1)[45] <= r for seed in range(400) for r in drawn_of_class_b(seed)]
    assert abs(np.mean(halves) - 0.5) < 5 * 0.5 / np.sqrt(len(halves))


def drawn_of_class_b(seed):
    rows = split(test=5, seed=seed).test
    return rows[CLASSES[rows] == 1]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n": 0}, "n = 0; wanted 1 or more"),
        ({"validation": -1, "seed": -2}, r"2 problems\n  - validation = -1; .*\n  - seed = -2; wanted 0 or more"),
        (
            {"n": 300},
            r"300 \+ 40 \+ 77 = 417 rows asked for, but there are 400 \(a: 271, b: 90, c: 33, d: 6\); ask for fewer",
        ),
        ({"n": 3}, "n = 3 rows cannot hold all 4 classes; ask for n >= 4 or fewer classes"),
        ({"test": 260, "validation": 120, "n": 5}, "leave no row for training of class d: 6; ask for smaller sets"),
    ],
)
def test_sizes_that_cannot_be_filled_are_refused(changed, message):
    with pytest.raises(InputError, match=message):
        split(**changed)


def test_too_many_rows_are_refused_for_regression():
    with pytest.raises(InputError, match="= 417 rows asked for, but there are 400; ask for fewer"):
        random_split(400, n=300, validation=40, test=77, seed=0)
