"""Hidden states, logits and all parameter gradients equal those of the reference implementation."""

import warnings
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkft._tree import leaf_paths
from ntkft.models import load
from ntkft.models.conversion import to_params
from ntkft.models.families import FAMILIES
from ntkft.models.readouts import BoundReadout, Readout
from tests.models.tiny import BERT, GPT2, batch, byte_pairs, wordpiece
from tests.tolerances import PARITY

WHY = "parity tests compare with the reference implementation; install it with the extra 'parity' and a CPU torch"
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch", reason=WHY)
    transformers = pytest.importorskip("transformers", reason=WHY)
    from transformers import BertForMaskedLM, BertModel, GPT2LMHeadModel

VARIANTS = {
    "bert": (BERT, {}),
    "bert-gelu-tanh": (BERT, {"hidden_act": "gelu_new", "num_hidden_layers": 1}),
    "bert-relu": (BERT, {"hidden_act": "relu", "num_hidden_layers": 1, "num_attention_heads": 4}),
    "bert-silu": (BERT, {"hidden_act": "silu", "num_hidden_layers": 1, "type_vocab_size": 3, "layer_norm_eps": 1e-3}),
    "gpt2": (GPT2, {}),
    "gpt2-untied": (GPT2, {"tie_word_embeddings": False, "n_layer": 1, "activation_function": "gelu_pytorch_tanh"}),
    "gpt2-unscaled": (GPT2, {"scale_attn_weights": False, "n_layer": 1, "n_inner": 5, "activation_function": "relu"}),
    "gpt2-scaled-by-layer": (GPT2, {"scale_attn_by_inverse_layer_idx": True}),
    "gpt2-exact-gelu": (GPT2, {"activation_function": "gelu", "n_layer": 1, "n_head": 1, "layer_norm_epsilon": 1e-3}),
    "gpt2-tanh": (GPT2, {"activation_function": "tanh", "n_layer": 1}),
}
IN_FLOAT32 = ("bert", "gpt2", "gpt2-untied", "gpt2-scaled-by-layer")
CASES = [(variant, "float64") for variant in VARIANTS] + [(variant, "float32") for variant in IN_FLOAT32]
# All hidden states and logits of an example in one row: [n, t·(d + v)].
TOKENS = Readout("tokens", ("lm_head",), lambda config, tokenizer: BoundReadout({}, _tokens, None))
POOLED = Readout("pooled", ("pooler",), lambda config, tokenizer: BoundReadout({}, _pooled, None))


@pytest.mark.parametrize(("variant", "dtype"), CASES)
def test_hidden_states_logits_and_gradients_are_those_of_transformers(tmp_path, variant, dtype):
    base, changes = VARIANTS[variant]
    reference = _reference(base | changes, dtype, tmp_path)
    _compare(reference, tmp_path, TOKENS, batch((3, 7, 1), vocab_size=base["vocab_size"]), dtype)


def test_one_unpadded_example_is_that_of_transformers(tmp_path):
    reference = _reference(BERT | {"num_hidden_layers": 1}, "float64", tmp_path)
    _compare(reference, tmp_path, TOKENS, batch((5,), vocab_size=13), "float64")


def test_the_pooler_is_that_of_transformers(tmp_path):
    reference = _reference(BERT | {"num_hidden_layers": 1}, "float64", tmp_path, BertModel)
    _compare(reference, tmp_path, POOLED, batch((3, 5), vocab_size=13), "float64")


def test_left_padding_is_that_of_transformers_with_positions_of_real_tokens(tmp_path):
    reference = _reference(GPT2 | {"n_layer": 1}, "float64", tmp_path)
    _compare(reference, tmp_path, TOKENS, batch((3, 7, 1), vocab_size=17, side="left"), "float64")


def _reference(attributes: dict, dtype: str, directory: Path, model_class=None):
    """A reference model with random weights (no bias zero, no scale one), saved with its tokenizer."""
    bert = attributes["model_type"] == "bert"
    config_class = transformers.BertConfig if bert else transformers.GPT2Config
    model_class = model_class or (BertForMaskedLM if bert else GPT2LMHeadModel)
    ids = {} if bert else {"bos_token_id": 0, "eos_token_id": 0}
    model = model_class(config_class(**attributes, **ids, attn_implementation="eager")).to(getattr(torch, dtype)).eval()
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 1.0 if parameter.ndim == 1 and name.endswith("weight") else 0.0
            parameter.copy_(torch.from_numpy(centre + 0.4 * rng.standard_normal(tuple(parameter.shape))))
    model.save_pretrained(directory)
    (wordpiece if bert else byte_pairs)().save(str(directory / "tokenizer.json"))
    return model


def _compare(reference, directory: Path, readout: Readout, inputs: Mapping[str, np.ndarray], dtype: str) -> None:
    """Outputs at real positions, and the gradient of a random combination of them with respect to every leaf."""
    parts = _reference_parts(reference, readout, inputs)
    real = np.ones((len(inputs["input_ids"]), 1)) if readout is POOLED else inputs["attention_mask"]
    rng = np.random.default_rng(2)
    weights = [rng.standard_normal(part.shape) * real[:, :, None] for part in parts]
    stacked = jnp.asarray(np.concatenate([weight.reshape(len(real), -1) for weight in weights], axis=1), dtype)
    model = load(directory, readout=readout, dtype=dtype)

    def combination(params):
        outputs = model.apply_fn(params, inputs)
        return jnp.sum(outputs * stacked), outputs

    gradients, outputs = jax.device_get(jax.jit(jax.grad(combination, has_aux=True))(model.params))
    for part in parts:
        actual, outputs = np.split(outputs, [part[0].numel()], axis=1)
        mask = real[:, :, None]
        assert _error(actual.reshape(part.shape) * mask, part.detach().numpy() * mask) < PARITY[dtype]

    terms = [(part * torch.from_numpy(weight)).sum() for part, weight in zip(parts, weights, strict=True)]
    torch.stack(terms).sum().backward()
    stored = {name: weight.grad.numpy() for name, weight in reference.named_parameters() if weight.grad is not None}
    names = FAMILIES[reference.config.model_type].names
    wanted, _ = to_params("gradients", stored, names, model.params, model.params, np.dtype(dtype))
    expected = leaf_paths(wanted)
    for path, gradient in leaf_paths(gradients).items():
        # A bias of the keys shifts all scores of a row, which softmax does not see: its gradient is rounding alone.
        unit = expected[path.replace("key/bias", "key/kernel")]
        assert _error(gradient, expected[path], unit) < PARITY[dtype], path


def _reference_parts(reference, readout: Readout, inputs: Mapping[str, np.ndarray]) -> list:
    """Hidden states and logits `[n, t, …]`, or the pooled states `[n, 1, d]`."""
    arguments = {name: torch.from_numpy(array).long() for name, array in inputs.items()}
    if reference.config.model_type == "gpt2":
        del arguments["token_type_ids"]
        arguments["position_ids"] = (arguments["attention_mask"].cumsum(1) - 1).clamp(min=0)
    if readout is POOLED:
        return [reference(**arguments).pooler_output[:, None]]
    outputs = reference(**arguments, output_hidden_states=True)
    return [outputs.hidden_states[-1], outputs.logits]


def _error(actual, expected, unit=None) -> float:
    """Largest difference in units of the largest entry."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    return float(np.abs(actual - expected).max() / np.abs(expected if unit is None else unit).max())


def _tokens(model, head, inputs):
    hidden = model(inputs)
    n, t, d = hidden.shape
    logits = model.logits(hidden.reshape(n * t, d))
    return jnp.concatenate([hidden.reshape(n, -1), logits.reshape(n, -1)], axis=1)


def _pooled(model, head, inputs):
    return model.pool(model(inputs)[:, 0])
