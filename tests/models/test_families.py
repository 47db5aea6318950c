"""Every attribute of a config is honoured, known to be harmless, or refused by name."""

import warnings

import pytest

from ntkft import InputError
from ntkft.models import TransformerConfig, read_config
from ntkft.models.families import FAMILIES
from tests.models.tiny import BERT, GPT2

TINY = {"bert": BERT, "gpt2": GPT2}


def _other(value):
    """Some other value of the same type."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value * 2 or 1
        case None:
            return 3
        case dict():
            return {"0": [1]}
        case _:
            return f"other-{value}"


def _attributes(model_type: str) -> dict:
    """Every attribute in the family's own tables, at its default."""
    family = FAMILIES[model_type]
    defaults = {**family.sizes, **family.numbers, **{name: values[0] for name, values in family.choices.items()}}
    return defaults | dict.fromkeys(family.ignored, "anything") | TINY[model_type]


def _reference_attributes(model_type: str) -> dict:
    """Every attribute that the reference implementation writes, at its default."""
    reason = "reads the reference implementation's own defaults; install it with the extra 'parity'"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers = pytest.importorskip("transformers", reason=reason)
        return {"bert": transformers.BertConfig, "gpt2": transformers.GPT2Config}[model_type]().to_dict()


def _read(attributes: dict) -> TransformerConfig | str:
    """The config, or what its refusal says."""
    try:
        return read_config(attributes)
    except InputError as error:
        return str(error)


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize("source", [_attributes, _reference_attributes], ids=["own", "reference"])
def test_each_changed_attribute_changes_the_config_or_is_ignored_or_is_refused_by_name(model_type, source):
    attributes = source(model_type)
    base, outcomes = read_config(attributes), set()
    for name in attributes.keys() - {"model_type"}:
        changed = _read(attributes | {name: _other(attributes[name])})
        if isinstance(changed, str):
            assert f"{name} is" in changed
            outcomes.add("refused")
        else:
            assert (changed == base) == (name in FAMILIES[model_type].ignored), name
            outcomes.add("ignored" if changed == base else "honoured")
    assert outcomes == {"refused", "ignored", "honoured"}


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("bert", {"position_embedding_type": "relative_key"}),
        ("bert", {"is_decoder": True}),
        ("bert", {"tie_word_embeddings": False}),
        ("bert", {"hidden_act": "gelu_fast"}),
        ("bert", {"pruned_heads": {"0": [1]}}),
        ("bert", {"num_hidden_layers": 0}),
        ("bert", {"hidden_size": 8.0}),
        ("bert", {"layer_norm_eps": -1.0}),
        ("gpt2", {"add_cross_attention": True}),
        ("gpt2", {"reorder_and_upcast_attn": True}),
        ("gpt2", {"n_head": True}),
    ],
)
def test_a_value_that_is_not_implemented_is_refused_with_those_that_are(model_type, changes):
    (name,) = changes
    with pytest.raises(InputError, match=rf"model_type '{model_type}': {name} is .*; supported: \S"):
        read_config(TINY[model_type] | changes)


def test_every_fault_of_a_config_is_in_one_message():
    attributes = {**BERT, "hidden_act": "swiglu", "rotary_dim": 4, "is_decoder": True}
    del attributes["vocab_size"]
    with pytest.raises(InputError, match="4 problems") as error:
        read_config(attributes)
    for part in ("vocab_size is missing", "hidden_act is 'swiglu'", "rotary_dim is 4, but", "is_decoder is True"):
        assert part in str(error.value)


@pytest.mark.parametrize("model_type", ["t5", None])
def test_an_unsupported_model_type_lists_the_supported_ones(model_type):
    with pytest.raises(InputError, match=f"model_type {model_type!r} is not supported; supported: bert, gpt2"):
        read_config({"model_type": model_type})


def test_heads_must_divide_the_width():
    with pytest.raises(InputError, match="width 8 is not a multiple of heads 3"):
        read_config(GPT2 | {"n_head": 3})


def test_an_absent_or_null_attribute_has_the_default_of_the_family():
    assert read_config(GPT2).mlp_width == read_config(GPT2 | {"n_inner": None}).mlp_width == 32
    assert read_config(BERT).token_types == 2
    assert read_config(GPT2).norm_epsilon == 1e-5


def test_attention_scale_follows_the_flags_of_gpt2():
    assert read_config(GPT2).attention_scale == (0.5, 0.5)
    assert read_config(GPT2 | {"scale_attn_weights": False}).attention_scale == (1.0, 1.0)
    assert read_config(GPT2 | {"scale_attn_by_inverse_layer_idx": True}).attention_scale == (0.5, 0.25)
