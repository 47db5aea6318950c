"""Every attribute of a config is honoured, known to be harmless, or refused by name."""

import warnings

import pytest

from ntkft import InputError
from ntkft.models import TransformerConfig, read_config
from ntkft.models.families import FAMILIES
from tests.models.tiny import BERT, GPT2, GPT_NEO, GPT_NEOX, LLAMA, OPT, QWEN2, REFERENCES, ROBERTA, TINY, VIT

WINDOW = {"sliding_window", "max_window_layers", "use_sliding_window"}
INERT = {"qwen2": WINDOW, "qwen3": WINDOW}
"""What changes the outputs only together with another attribute (test_parity, "qwen2-unused-window")."""


def change(value):
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
    firsts = {name: values[0] for name, values in (family.choices | family.structures).items()}
    defaults = {**family.sizes, **family.numbers, **firsts}
    return defaults | dict.fromkeys(family.ignored, "anything") | TINY[model_type]


def _reference_attributes(model_type: str) -> dict:
    """Every attribute that the reference implementation writes, at its default."""
    reason = "reads the reference implementation's own defaults; install it with the extra 'parity'"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers = pytest.importorskip("transformers", reason=reason)
        return getattr(transformers, f"{REFERENCES[model_type]}Config")().to_dict()


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
        changed = _read(attributes | {name: change(attributes[name])})
        if isinstance(changed, str):
            assert f"{name} is" in changed
            outcomes.add("refused")
        else:
            harmless = FAMILIES[model_type].ignored | INERT.get(model_type, set())
            assert (changed == base) == (name in harmless), name
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
        ("gpt_neo", {"attention_types": [[["sparse"], 2]]}),
        ("opt", {"layer_norm_elementwise_affine": False}),
        ("gpt_neox", {"rotary_pct": 1.5}),
        ("llama", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}),
        ("llama", {"rope_parameters": {"rope_type": "default", "beta_fast": 32}}),
        ("mistral", {"sliding_window": 0}),
        ("qwen2", {"layer_types": ["chunked_attention"]}),
        ("vit", {"pooler_act": "gelu"}),
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
    with pytest.raises(
        InputError, match=f"model_type {model_type!r} is not supported; supported: bert, roberta, distilbert, gpt2, "
    ):
        read_config({"model_type": model_type})


@pytest.mark.parametrize(
    ("base", "changes", "message"),
    [
        (GPT2, {"n_head": 3}, "model_type 'gpt2': width 8 is not a multiple of heads 3"),
        (BERT, {"num_attention_heads": 3}, "width 8 is not a multiple of heads 3"),
        (ROBERTA, {"pad_token_id": 15}, "pad_token_id 15 leaves no row of max_position_embeddings 16"),
        (GPT_NEO, {"num_layers": 3}, "attention_types name 2 layers, num_layers is 3"),
        (GPT_NEO, {"attention_layers": ["local", "global"]}, "attention_layers is not what attention_types say"),
        (OPT, {"num_attention_heads": 3}, "width 8 is not a multiple of heads 3"),
        (GPT_NEOX, {"num_attention_heads": 4}, "num_attention_heads is 4, so 1 features of a head turn"),
        (GPT_NEOX, {"rotary_pct": 0.5, "rope_parameters": {"partial_rotary_factor": 0.25}}, "rope_parameters say 0.25"),
        (LLAMA, {"head_dim": 3}, "head_dim is 3; rotary positions need an even one"),
        (LLAMA, {"num_attention_heads": 3}, "and head_dim is absent"),
        (LLAMA, {"num_key_value_heads": 4}, "num_key_value_heads is 4, num_attention_heads 2; the latter must be a"),
        (LLAMA, {"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor is 0.5; supported: 1"),
        (
            LLAMA,
            {"rope_theta": 5.0, "rope_parameters": {"rope_theta": 7.0}},
            "rope_theta is 5.0, rope_parameters say 7",
        ),
        (
            LLAMA,
            {"rope_scaling": {"type": "linear", "factor": 2}, "rope_parameters": {"rope_theta": 7.0}},
            "is not what rope_parameters",
        ),
        (QWEN2, {"layer_types": ["full_attention"] * 2}, "layer_types names 2 layers, num_hidden_layers is 1"),
        (QWEN2, {"layer_types": ["sliding_attention"]}, "there is no sliding_window in use"),
        (VIT, {"image_size": 10}, r"an image of \(10, 10\) pixels is not a whole number of patches of \(4, 4\)"),
        (VIT, {"pooler_output_size": 5}, "pooler_output_size is 5, hidden_size is 8; supported: the same"),
    ],
)
def test_attributes_that_contradict_each_other_are_refused(base, changes, message):
    with pytest.raises(InputError, match=message):
        read_config(base | changes)


def test_old_and_new_names_of_rotary_attributes_mean_the_same():
    new = {"rope_type": "linear", "factor": 2.0, "rope_theta": 5.0}
    old = {"rope_theta": 5.0, "rope_scaling": {"type": "linear", "factor": 2.0}}
    assert read_config(LLAMA | {"rope_parameters": new}) == read_config(LLAMA | old)
    assert read_config(LLAMA | {"rope_parameters": new} | old) == read_config(LLAMA | old)
    share = {"rope_parameters": {"rope_theta": 100.0, "partial_rotary_factor": 0.5}}
    assert read_config(GPT_NEOX | share) == read_config(GPT_NEOX | {"rotary_emb_base": 100, "rotary_pct": 0.5})


def test_an_absent_or_null_attribute_has_the_default_of_the_family():
    assert read_config(GPT2).mlp_width == read_config(GPT2 | {"n_inner": None}).mlp_width == 32
    assert read_config(BERT).tokens.token_types == 2
    assert read_config(GPT2).norm_epsilon == 1e-5


def test_attention_scale_follows_the_flags_of_gpt2():
    assert read_config(GPT2).attention_scale == (0.5, 0.5)
    assert read_config(GPT2 | {"scale_attn_weights": False}).attention_scale == (1.0, 1.0)
    assert read_config(GPT2 | {"scale_attn_by_inverse_layer_idx": True}).attention_scale == (0.5, 0.25)
