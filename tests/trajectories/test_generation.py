from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from ntkft._errors import InputError
from ntkft.models import load, next_token
from ntkft.trajectories import generate
from tests.models.tiny import BERT, GPT2, outputs_of, write_checkpoint
from tests.tolerances import CLOSED_FORM
from tests.trajectories.causal import SMALL, VOCABULARY, model_of

PROMPTS = [[3, 1, 4], [1, 5], [9, 2, 6]]
TOKENS = 4


@pytest.fixture(scope="module")
def small():
    return model_of(SMALL, seed=1)


@pytest.fixture(scope="module")
def large():
    return model_of(GPT2, seed=2)


def next_logits(model, text) -> np.ndarray:
    """What the model says behind a text, without padding."""
    ids = np.array([text], np.int32)
    return outputs_of(model, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]


def continued(model, prompt, tokens, choose) -> list[int]:
    """Tokens of one model behind one prompt without any buffer: `choose(position, logits)` picks each."""
    text = list(prompt)
    for position in range(tokens):
        text.append(int(choose(position, next_logits(model, text))))
    return text[len(prompt) :]


def test_weights_0_1_are_plain_sampling_from_the_large_model(small, large):
    found = generate(small, large, PROMPTS, weights=(0, 1), tokens=TOKENS, draw="sample", seed=7)

    def sampled(row):
        key = jax.random.fold_in(jax.random.key(7), row)
        return lambda position, logits: jax.random.categorical(
            jax.random.fold_in(key, position), jax.nn.log_softmax(logits)
        )

    expected = [continued(large, prompt, TOKENS, sampled(row)) for row, prompt in enumerate(PROMPTS)]
    assert found.tokens.tolist() == expected
    assert not found.fell_back.any()


@pytest.mark.parametrize("weights", [(1, 0), (0, 1)])
def test_greedy_drawing_takes_the_largest_logit_of_the_model_with_the_weight(small, large, weights):
    found = generate(small, large, PROMPTS, weights=weights, tokens=TOKENS, draw="greedy", seed=0)
    model = small if weights[0] else large
    expected = [continued(model, prompt, TOKENS, lambda position, logits: jnp.argmax(logits)) for prompt in PROMPTS]
    assert found.tokens.tolist() == expected


def test_the_likelihoods_are_those_of_either_model(small, large):
    found = generate(small, large, PROMPTS, weights=(0.5, 0.5), tokens=TOKENS, draw="sample", seed=0)
    for model, likelihoods in ((small, found.small), (large, found.large)):
        for row, prompt in enumerate(PROMPTS):
            drawn = found.tokens[row].tolist()
            logits = [next_logits(model, prompt + drawn[:end]) for end in range(TOKENS)]
            expected = [jax.nn.log_softmax(each)[token] for each, token in zip(logits, drawn, strict=True)]
            np.testing.assert_allclose(likelihoods[row], expected, rtol=CLOSED_FORM)


def test_the_difference_draws_only_tokens_that_the_small_model_prefers(small, large):
    for draw in ("sample", "greedy"):
        found = generate(small, large, PROMPTS, weights=(1, -1), tokens=TOKENS, draw=draw, seed=3)
        assert (found.small > found.large).all()
        assert not found.fell_back.any()
    found = generate(small, large, PROMPTS, weights=(-1, 1), tokens=TOKENS, draw="sample", seed=3)
    assert (found.small < found.large).all()


def test_a_model_differs_from_itself_in_nothing_and_falls_back(large):
    found = generate(large, large, PROMPTS, weights=(1, -1), tokens=TOKENS, draw="greedy", seed=0)
    plain = generate(large, large, PROMPTS, weights=(0, 1), tokens=TOKENS, draw="greedy", seed=0)
    assert found.fell_back.all()
    np.testing.assert_array_equal(found.tokens, plain.tokens)


def test_samples_follow_the_interpolated_distribution(small, large):
    weights, rows = (0.6, 0.4), 4000  # fixed in advance; five standard errors a token
    found = generate(small, large, [PROMPTS[0]] * rows, weights=weights, tokens=1, draw="sample", seed=0)
    laws = [np.asarray(jax.nn.softmax(next_logits(model, PROMPTS[0]))) for model in (small, large)]
    law = weights[0] * laws[0] + weights[1] * laws[1]
    shares = np.bincount(found.tokens[:, 0], minlength=VOCABULARY) / rows
    assert np.all(np.abs(shares - law) <= 5 * np.sqrt(law * (1 - law) / rows))


def test_a_prompts_text_does_not_depend_on_those_behind_it_and_the_seed_is_all_there_is(small, large):
    settings = {"weights": (0.5, 0.5), "tokens": TOKENS, "draw": "sample"}
    together = generate(small, large, PROMPTS, seed=5, **settings)
    alone = generate(small, large, PROMPTS[:1], seed=5, **settings)
    np.testing.assert_array_equal(together.tokens[:1], alone.tokens)
    np.testing.assert_array_equal(together.tokens, generate(small, large, PROMPTS, seed=5, **settings).tokens)
    assert (together.tokens != generate(small, large, PROMPTS, seed=6, **settings).tokens).any()


def test_other_weights_and_seeds_do_not_compile_again(small, large):
    traces = []

    def counted(params, inputs):
        traces.append(None)
        return large.apply_fn(params, inputs)

    watched = replace(large, apply_fn=counted)
    for weights, seed in (((0, 1), 0), ((1, -1), 1), ((0.5, 0.5), 2)):
        generate(small, watched, PROMPTS, weights=weights, tokens=TOKENS, draw="sample", seed=seed)
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tokens": 0}, "tokens is 0; wanted at least 1"),
        ({"draw": "beam"}, "draw is 'beam'; choose one of sample, greedy"),
        ({"weights": (2, 0)}, r"weights are \(2, 0\); wanted λ₁, λ₂ between −1 and 1"),
        ({"prompts": []}, "there are no prompts; give at least one"),
        ({"prompts": [[1], []]}, r"prompts \[1\] are empty; begin each with a token"),
        ({"prompts": [[1], [2, 17]]}, r"prompts \[1\] hold ids outside 0..16; encode them"),
        ({"tokens": 14}, "3 tokens and 14 more are over the 16 positions; ask for fewer"),
    ],
)
def test_what_cannot_be_continued_is_refused(small, large, settings, message):
    given = {"prompts": PROMPTS, "weights": (0, 1), "tokens": 2, "draw": "sample", "seed": 0} | settings
    with pytest.raises(InputError, match=message):
        generate(small, large, given.pop("prompts"), **given)


def test_models_that_do_not_fit_are_refused(small, large, tmp_path):
    def ask(first, second):
        generate(first, second, PROMPTS, weights=(0, 1), tokens=2, draw="sample", seed=0)

    words = replace(large, readout="label_words:words=a|b,position=last")
    with pytest.raises(InputError, match=r"the large model has the readout label_words.*; load it with next_token"):
        ask(small, words)
    masked = load(write_checkpoint(tmp_path / "bert", BERT), readout=next_token(), dtype="float64")
    with pytest.raises(InputError, match=r"2 problems\n.*the small model is not causal.*\n.*13 and 17 tokens"):
        ask(masked, large)
    one, other = (Tokenizer(WordLevel(words, unk_token="a")) for words in ({"a": 0, "b": 1}, {"a": 1, "b": 0}))
    with pytest.raises(InputError, match="tokenizers give tokens different ids; models must share one tokenizer"):
        ask(replace(small, tokenizer=one), replace(large, tokenizer=other))
