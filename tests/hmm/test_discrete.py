import itertools

import jax
import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft.hmm import (
    discrete_hmm,
    fit_head,
    forward_backward,
    permutation_hmm,
    recovering_head,
    sample_tokens,
    token_probabilities,
)
from tests.tolerances import CLOSED_FORM

SMALL = permutation_hmm(3, 4, permutations=2, distinct=3, sharpness=1.0, seed=0)
SKEWED = discrete_hmm(
    np.array([0.7, 0.0, 0.3]),
    np.array([[0.2, 0.8, 0.0], [0.0, 0.5, 0.5], [1.0, 0.0, 0.0]]),
    np.array([[0.5, 0.5, 0.0, 0.0], [0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25]]),
)


@pytest.mark.parametrize("model", [SMALL, SKEWED], ids=["permutations", "with zeros"])
def test_forward_backward_equals_enumeration(model):
    tokens = sample_tokens(model, 6, 5, seed=1)
    found = forward_backward(model, tokens)
    for row, sequence in enumerate(tokens):
        smoothed, masked, likelihood = np.zeros((5, 3)), np.zeros((5, 3)), 0.0
        for path in itertools.product(range(3), repeat=5):
            prior = model.initial[path[0]] * np.prod([model.transition[h, g] for h, g in itertools.pairwise(path)])
            seen = np.array([model.emission[h, x] for h, x in zip(path, sequence, strict=True)])
            likelihood += prior * seen.prod()
            for i, h in enumerate(path):
                smoothed[i, h] += prior * seen.prod()
                masked[i, h] += prior * np.delete(seen, i).prod()
        np.testing.assert_allclose(found.log_likelihood[row], np.log(likelihood), atol=CLOSED_FORM)
        np.testing.assert_allclose(found.smoothed[row], smoothed / likelihood, atol=CLOSED_FORM)
        np.testing.assert_allclose(found.masked[row], masked / masked.sum(1, keepdims=True), atol=CLOSED_FORM)


def test_long_sequences_do_not_underflow():
    model = permutation_hmm(5, 50, permutations=3, distinct=5, sharpness=2.0, seed=0)
    found = forward_backward(model, sample_tokens(model, 2, 3000, seed=0))
    assert np.all(found.log_likelihood < np.log(np.finfo(np.float64).tiny))
    np.testing.assert_allclose(found.smoothed.sum(-1), 1, atol=1e-12)


def test_posteriors_are_in_float64_whatever_the_default():
    tokens = sample_tokens(SMALL, 2, 5, seed=0)
    with jax.enable_x64(False):
        found = forward_backward(SMALL, tokens)
    assert found.smoothed.dtype == np.float64
    np.testing.assert_array_equal(found.smoothed, forward_backward(SMALL, tokens).smoothed)


def test_masked_posteriors_with_the_token_are_the_smoothed_ones():
    tokens = sample_tokens(SMALL, 3, 7, seed=0)
    found = forward_backward(SMALL, tokens)
    joint = found.masked * SMALL.emission.T[tokens]
    np.testing.assert_allclose(joint / joint.sum(-1, keepdims=True), found.smoothed, atol=CLOSED_FORM)
    probabilities = token_probabilities(SMALL, found.masked)
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-12)
    # Of the tokens at i, the one that is there has probability P(x)/P(x without i).
    without = np.array([np.log(sum(np.exp(forward_backward(SMALL, _with(tokens, 2, x)).log_likelihood)
                                   for x in range(4)))])[0]  # fmt: skip
    np.testing.assert_allclose(
        np.log(probabilities[np.arange(3), 2, tokens[:, 2]]), found.log_likelihood - without, atol=CLOSED_FORM
    )


def _with(tokens, position, token):
    changed = tokens.copy()
    changed[:, position] = token
    return changed


def test_mixtures_of_permutations_keep_the_uniform_distribution():
    model = permutation_hmm(6, 9, permutations=4, distinct=4, sharpness=1.5, seed=3)
    np.testing.assert_allclose(model.initial @ model.transition, model.initial, atol=1e-15)
    np.testing.assert_allclose(model.transition.sum(axis=1), 1, atol=1e-15)
    assert np.linalg.matrix_rank(model.emission) == 4
    np.testing.assert_array_equal(model.emission[4:], model.emission[:2])
    clock = permutation_hmm(6, 9, permutations=1, distinct=6, sharpness=1.5, seed=3).transition
    assert sorted(np.unique(clock)) == [0, 1]


def test_samples_have_the_probabilities_of_the_model():
    tokens, count = sample_tokens(SKEWED, 40_000, 2, seed=5), 40_000
    for pair in itertools.product(range(4), repeat=2):
        first, second = SKEWED.emission[:, pair[0]], SKEWED.emission[:, pair[1]]
        expected = (SKEWED.initial * first) @ SKEWED.transition @ second
        share = np.mean(np.all(tokens == pair, axis=1))
        assert abs(share - expected) <= 5 * np.sqrt(expected * (1 - expected) / count)


def tuned_error(distinct, seed, *, posterior=False):
    """Relative test error of a head tuned to read a random function of the hidden state, and its accuracy of signs."""
    model = permutation_hmm(6, 20, permutations=3, distinct=distinct, sharpness=2.0, seed=seed)
    function = np.random.default_rng([seed, 1]).standard_normal(6)
    function -= function.mean()
    masked = forward_backward(model, sample_tokens(model, 600, 8, seed=seed)).masked[:, 4]
    features = masked if posterior else token_probabilities(model, masked[:, None])[:, 0]
    target = (masked @ function)[:, None]
    head = fit_head(features[:300], target[:300], 0)
    fitted, truth = features[300:] @ head, target[300:]
    return np.sum((fitted - truth) ** 2) / np.sum(truth**2), np.mean((fitted > 0) == (truth > 0))


@pytest.mark.parametrize("seed", range(5))
def test_a_linear_head_recovers_the_label_when_emissions_have_full_rank_and_only_then(seed):
    error, accuracy = tuned_error(6, seed)
    assert error < 1e-16  # rounding of both, squared, times the condition of the emissions
    assert accuracy == 1
    aliased, wrong = tuned_error(3, seed)
    assert aliased > 0.02
    assert wrong < 0.97
    from_posteriors, _ = tuned_error(3, seed, posterior=True)
    assert from_posteriors < 1e-16  # nothing is lost in the posterior itself, only in its token probabilities


def test_the_recovering_head_is_exact_on_every_context_or_says_how_much_is_missing():
    function = np.array([1.0, -2.0, 0.5])
    found = recovering_head(SMALL.emission, function)
    assert found.residual < 1e-12
    masked = forward_backward(SMALL, sample_tokens(SMALL, 10, 6, seed=0)).masked
    np.testing.assert_allclose(token_probabilities(SMALL, masked) @ found.weights, masked @ function, atol=1e-10)
    aliased = permutation_hmm(3, 4, permutations=2, distinct=2, sharpness=1.0, seed=0)  # state 2 emits like state 0
    missing = np.array([1, 0, -1]) * (1.0 - 0.5) / 2
    np.testing.assert_allclose(
        recovering_head(aliased.emission, function).residual, np.linalg.norm(missing) / np.linalg.norm(function)
    )
    assert recovering_head(aliased.emission, np.array([1.0, -2.0, 1.0])).residual < 1e-12
    with pytest.raises(InputError, match="the function is zero for every state"):
        recovering_head(SMALL.emission, np.zeros(3))


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (np.array([[0, 4]]), "tokens go from 0 to 4; the model has 0 to 3"),
        (np.array([[-1, 2]]), "tokens go from -1 to 2"),
        (np.zeros((2, 0), int), r"got tokens of shape \[2, 0\]"),
        (np.array([[0, 0], [2, 2]]), "sequence 1 has probability zero, so its states have no posterior"),
    ],
)
def test_sequences_without_a_posterior_are_refused(tokens, message):
    start = np.array([1.0, 0.0, 0.0])
    clock = discrete_hmm(start, np.eye(3), SKEWED.emission)
    with pytest.raises(InputError, match=message):
        forward_backward(clock, tokens)


def test_bad_probabilities_and_sizes_are_named():
    with pytest.raises(InputError, match=r"(?s)initial is no distribution.*emission is no distribution"):
        discrete_hmm(np.array([0.5, 0.4]), np.eye(2), np.array([[1.5, -0.5], [0.0, 1.0]]))
    with pytest.raises(InputError, match=r"got shapes \[2\], \[2, 2\], \[3, 3\]; wanted \[m\], \[m, m\] and \[m, v\]"):
        discrete_hmm(np.array([0.5, 0.5]), np.eye(2), np.eye(3))
    with pytest.raises(
        InputError, match=r"(?s)tokens is 0.*permutations is 0.*distinct is 4.*sharpness is 0.*seed is -1"
    ):
        permutation_hmm(3, 0, permutations=0, distinct=4, sharpness=0.0, seed=-1)
    with pytest.raises(InputError, match=r"(?s)sequences is 0.*length is 0.*seed is -1; wanted at least 0"):
        sample_tokens(SMALL, 0, 0, seed=-1)
