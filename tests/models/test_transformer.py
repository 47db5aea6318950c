"""What the transformer must not do: look at padding, at the future, or divide by zero."""

from dataclasses import MISSING, fields, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkft import InputError
from ntkft.models import TransformerConfig, linear, random_model, read_config
from ntkft.models.config import Classifier, LMHead, Patches, Tokens
from ntkft.models.readouts import BoundReadout, Readout
from ntkft.models.rotary import Rotary
from tests.models.tiny import BERT, GPT2, GPT_NEO, LLAMA, batch, outputs_of

HIDDEN = Readout("hidden", (), lambda config, tokenizer: BoundReadout({}, _hidden, None))
MEAN = linear(2, pool="mean", scale=1, seed=0)


def _hidden(model, head, inputs):
    return model(inputs).reshape(len(inputs["input_ids"]), -1)


def _hidden_states(attributes: dict, inputs) -> np.ndarray:
    model = random_model(read_config(attributes), readout=HIDDEN, seed=0, dtype="float64")
    return outputs_of(model, inputs).reshape(*inputs["input_ids"].shape, -1)


@pytest.mark.parametrize(("attributes", "seen"), [(BERT, 0), (GPT2, 3)], ids=["bert", "gpt2"])
def test_a_decoder_does_not_see_the_future_and_an_encoder_does(attributes, seen):
    inputs = batch((6,), vocab_size=13)
    changed = dict(inputs, input_ids=inputs["input_ids"].copy())
    changed["input_ids"][0, 3] = 1 + changed["input_ids"][0, 3] % 12
    moved = np.abs(_hidden_states(attributes, changed) - _hidden_states(attributes, inputs)).max(axis=(0, 2))
    assert (moved[:seen] == 0).all()
    assert (moved[seen:] > 1e-6).all()


def test_a_window_hides_what_lies_further_back():
    attributes = GPT_NEO | {"attention_types": [[["local"], 1]], "num_layers": 1}
    inputs = batch((6,), vocab_size=13)
    changed = dict(inputs, input_ids=inputs["input_ids"].copy())
    changed["input_ids"][0, 1] = 1 + changed["input_ids"][0, 1] % 12
    moved = np.abs(_hidden_states(attributes, changed) - _hidden_states(attributes, inputs)).max(axis=(0, 2))
    assert (moved > 1e-6).tolist() == [False, True, True, True, False, False]


@pytest.mark.parametrize("attributes", [BERT, GPT2, LLAMA], ids=["bert", "gpt2", "llama"])
def test_padding_has_no_gradient_and_an_empty_example_no_nan(attributes):
    model = random_model(read_config(attributes), readout=MEAN, seed=0, dtype="float64")
    inputs = batch((4, 2), vocab_size=12)
    padded = {name: np.pad(array, ((0, 1), (1, 2))) for name, array in inputs.items()}
    padded["input_ids"][padded["attention_mask"] == 0] = 12

    @jax.jit
    def gradient(inputs, rows):
        return jax.grad(lambda params: jnp.sum(model.apply_fn(params, inputs)[:, 0] * rows))(model.params)

    expected = gradient(inputs, jnp.ones(2))
    actual = gradient(padded, jnp.array([1.0, 1.0, 0.0]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), actual, expected)
    empty = gradient(padded, jnp.array([0.0, 0.0, 1.0]))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(empty))
    assert np.isfinite(outputs_of(model, padded)).all()


def test_absent_token_types_are_zero_and_a_model_without_them_does_not_read_them():
    inputs = batch((5, 3), vocab_size=13)
    without = {name: array for name, array in inputs.items() if name != "token_type_ids"}
    zero = dict(inputs, token_type_ids=np.zeros_like(inputs["input_ids"]))
    bert, gpt2 = BERT | {"num_hidden_layers": 1}, GPT2 | {"n_layer": 1}
    np.testing.assert_allclose(_hidden_states(bert, without), _hidden_states(bert, zero), atol=1e-12)
    assert not np.allclose(_hidden_states(bert, without), _hidden_states(bert, inputs))
    np.testing.assert_allclose(_hidden_states(gpt2, without), _hidden_states(gpt2, inputs), atol=1e-12)


def test_a_token_outside_the_vocabulary_is_nan_in_its_own_example_only():
    inputs = batch((5, 3), vocab_size=13)
    inputs["input_ids"][1, 0] = 13
    finite = np.isfinite(_hidden_states(BERT | {"num_hidden_layers": 1}, inputs)).all(axis=(1, 2))
    assert finite.tolist() == [True, False]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 0}, "width is 0; it must be at least 1"),
        ({"kv_heads": 3}, "heads 2 is not a multiple of kv_heads 3"),
        ({"attention_scale": (1.0,)}, "attention_scale has 1 entries for 2 layers"),
        ({"windows": (None, 0)}, "a window is 0; it must be at least 1"),
        ({"activation": "elu"}, "activation is 'elu'; supported: gelu, "),
        ({"block": "sandwich"}, "block is 'sandwich'; supported: post_norm, "),
        ({"norm_epsilon": -1.0}, "norm_epsilon is -1.0; it must be in"),
        ({"rotary": Rotary(6, 10.0, None)}, "rotary width is 6; it must be even and at most head_width 4"),
    ],
)
def test_an_impossible_shape_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        replace(read_config(BERT), **changes)


def test_every_fault_of_a_shape_is_in_one_message():
    config = read_config(BERT)
    with pytest.raises(
        InputError, match=r"(?s)TransformerConfig: 4 problems.*mlp_width.*vocab_size.*token_types.*activation"
    ):
        replace(config, front=replace(config.tokens, vocab_size=0, token_types=-1), mlp_width=0, activation="elu")


@pytest.mark.parametrize("record", [TransformerConfig, Tokens, Patches, LMHead, Classifier, Rotary])
def test_no_field_of_a_config_has_a_default(record):
    assert {field.default for field in fields(record)} == {MISSING}
