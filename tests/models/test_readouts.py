"""Readouts: what each one reads, that padding has no say in it, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from ntkft import InputError
from ntkft.models import (
    classifier,
    label_words,
    linear,
    load,
    logit_difference,
    next_token,
    parse_readout,
    random_model,
    read_config,
    regression,
)
from ntkft.models.readouts import BoundReadout, Readout
from tests.models import tiny
from tests.models.tiny import batch, outputs_of, write_checkpoint
from tests.tolerances import INVARIANCE_F32

BERT = tiny.BERT | {"num_hidden_layers": 1}
GPT2 = tiny.GPT2 | {"n_layer": 1}
MASK = 4  # id of [MASK] in the tiny vocabulary
POOLED = [linear(3, pool=pool, scale=0.7, seed=1, bias=True) for pool in ("mean", "first", "last")]
READOUTS = {
    "bert": [
        *POOLED,
        linear(2, pool="pooler", scale=1, seed=0),
        regression(pool="mean", scale=1, seed=0),
        label_words(["good", "bad", "fine"], position="mask"),
        logit_difference("bad", "good", position="last"),
        next_token(),
    ],
    "gpt2": [
        *POOLED,
        label_words([" good", " bad"], position="last"),
        logit_difference(3, " bad", position="last"),
        next_token(),
    ],
}
HIDDEN = Readout("hidden", (), lambda config, tokenizer: BoundReadout({}, _hidden, None))
CASES = [(family, readout) for family, readouts in READOUTS.items() for readout in readouts]


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    return {
        attributes["model_type"]: write_checkpoint(tmp_path_factory.mktemp(attributes["model_type"]), attributes)
        for attributes in (BERT, GPT2)
    }


def _hidden(model, head, inputs):
    return model(inputs).reshape(3, -1)


def _rolled(array: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    return np.stack([np.roll(row, shift) for row, shift in zip(array, shifts, strict=True)])


def _inputs(family: str, **options) -> dict[str, np.ndarray]:
    """Three examples; those of BERT hold one mask token each, as their first token but one."""
    inputs = batch((5, 2, 4), vocab_size=13, **options)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    ids[ids == MASK] = 5
    if family == "bert":
        ids[np.arange(3), mask.argmax(axis=1) + 1] = MASK
    return inputs


@pytest.mark.parametrize(("family", "readout"), CASES, ids=lambda case: getattr(case, "description", case))
def test_padding_changes_nothing(directories, family, readout):
    model = load(directories[family], readout=readout)
    inputs = _inputs(family)
    model.check_inputs(inputs)
    padded = {name: np.pad(array, ((0, 0), (0, 4))) for name, array in inputs.items()}
    expected = outputs_of(model, padded)
    assert expected.shape[0] == 3
    assert np.isfinite(expected).all()
    junk = dict(padded, input_ids=np.where(padded["attention_mask"] == 1, padded["input_ids"], 7))
    left = {name: _rolled(array, -padded["attention_mask"].sum(axis=1)) for name, array in padded.items()}
    for other in (junk, left):
        np.testing.assert_allclose(outputs_of(model, other), expected, atol=INVARIANCE_F32, rtol=0)
    alone = {name: array[1:2, :2] for name, array in inputs.items()}
    np.testing.assert_allclose(outputs_of(model, alone), expected[1:2], atol=INVARIANCE_F32, rtol=0)


@pytest.mark.parametrize("pool", ["mean", "first", "last", "pooler"])
def test_a_fresh_head_is_linear_in_the_pooled_states(pool):
    config, inputs = read_config(BERT), _inputs("bert")
    model = random_model(config, readout=linear(3, pool=pool, scale=1, seed=2, bias=True), seed=0, dtype="float64")
    head = {"kernel": np.ones((8, 3)), "bias": np.arange(3.0)}
    backbone = random_model(config, readout=HIDDEN, seed=0, dtype="float64")
    weights = {name: model.params[name] for name in backbone.params}
    hidden = outputs_of(replace(backbone, params=weights), inputs).reshape(3, 5, 8)
    pooled = {
        "mean": np.stack([hidden[row, :length].mean(axis=0) for row, length in enumerate((5, 2, 4))]),
        "first": hidden[:, 0],
        "last": hidden[[0, 1, 2], [4, 1, 3]],
    }
    if pool == "pooler":
        dense = model.params["pooler"]
        pooled["pooler"] = np.tanh(hidden[:, 0] @ np.asarray(dense["kernel"]) + np.asarray(dense["bias"])[None])
    expected = pooled[pool] @ head["kernel"] + head["bias"][None]
    outputs = outputs_of(replace(model, params={**model.params, "head": head}), inputs)
    np.testing.assert_allclose(outputs, expected, atol=1e-12)


def test_label_words_are_columns_of_the_logits_and_the_difference_is_theirs(directories):
    inputs = _inputs("gpt2")
    outputs = {}
    for readout in (
        next_token(),
        label_words([" bad", " good"], position="last"),
        logit_difference(" bad", " good", position="last"),
        logit_difference(12, 9, position="last"),
    ):
        model = load(directories["gpt2"], readout=readout, dtype="float64")
        outputs[readout.description.partition(":")[0]] = outputs_of(model, inputs)
    assert outputs["next_token"].shape == (3, 17)
    words = outputs["label_words"]
    np.testing.assert_array_equal(words, outputs["next_token"][:, [12, 9]])
    np.testing.assert_array_equal(outputs["logit_difference"], words[:, 1:] - words[:, :1])


def test_the_mask_is_read_where_it_stands(directories):
    masked = load(directories["bert"], readout=label_words(["good", "bad"], position="mask"))
    last = load(directories["bert"], readout=label_words(["good", "bad"], position="last"))
    inputs = _inputs("bert")
    np.testing.assert_allclose(outputs_of(masked, inputs)[1], outputs_of(last, inputs)[1])
    assert not np.allclose(outputs_of(masked, inputs)[0], outputs_of(last, inputs)[0])


def test_an_example_without_exactly_one_mask_token_yields_nan_and_is_refused(directories):
    model = load(directories["bert"], readout=label_words(["good", "bad"], position="mask"))
    inputs = _inputs("bert")
    inputs["input_ids"][0, 3] = MASK
    inputs["input_ids"][2, 1] = 5
    outputs = outputs_of(model, inputs)
    assert np.isnan(outputs).all(axis=1).tolist() == [True, False, True]
    with pytest.raises(InputError, match=r"2 of 3 examples have not exactly one mask token \(id 4\): rows 0, 2"):
        model.check_inputs(inputs)


def test_fresh_heads_depend_on_the_seed_and_not_on_the_dtype():
    config = read_config(GPT2)
    heads = [
        random_model(config, readout=linear(2, pool="last", scale=1, seed=seed), seed=0, dtype=dtype).params["head"]
        for seed, dtype in [(3, "float32"), (3, "float64"), (4, "float64")]
    ]
    single, double, other = (np.asarray(head["kernel"]) for head in heads)
    np.testing.assert_array_equal(single, double.astype(np.float32))
    assert not np.allclose(double, other)


def test_fresh_heads_have_the_stated_variance():
    config = read_config(BERT | {"hidden_size": 64})
    draw = linear(2000, pool="mean", scale=0.5, seed=0).bind(config, None).head["kernel"]
    # The mean of 128,000 squared normals has a standard error of sqrt(2 / 128000) of it; five are 2 %.
    assert abs(np.mean(draw**2) / (0.5**2 / 64) - 1) < 5 * np.sqrt(2 / draw.size)


def test_a_bias_is_only_there_when_asked_for_and_starts_at_zero():
    model = random_model(read_config(GPT2), readout=regression(pool="last", scale=1, seed=0, bias=True), seed=0)
    np.testing.assert_array_equal(model.params["head"]["bias"], np.zeros(1))
    assert model.readout == "regression:pool=last,scale=1.0,seed=0,bias=true"


@pytest.mark.parametrize(
    ("family", "words", "message"),
    [
        ("bert", ["goodbad", "fine"], r"word 'goodbad' is 2 tokens \(good, ##bad\); choose a word that is one token"),
        ("bert", ["ugly", "fine"], r"word 'ugly' is not in the vocabulary \(it becomes \[UNK\]\)"),
        ("gpt2", ["good", " bad"], r"word 'good' is 3 tokens \(g, oo, d\); ' good', with its space, is one"),
        ("gpt2", [" bad", 17], r"token id 17 is not in the vocabulary of 17 tokens"),
        ("gpt2", [" good", 9], r"words ' good', 9 are tokens \[9, 9\]; every class needs a token of its own"),
        ("gpt2", ["", " bad"], r"word '' is 0 tokens"),
    ],
)
def test_a_word_that_is_not_one_token_is_refused(directories, family, words, message):
    with pytest.raises(InputError, match=message):
        load(directories[family], readout=label_words(words, position="last"))


def test_every_word_at_fault_is_in_one_message(directories):
    with pytest.raises(InputError, match=r"(?s)logit_difference.*2 problems.*'goodbad' is 2 tokens.*'ugly' is not in"):
        load(directories["bert"], readout=logit_difference("goodbad", "ugly", position="last"))


def test_readouts_that_do_not_fit_the_model_are_refused(directories):
    with pytest.raises(
        InputError, match=r"there is no mask token \(\[MASK\] or <mask>\) to read at; use position=last"
    ):
        load(directories["gpt2"], readout=label_words([" good", " bad"], position="mask"))
    with pytest.raises(InputError, match="has no pooler; choose mean, first or last"):
        load(directories["gpt2"], readout=linear(2, pool="pooler", scale=1, seed=0))
    with pytest.raises(InputError, match="this model has no tokenizer; give token ids instead of words"):
        random_model(read_config(BERT), readout=label_words(["good", "bad"], position="last"), seed=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: linear(0, pool="mean", scale=1, seed=0), "linear: outputs is 0; it must be at least 1"),
        (lambda: linear(2, pool="sum", scale=1, seed=0), "pool is 'sum'; choose one of mean, first, last, pooler"),  # pyright: ignore[reportArgumentType]
        (lambda: linear(2, pool="mean", scale=-1, seed=0), "scale is -1; it must be finite and not negative"),
        (lambda: regression(pool="mean", scale=1, seed=-1), "regression: seed is -1; it must not be negative"),
        (lambda: label_words([], position="last"), r"words is \[\]; give a list with one word per class"),
        (lambda: label_words("good", position="last"), "words is 'good'; give a list"),
        (lambda: label_words(["a"], position="end"), "position is 'end'; choose one of mask, last"),  # pyright: ignore[reportArgumentType]
    ],
)
def test_impossible_readouts_are_refused_when_they_are_made(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("linear:pool=mean,scale=1,seed=0", linear(2, pool="mean", scale=1, seed=0)),
        ("linear:seed=7,scale=0.5,pool=last,bias=true", linear(2, pool="last", scale=0.5, seed=7, bias=True)),
        ("regression:pool=first,scale=1e-3,seed=0,bias=false", regression(pool="first", scale=1e-3, seed=0)),
        ("label_words:words= bad| good,position=mask", label_words([" bad", " good"], position="mask")),
        ("logit_difference:negative=bad,positive=good,position=last", logit_difference("bad", "good", position="last")),
        ("logit_difference:negative=#3,positive= b,position=last", logit_difference(3, " b", position="last")),
        ("next_token", next_token()),
    ],
)
def test_text_and_description_stand_for_the_same_readout(text, same):
    parsed = parse_readout(text, 2)
    assert parsed.description == same.description
    assert parsed.components == same.components
    assert parse_readout(same.description, 2).description == same.description


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "probe:pool=mean",
            "'probe' is none; choose one of linear, label_words, logit_difference, regression, next_token",
        ),
        ("linear:pool=mean,seed=0", "setting 'scale' is missing; linear takes pool, scale, seed, bias"),
        ("linear:pool=mean,scale=1,seed=0,dropout=1", "setting 'dropout' is unknown; linear takes"),
        ("linear:pool=mean,pool=mean,scale=1,seed=0", "setting 'pool' is given 2 times"),
        ("linear:pool=mean,scale=big,seed=0", "setting scale='big' cannot be read as a number"),
        ("linear:pool=mean,scale=1,seed=0.5", "setting seed='0.5' cannot be read as an integer"),
        ("linear:pool=mean,scale=1,seed=0,bias=yes", "setting bias='yes' cannot be read as true or false"),
        ("linear:pool=sum,scale=1,seed=0", "pool is 'sum'; choose one of"),
        ("label_words:words=a|b|c,position=last", r"words names 3 classes \(a\|b\|c\); the task has 2"),
        ("next_token:position=last", "setting 'position' is unknown; next_token takes none"),
    ],
)
def test_text_that_is_no_readout_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        parse_readout(text, 2)


@pytest.mark.parametrize(
    ("attributes", "readout", "message"),
    [
        (tiny.DISTILBERT, classifier(), "this architecture has no classification head; choose another readout"),
        (tiny.VIT, next_token(), "this architecture has no LM head; read hidden states with linear"),
    ],
)
def test_a_head_that_the_architecture_lacks_is_refused(attributes, readout, message):
    with pytest.raises(InputError, match=message):
        random_model(read_config(attributes), readout=readout, seed=0)
