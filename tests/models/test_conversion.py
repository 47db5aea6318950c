"""Loading is a bijection: every tensor is used once, every leaf is filled once, and anything else is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkft import InputError
from ntkft._tree import leaf_paths
from ntkft.models import classifier, label_words, linear, load, next_token, read_config
from ntkft.models.conversion import leaf_shapes, pack, tensor_rules, to_params, unpack
from ntkft.models.families import family_of
from tests.models.tiny import BERT, GPT2, GPT_NEOX, OPT, TINY, VIT, architecture_of, random_tensors, write_checkpoint

UNTIED = GPT2 | {"tie_word_embeddings": False}
LINEAR = linear(2, pool="mean", scale=1, seed=0)
ALL = TINY | {"untied": UNTIED, "projected": OPT | {"word_embed_proj_dim": 6}}


@pytest.mark.parametrize("attributes", ALL.values(), ids=ALL)
def test_rules_fill_every_leaf_once_from_tensors_used_once_and_can_be_inverted(attributes):
    config, architecture, tensors = read_config(attributes), architecture_of(attributes), random_tensors(attributes)
    names, shapes = family_of(attributes).names, leaf_shapes(architecture)
    rules = [rule for rule in tensor_rules(names, config.layers) if rule.tensor in tensors]
    assert sorted(leaf for rule in rules for leaf in rule.leaves) == sorted(shapes)
    assert sorted(rule.tensor for rule in rules) == sorted(tensors)

    params, left_out = to_params(
        "test",
        tensors,
        names,
        config,
        architecture,
        architecture,
        np.dtype(np.float32),
        lambda _, leaf: jnp.asarray(leaf),
    )
    assert left_out == ()
    leaves = leaf_paths(params)
    assert {path: leaf.shape for path, leaf in leaves.items()} == shapes
    for rule in rules:
        np.testing.assert_array_equal(pack(rule, config, leaves), tensors[rule.tensor])


@pytest.mark.parametrize(
    ("attributes", "name", "query"),
    [
        (GPT2, "h.0.attn.c_attn.bias", range(8)),
        (GPT_NEOX, "layers.0.attention.query_key_value.bias", [*range(8), *range(24, 32)]),
    ],
    ids=["side by side", "head by head"],
)
def test_a_fused_projection_is_taken_apart_into_query_key_value(attributes, name, query):
    config = read_config(attributes)
    rule = next(rule for rule in tensor_rules(family_of(attributes).names, 1) if rule.tensor == name)
    parts = unpack(rule, config, np.arange(3 * config.width))
    assert [path.split("/")[3] for path in parts] == ["query", "key", "value"]
    for place, part in enumerate(parts.values()):
        assert part.tolist() == [8 * place + i for i in query]


def test_a_patch_is_projected_as_the_convolution_does():
    """The stored kernel [out, channel, y, x] applied to a patch, against our row of the flattened patch."""
    config = read_config(VIT)
    rule = next(rule for rule in tensor_rules(family_of(VIT).names, 1) if rule.tensor.endswith("projection.weight"))
    stored, patch = (
        np.random.default_rng(i).standard_normal(shape) for i, shape in enumerate(((8, 2, 4, 4), (2, 4, 4)))
    )
    (kernel,) = unpack(rule, config, stored).values()
    np.testing.assert_allclose(patch.reshape(-1) @ kernel, np.einsum("ocyx,cyx->o", stored, patch), atol=1e-12)


def test_names_with_the_prefix_and_without_it_load_alike(tmp_path):
    tensors = random_tensors(BERT)
    prefixed = {name if name.startswith("cls.") else f"bert.{name}": tensor for name, tensor in tensors.items()}
    plain = load(write_checkpoint(tmp_path / "plain", BERT, tensors), readout=LINEAR)
    other = load(write_checkpoint(tmp_path / "prefixed", BERT, prefixed), readout=LINEAR)
    jax.tree.map(np.testing.assert_array_equal, plain.params, other.params)


def test_layer_norms_of_the_oldest_checkpoints_are_gamma_and_beta(tmp_path):
    tensors = random_tensors(BERT)
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in tensors.items()
    }
    today = load(write_checkpoint(tmp_path / "today", BERT, tensors), readout=LINEAR)
    jax.tree.map(
        np.testing.assert_array_equal,
        load(write_checkpoint(tmp_path / "old", BERT, old), readout=LINEAR).params,
        today.params,
    )


def test_only_what_the_readout_needs_is_built_and_the_rest_is_listed(tmp_path):
    tensors = random_tensors(BERT) | {
        "embeddings.position_ids": np.arange(16)[None],
        "cls.seq_relationship.weight": np.zeros((2, 8), np.float32),
        "classifier.bias": np.zeros(2, np.float32),
    }
    write_checkpoint(tmp_path, BERT, tensors)
    heads = {"classifier.bias", "classifier.weight", "cls.seq_relationship.weight"}
    lm_head = {name for name in tensors if name.startswith("cls.predictions")}
    pooler = {"pooler.dense.weight", "pooler.dense.bias"}
    backbone = load(tmp_path, readout=LINEAR)
    assert set(backbone.left_out) == heads | lm_head | pooler
    assert set(load(tmp_path, readout=label_words([5, 6], position="last")).left_out) == heads | pooler
    unused = {"cls.seq_relationship.weight"} | lm_head
    assert set(load(tmp_path, readout=classifier()).left_out) == unused
    assert not {"lm_head", "pooler"} & set(backbone.params)


def test_causal_masks_stored_by_early_releases_are_constants(tmp_path):
    buffers = {"h.0.attn.bias": np.tril(np.ones((1, 1, 16, 16), bool)), "h.1.attn.masked_bias": np.float32(-1e4)}
    tensors = random_tensors(GPT2) | {name: np.asarray(buffer) for name, buffer in buffers.items()}
    assert load(write_checkpoint(tmp_path, GPT2, tensors), readout=LINEAR).left_out == ("score.weight",)


def test_a_tied_copy_must_equal_its_original_and_may_stand_in_for_it(tmp_path):
    tensors = random_tensors(GPT2)
    table = tensors["wte.weight"]
    equal = load(write_checkpoint(tmp_path / "equal", GPT2, tensors | {"lm_head.weight": table}), readout=next_token())
    only = {("lm_head.weight" if name == "wte.weight" else name): tensor for name, tensor in tensors.items()}
    stands_in = load(write_checkpoint(tmp_path / "only", GPT2, only), readout=next_token())
    np.testing.assert_array_equal(equal.params["embeddings"]["token"], stands_in.params["embeddings"]["token"])
    assert "lm_head" not in equal.params
    write_checkpoint(tmp_path / "differs", GPT2, tensors | {"lm_head.weight": table + 1})
    with pytest.raises(InputError, match=r"'lm_head.weight' differs from 'wte.weight', but the config ties the two"):
        load(tmp_path / "differs", readout=LINEAR)


def test_an_untied_head_is_a_weight_of_its_own(tmp_path):
    tensors = random_tensors(UNTIED)
    model = load(write_checkpoint(tmp_path, UNTIED, tensors), readout=next_token())
    np.testing.assert_array_equal(model.params["lm_head"]["kernel"], tensors["lm_head.weight"].T)


def test_every_fault_of_the_tensors_is_in_one_message(tmp_path):
    tensors = random_tensors(GPT2)
    del tensors["ln_f.bias"]
    tensors["h.0.rotary"] = np.zeros(3, np.float32)
    tensors["wpe.weight"] = tensors["wpe.weight"][:5]
    tensors["h.1.attn.c_attn.weight"] = tensors["h.1.attn.c_attn.weight"].T.copy()
    tensors["h.0.ln_1.weight"][2] = np.nan
    tensors["h.0.ln_2.bias"] = np.zeros(8, np.int8)
    tensors["transformer.ln_f.weight"] = tensors["ln_f.weight"]
    with pytest.raises(InputError, match=r"checkpoint .*, readout linear:.*: 7 problems") as error:
        load(write_checkpoint(tmp_path, GPT2, tensors), readout=LINEAR)
    for part in (
        "tensor 'ln_f.bias', which holds final_norm/bias, is missing",
        "tensor 'h.0.rotary' (3,) is unknown",
        "tensor 'wpe.weight' has shape (5, 8); config.json asks for (16, 8)",
        "tensor 'h.1.attn.c_attn.weight' has shape (24, 8); config.json asks for (8, 24)",
        "tensor 'h.0.ln_1.weight' holds 1 NaN or infinite values of 8",
        "tensor 'h.0.ln_2.bias' holds int8",
        "tensor 'ln_f.weight' is stored under two names",
    ):
        assert part in str(error.value)


def test_a_head_that_the_checkpoint_lacks_is_missing(tmp_path):
    tensors = {name: tensor for name, tensor in random_tensors(BERT).items() if not name.startswith("cls.")}
    write_checkpoint(tmp_path, BERT, tensors)
    load(tmp_path, readout=LINEAR)
    with pytest.raises(
        InputError, match=r"(?s)label_words.*5 problems.*'cls.predictions.bias', which holds lm_head/bias"
    ):
        load(tmp_path, readout=label_words([5, 6], position="last"))
