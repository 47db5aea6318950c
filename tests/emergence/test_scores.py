"""Scores: their values for guesses, and what they are invariant to."""

import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft.emergence import brier_score, chance_normalised, correct_choice_probability
from tests.tolerances import CLOSED_FORM


def test_chance_is_zero_and_all_right_is_one():
    np.testing.assert_allclose(chance_normalised(np.array([0.25, 1.0, 0.625, 0.0]), 0.25), [0, 1, 0.5, -1 / 3])
    np.testing.assert_array_equal(chance_normalised(np.array([0.0, 0.4]), 0), [0, 0.4])


def test_brier_score_of_uniform_constant_and_perfect_guesses():
    answers = np.arange(4).repeat(3)
    assert brier_score(np.full((12, 4), 0.25), answers) == pytest.approx(0.75, abs=CLOSED_FORM)
    assert brier_score(np.tile(np.eye(4)[2], (12, 1)), answers) == pytest.approx(1.5, abs=CLOSED_FORM)
    assert brier_score(np.eye(4)[answers], answers) == 0


def test_the_expected_brier_score_is_least_at_the_true_probabilities():
    truth = np.array([0.5, 0.3, 0.2])
    answers = np.repeat(np.arange(3), [50, 30, 20])
    best = brier_score(np.tile(truth, (100, 1)), answers)
    assert best == pytest.approx(1 - truth @ truth, abs=CLOSED_FORM)
    for other in ([0.6, 0.2, 0.2], [0.4, 0.3, 0.3]):
        assert brier_score(np.tile(other, (100, 1)), answers) > best


def test_the_probability_of_the_correct_option_divides_by_length_first():
    values, lengths = np.array([[-2.0, -6.0, -np.inf]]), np.array([[1, 3, 2]])
    np.testing.assert_allclose(correct_choice_probability(values, lengths, np.array([0])), [0.5])
    generator = np.random.default_rng(0)
    values, lengths = -50 * generator.random((6, 4)), generator.integers(1, 9, (6, 4))
    each = np.stack([correct_choice_probability(values, lengths, np.full(6, option)) for option in range(4)])
    np.testing.assert_allclose(each.sum(0), 1, rtol=CLOSED_FORM)
    shifted = correct_choice_probability(values - 1000.0 * lengths, lengths, np.zeros(6, int))
    np.testing.assert_allclose(shifted, each[0], rtol=CLOSED_FORM)  # one constant for each unit of length


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: chance_normalised(np.array([25.0]), 0.25), "1 of 1 accuracies are outside 0 … 1, such as 25; give"),
        (lambda: chance_normalised(np.array([np.nan]), 25), "(?s)2 problems.*chance is 25; wanted a share.*accuracies"),
        (lambda: brier_score(np.array([[0.5, 0.6]]), np.array([0])), "sum to one; apply the softmax first"),
        (lambda: brier_score(np.array([[0.5, 0.5]]), np.array([2])), "correct names option 2; wanted 0 … 1"),
        (lambda: brier_score(np.array([[0.5, 0.5]]), np.array([0, 1])), "got 2 entries of correct for 1 rows"),
        (lambda: brier_score(np.zeros((0, 2)), np.array([], int)), "there are no rows"),
        (
            lambda: correct_choice_probability(np.zeros((1, 2)), np.ones((2, 2)), np.array([0])),
            r"got \[1, 2\] log-likelihoods and \[2, 2\] lengths",
        ),
        (
            lambda: correct_choice_probability(np.zeros((1, 2)), np.zeros((1, 2)), np.array([0])),
            "lengths must be finite and above 0",
        ),
        (
            lambda: correct_choice_probability(np.array([[0.0, np.nan]]), np.ones((1, 2)), np.array([0])),
            "log-likelihoods hold NaN",
        ),
        (
            lambda: correct_choice_probability(np.full((1, 2), -np.inf), np.ones((1, 2)), np.array([0])),
            "no possible option",
        ),
    ],
)  # fmt: skip
def test_what_is_no_score_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
