"""Tokens: what the tokenizer says, padded; buckets: the same tokens, padded less."""

import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft.data import Examples, buckets, documentation_sentences, tokenize
from tests.data.vocabularies import WORDS, bert_like, gpt_like, minilm, roberta_like


def sentences(count, seed=0):
    rng = np.random.default_rng(seed)
    words = [word for word in WORDS if "#" not in word]
    return [" ".join(rng.choice(words, size)) for size in rng.integers(1, 30, count)]


def pairs(count):
    return Examples(tuple(sentences(count, 1)), tuple(sentences(count, 2)), np.zeros(count))


def both(examples):
    return list(zip(examples.texts, examples.pairs, strict=True))


def unpadded(tokens, name):
    return [row[:length].tolist() for row, length in zip(tokens.inputs[name], tokens.lengths, strict=True)]


@pytest.mark.parametrize("build", [bert_like, roberta_like, gpt_like])
def test_ids_are_those_of_the_tokenizer_and_padding_is_masked(build):
    tokenizer, texts = build(), sentences(50)
    tokens = tokenize(texts, tokenizer, max_length=64)
    expected = [tokenizer.encode(text).ids for text in texts]
    assert unpadded(tokens, "input_ids") == expected
    assert set(tokens.inputs) == {"input_ids", "attention_mask"}
    np.testing.assert_array_equal(tokens.lengths, [len(ids) for ids in expected])
    mask = np.arange(tokens.inputs["input_ids"].shape[1])[None] < tokens.lengths[:, None]
    np.testing.assert_array_equal(tokens.inputs["attention_mask"], mask)
    padding = {bert_like: 3, roberta_like: 1, gpt_like: 0}[build]
    assert (tokens.inputs["input_ids"][~mask] == padding).all()
    assert tokens.truncated == 0


def test_pairs_go_through_the_tokenizers_own_template():
    for build, has_types in ((bert_like, True), (roberta_like, False)):
        tokenizer, examples = build(), pairs(20)
        tokens = tokenize(examples, tokenizer, max_length=80)
        expected = tokenizer.encode_batch(both(examples))
        assert unpadded(tokens, "input_ids") == [encoding.ids for encoding in expected]
        assert ("token_type_ids" in tokens.inputs) == has_types
        if has_types:
            assert unpadded(tokens, "token_type_ids") == [encoding.type_ids for encoding in expected]


def test_what_is_cut_is_counted_and_cut_as_the_tokenizer_cuts():
    for examples in (sentences(40), pairs(40)):
        tokenizer = bert_like()
        tokens = tokenize(examples, tokenizer, max_length=17)
        tokenizer.enable_truncation(17)
        texts = examples if isinstance(examples, list) else both(examples)
        assert unpadded(tokens, "input_ids") == [encoding.ids for encoding in tokenizer.encode_batch(texts)]
        tokenizer.no_truncation()
        whole = [len(encoding) for encoding in tokenizer.encode_batch(texts)]
        assert tokens.truncated == sum(length > 17 for length in whole) > 0
        assert tokens.lengths.max() == tokens.inputs["input_ids"].shape[1] == 17
        assert f"{tokens.truncated} cut at 17, padded to 17" in tokens.report()


def test_lengths_are_rounded_up_to_the_multiple_but_not_beyond_the_maximum():
    texts = ["the matrix", "the matrix function of a sparse matrix ."]  # 4 and 10 tokens
    widths = {
        (m, top): tokenize(texts, bert_like(), max_length=top, multiple=m).inputs["input_ids"].shape[1]
        for m in (1, 4, 8)
        for top in (11, 64)
    }
    assert widths == {(1, 11): 10, (4, 11): 11, (8, 11): 11, (1, 64): 10, (4, 64): 12, (8, 64): 16}


def test_the_tokenizer_keeps_its_settings():
    tokenizer = bert_like()
    tokenizer.enable_padding(pad_id=7, pad_token=".", length=99)
    tokenizer.enable_truncation(3)
    before = tokenizer.to_str()
    tokens = tokenize(sentences(5), tokenizer, max_length=64)
    assert tokenizer.to_str() == before
    assert tokens.lengths.max() > 3
    assert tokens.inputs["input_ids"][tokens.inputs["attention_mask"] == 0].tolist() != []
    assert set(tokens.inputs["input_ids"][tokens.inputs["attention_mask"] == 0]) == {7}


def test_no_examples_give_arrays_without_rows():
    tokens = tokenize([], bert_like(), max_length=16)
    assert tokens.inputs["input_ids"].shape == (0, 8)
    assert (buckets(tokens), tokens.report()) == ([], "0 examples")


@pytest.mark.parametrize("multiple", [1, 4, 16])
def test_buckets_cover_every_row_once_and_lose_no_token(multiple):
    tokens = tokenize(pairs(60), bert_like(), max_length=37)
    parts = buckets(tokens, multiple=multiple)
    np.testing.assert_array_equal(np.sort(np.concatenate([rows for rows, _ in parts])), np.arange(60))
    widths = [inputs["input_ids"].shape[1] for _, inputs in parts]
    assert widths == sorted(set(widths))
    for (rows, inputs), width in zip(parts, widths, strict=True):
        assert set(inputs) == set(tokens.inputs)
        assert width == tokens.inputs["input_ids"].shape[1] or width % multiple == 0
        assert ((width - multiple < tokens.lengths[rows]) & (tokens.lengths[rows] <= width)).all()
        for name, array in inputs.items():
            np.testing.assert_array_equal(array, tokens.inputs[name][rows, :width])
        assert inputs["attention_mask"].sum() == tokens.lengths[rows].sum()


def test_minilm_reads_documentation_sentences_as_its_tokenizer_does():
    tokenizer, texts = minilm(), list(documentation_sentences()[0])
    tokens = tokenize(texts, tokenizer, max_length=64)
    tokenizer.no_padding()
    assert unpadded(tokens, "input_ids") == [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    assert tokens.truncated == 0
    assert tokens.inputs["input_ids"][0, 0] == tokenizer.token_to_id("[CLS]")
    positions = sum(inputs["input_ids"].size for _, inputs in buckets(tokens))
    assert positions < 1.5 * tokens.lengths.sum() < 0.5 * tokens.inputs["input_ids"].size


@pytest.mark.parametrize(
    ("examples", "build", "settings", "message"),
    [
        (["the"], bert_like, {"max_length": 2}, "max_length = 2 leaves no room .* beside 2 special tokens; wanted 3"),
        (pairs(2), bert_like, {"max_length": 4}, "max_length = 4 .* beside 3 special tokens; wanted 5 or more"),
        (["the"], bert_like, {"max_length": 8, "multiple": 0}, "multiple = 0; wanted 1 or more"),
        (pairs(2), gpt_like, {"max_length": 8}, "this tokenizer has no template for pairs"),
        (["the", "  "], gpt_like, {"max_length": 8}, "no tokens in the text of example 2; leave it out"),
    ],
)
def test_what_cannot_be_tokenised_is_refused(examples, build, settings, message):
    with pytest.raises(InputError, match=message):
        tokenize(examples, build(), **settings)


def test_the_shortest_permitted_length_works():
    assert tokenize(["the of a"], bert_like(), max_length=3).lengths.tolist() == [3]
    assert tokenize(pairs(2), bert_like(), max_length=5).lengths.tolist() == [5, 5]
