import jax
import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft.batched import compile_outputs
from ntkft.models import load
from ntkft.trajectories import every_token, option_scores, token_log_likelihoods
from tests.models.tiny import BERT, GPT2, batch, write_checkpoint
from tests.tolerances import CLOSED_FORM, INVARIANCE_F32
from tests.trajectories.causal import VOCABULARY, model_of


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.sum(np.exp(logits), axis=-1, keepdims=True))


@pytest.fixture(scope="module")
def model():
    return model_of(GPT2, seed=0, readout=every_token())


@pytest.fixture(scope="module")
def inputs():
    arrays = batch((7, 4, 2), vocab_size=VOCABULARY)
    return {name: arrays[name] for name in ("input_ids", "attention_mask")}


def test_every_token_has_the_likelihood_that_the_next_token_readout_gives_its_prefix(model, inputs):
    found = compile_outputs(model.apply_fn, 2)(model.params, inputs)
    assert found.shape == (3, 6)
    reference = jax.jit(model_of(GPT2, seed=0).apply_fn)
    for end in range(1, 7):
        prefix = {name: array[:, :end] for name, array in inputs.items()}
        logs = log_softmax(np.asarray(reference(model.params, prefix), np.float64))
        for row, length in enumerate(inputs["attention_mask"].sum(axis=1)):
            expected = logs[row, inputs["input_ids"][row, end]] if end < length else 0
            np.testing.assert_allclose(found[row, end - 1], expected, rtol=CLOSED_FORM)


def test_a_sum_over_all_texts_of_two_tokens_is_one(model):
    texts = np.array([[3, first, second] for first in range(VOCABULARY) for second in range(VOCABULARY)], np.int32)
    found = compile_outputs(model.apply_fn, 64)(
        model.params, {"input_ids": texts, "attention_mask": np.ones_like(texts)}
    )
    np.testing.assert_allclose(np.exp(found.sum(axis=1)).sum(), 1, rtol=CLOSED_FORM)


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_changes_no_likelihood(model, side):
    alone = batch((5,), vocab_size=VOCABULARY, side=side)
    padded = {
        name: np.pad(array, ((0, 0), (0, 3) if side == "right" else (3, 0))) for name, array in alone.items()
    }  # fmt: skip
    short, long = (np.asarray(jax.jit(model.apply_fn)(model.params, arrays)) for arrays in (alone, padded))
    kept, filled = (long[:, :4], long[:, 4:]) if side == "right" else (long[:, 3:], long[:, :3])
    np.testing.assert_allclose(kept, short, rtol=INVARIANCE_F32)
    np.testing.assert_array_equal(filled, 0)


def test_likelihoods_of_given_logits_are_log_softmax_at_the_token():
    generator = np.random.default_rng(0)
    logits, ids = generator.standard_normal((2, 5, 7)), generator.integers(0, 7, (2, 5))
    found = token_log_likelihoods(logits, ids)
    expected = [[log_softmax(logits)[row, place, ids[row, place]] for place in range(5)] for row in range(2)]
    np.testing.assert_allclose(found, expected, rtol=CLOSED_FORM)
    assert np.isnan(token_log_likelihoods(logits, np.full((2, 5), 7))).all()
    assert token_log_likelihoods(logits.astype(np.float16), ids).dtype == np.float32


def test_option_scores_are_means_over_the_options_own_tokens():
    likelihoods = np.array([[-1.0, -2, -3, -4], [-0.5, -1.5, 0, 0], [-8.0, -1, -1, -1]])
    counted = np.array([[0, 0, 1, 1], [1, 1, 0, 0], [0, 1, 1, 1]])
    np.testing.assert_allclose(option_scores(likelihoods, counted), [-3.5, -1, -1])
    # A token said twice as often is as good an option, not a worse one.
    np.testing.assert_allclose(option_scores(np.tile(likelihoods, 2), np.tile(counted, 2)), [-3.5, -1, -1])
    np.testing.assert_allclose(option_scores(likelihoods, counted == 1), [-3.5, -1, -1])


@pytest.mark.parametrize(
    ("likelihoods", "counted", "message"),
    [
        (np.zeros((2, 3)), np.ones((2, 4)), r"got log-likelihoods \[2, 3\] and counted \[2, 4\]; wanted the same"),
        (np.zeros(3), np.ones(3), r"wanted the same \[texts, tokens\]"),
        (np.zeros((2, 3)), np.array([[0, 1, 0], [0, 0, 0]]), r"rows \[1\] have no counted token"),
        (np.full((2, 3), np.nan), np.ones((2, 3)), r"rows \[0, 1\] have log-likelihoods that are NaN or infinite"),
    ],
)
def test_options_that_have_no_score_are_refused(likelihoods, counted, message):
    with pytest.raises(InputError, match=message):
        option_scores(likelihoods, counted)


def test_a_model_that_is_not_causal_has_no_such_likelihoods(tmp_path):
    with pytest.raises(InputError, match="every_token: this architecture is no causal language model"):
        load(write_checkpoint(tmp_path / "bert", BERT), readout=every_token())
