"""Hidden states, logits and all parameter gradients equal those of the reference implementation."""

import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from ntkft._tree import leaf_paths
from ntkft.models import classifier, export, label_words, load
from ntkft.models.conversion import leaf_shapes, to_params
from ntkft.models.families import FAMILIES
from ntkft.models.readouts import BoundReadout, Readout
from tests.models.tiny import (
    BERT,
    GPT2,
    GPT_NEO,
    GPT_NEOX,
    LLAMA,
    OPT,
    QWEN2,
    QWEN3,
    REFERENCES,
    TINY,
    VIT,
    architecture_of,
    batch,
    outputs_of,
    tokenizer_of,
)
from tests.tolerances import PARITY

WHY = "parity tests compare with the reference implementation; install it with the extra 'parity' and a CPU torch"
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch", reason=WHY)
    transformers = pytest.importorskip("transformers", reason=WHY)
    import safetensors.torch  # noqa: F401  # builds its table of dtypes before a test puts another in their place

MASKED = ("bert", "roberta", "distilbert")
TASKS = {"gpt2": "LMHeadModel", "vit": "ImageClassification"} | dict.fromkeys(MASKED, "MaskedLM")
LLAMA3 = {"rope_type": "llama3", "rope_theta": 10.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
VARIANTS = {
    **{model_type: (attributes, {}) for model_type, attributes in TINY.items()},
    "bert-gelu-tanh": (BERT, {"hidden_act": "gelu_new", "num_hidden_layers": 1}),
    "bert-relu": (BERT, {"hidden_act": "relu", "num_hidden_layers": 1, "num_attention_heads": 4}),
    "bert-silu": (BERT, {"hidden_act": "silu", "num_hidden_layers": 1, "type_vocab_size": 3, "layer_norm_eps": 1e-3}),
    "gpt2-untied": (GPT2, {"tie_word_embeddings": False, "n_layer": 1, "activation_function": "gelu_pytorch_tanh"}),
    "gpt2-unscaled": (GPT2, {"scale_attn_weights": False, "n_layer": 1, "n_inner": 5, "activation_function": "relu"}),
    "gpt2-scaled-by-layer": (GPT2, {"scale_attn_by_inverse_layer_idx": True}),
    "gpt2-exact-gelu": (GPT2, {"activation_function": "gelu", "n_layer": 1, "n_head": 1, "layer_norm_epsilon": 1e-3}),
    "gpt2-tanh": (GPT2, {"activation_function": "tanh", "n_layer": 1}),
    "gpt_neo-local": (GPT_NEO, {"attention_types": [[["local"], 1]], "num_layers": 1, "intermediate_size": 5}),
    "opt-post-norm": (OPT, {"do_layer_norm_before": False, "word_embed_proj_dim": 6}),
    "opt-bare": (OPT, {"enable_bias": False, "_remove_final_layer_norm": True, "tie_word_embeddings": False}),
    "gpt_neox-sequential": (
        GPT_NEOX,
        {"use_parallel_residual": False, "attention_bias": False, "tie_word_embeddings": True}
        | {
            "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 100.0, "partial_rotary_factor": 1.0}
        },
    ),
    "llama-biased": (
        LLAMA,
        {"attention_bias": True, "mlp_bias": True, "head_dim": 6, "tie_word_embeddings": True}
        | {"rope_parameters": LLAMA3 | {"original_max_position_embeddings": 8}},
    ),
    "qwen2-window": (
        QWEN2,
        {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1, "num_hidden_layers": 2},
    ),
    "qwen2-layer-types": (
        QWEN2,
        {"use_sliding_window": True, "sliding_window": 2, "layer_types": ["sliding_attention"]},
    ),
    "qwen2-unused-window": (QWEN2, {"sliding_window": 2, "max_window_layers": 1}),
    "qwen3-biased": (QWEN3, {"attention_bias": True, "num_key_value_heads": 2}),
    "vit-wide": (VIT, {"qkv_bias": False, "image_size": [8, 12], "patch_size": [4, 2]}),
}
IN_FLOAT32 = (*TINY, "gpt2-untied", "gpt2-scaled-by-layer")
CASES = [(variant, "float64") for variant in VARIANTS] + [(variant, "float32") for variant in IN_FLOAT32]
# All hidden states and logits of an example in one row: [n, t·(d + v)].
TOKENS = Readout("tokens", ("lm_head",), lambda config, tokenizer: BoundReadout({}, _tokens, None))
CLASSES = Readout("classes", ("classifier",), lambda config, tokenizer: BoundReadout({}, _classes, None))
POOLED = Readout("pooled", ("pooler",), lambda config, tokenizer: BoundReadout({}, _pooled, None))


@pytest.mark.parametrize(("variant", "dtype"), CASES)
def test_hidden_states_logits_and_gradients_are_those_of_transformers(tmp_path, monkeypatch, variant, dtype):
    base, changes = VARIANTS[variant]
    attributes = base | changes
    reference = _reference(attributes, dtype, tmp_path, monkeypatch)
    images = attributes["model_type"] == "vit"
    inputs = _images(reference.config) if images else batch((3, 7, 1), vocab_size=base["vocab_size"])
    _compare(reference, tmp_path, CLASSES if images else TOKENS, inputs, dtype)


def test_one_unpadded_example_is_that_of_transformers(tmp_path, monkeypatch):
    reference = _reference(BERT | {"num_hidden_layers": 1}, "float64", tmp_path, monkeypatch)
    _compare(reference, tmp_path, TOKENS, batch((5,), vocab_size=13), "float64")


@pytest.mark.parametrize("attributes", [BERT | {"num_hidden_layers": 1}, VIT], ids=["bert", "vit"])
def test_the_pooler_is_that_of_transformers(tmp_path, monkeypatch, attributes):
    reference = _reference(attributes, "float64", tmp_path, monkeypatch, task="Model")
    images = attributes is VIT
    _compare(
        reference, tmp_path, POOLED, _images(reference.config) if images else batch((3, 5), vocab_size=13), "float64"
    )


def test_left_padding_is_that_of_transformers_with_positions_of_real_tokens(tmp_path, monkeypatch):
    reference = _reference(GPT2 | {"n_layer": 1}, "float64", tmp_path, monkeypatch)
    _compare(reference, tmp_path, TOKENS, batch((3, 7, 1), vocab_size=17, side="left"), "float64")


@pytest.mark.parametrize("model_type", [name for name in TINY if name not in ("vit", "distilbert")])
def test_a_stored_classifier_is_that_of_transformers(tmp_path, monkeypatch, model_type):
    attributes = TINY[model_type] | {"id2label": {0: "a", 1: "b", 2: "c"}}
    reference = _reference(attributes, "float64", tmp_path, monkeypatch, task="SequenceClassification")
    inputs = batch((3, 7, 1), vocab_size=13)
    model = load(tmp_path, readout=classifier(), dtype="float64")
    expected = reference(**_arguments(reference, inputs)).logits.detach().numpy()
    assert expected.shape == (3, 3)
    assert _error(outputs_of(model, inputs), expected) < PARITY["float64"]


def _reference(attributes: dict, dtype: str, directory: Path, monkeypatch, task: str | None = None):
    """A reference model with random weights (no bias zero, no scale one), saved with its tokenizer."""
    name = REFERENCES[attributes["model_type"]]
    task = task or TASKS.get(attributes["model_type"], "CausalLM")
    model_class = getattr(transformers, f"{name}{'' if 'Model' in task else 'For'}{task}")
    config_class = getattr(transformers, f"{name}Config")
    if dtype == "float64":
        # The reference goes through float32 in softmax, norms and angles whatever its dtype; here it is not to.
        for alias in ("float32", "float"):
            monkeypatch.setattr(torch, alias, torch.float64)
        monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    ids = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0} if "vocab_size" in attributes else {}
    config = config_class(**ids | attributes, attn_implementation="eager")
    model = model_class(config).to(getattr(torch, dtype)).eval()
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 1.0 if parameter.ndim == 1 and name.endswith("weight") else 0.0
            parameter.copy_(torch.from_numpy(centre + 0.4 * rng.standard_normal(tuple(parameter.shape))))
    model.save_pretrained(directory)
    if ids:
        tokenizer_of(attributes).save(str(directory / "tokenizer.json"))
    return model


def _images(config) -> dict[str, np.ndarray]:
    sides = config.image_size if isinstance(config.image_size, list | tuple) else [config.image_size] * 2
    return {"pixel_values": np.random.default_rng(1).standard_normal((3, config.num_channels, *sides))}


def _compare(reference, directory: Path, readout: Readout, inputs: Mapping[str, np.ndarray], dtype: str) -> None:
    """Outputs at real positions, and the gradient of a random combination of them with respect to every leaf."""
    parts = _reference_parts(reference, readout, inputs)
    mask = inputs["attention_mask"][:, :, None] if readout is TOKENS else 1
    rng = np.random.default_rng(2)
    weights = [rng.standard_normal(part.shape) * mask for part in parts]
    stacked = jnp.asarray(np.concatenate([weight.reshape(len(weight), -1) for weight in weights], axis=1), dtype)
    model = load(directory, readout=readout, dtype=dtype)

    def combination(params):
        outputs = model.apply_fn(params, inputs)
        return jnp.sum(outputs * stacked), outputs

    gradients, outputs = jax.device_get(jax.jit(jax.grad(combination, has_aux=True))(model.params))
    for part in parts:
        actual, outputs = np.split(outputs, [part[0].numel()], axis=1)
        assert _error(actual.reshape(part.shape) * mask, part.detach().numpy() * mask) < PARITY[dtype]

    terms = [
        (part * torch.from_numpy(weight).to(part.dtype)).sum() for part, weight in zip(parts, weights, strict=True)
    ]
    torch.stack(terms).sum().backward()
    with tempfile.TemporaryDirectory() as folder:
        # Stored as the reference stores its weights, under the names that checkpoints have.
        with torch.no_grad():
            for parameter in reference.parameters():
                parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
        reference.save_pretrained(folder)
        stored = load_file(Path(folder) / "model.safetensors")
    names = FAMILIES[reference.config.model_type].names
    shapes = leaf_shapes(model.params)
    wanted, _ = to_params(
        "gradients", stored, names, model.config, architecture_of(reference.config.to_dict()), model.params,
        np.dtype(dtype), lambda path, leaf: jnp.asarray(leaf),
    )  # fmt: skip
    expected = leaf_paths(wanted)
    assert shapes == leaf_shapes(wanted)
    for path, gradient in leaf_paths(gradients).items():
        # A bias of the keys shifts all scores of a row, which softmax does not see: its gradient is rounding alone.
        unit = expected[path.replace("key/bias", "key/kernel")]
        assert _error(gradient, expected[path], unit) < PARITY[dtype], path


def _arguments(reference, inputs: Mapping[str, np.ndarray]) -> dict:
    if "pixel_values" in inputs:
        return {"pixel_values": torch.from_numpy(inputs["pixel_values"]).to(reference.dtype)}
    arguments = {name: torch.from_numpy(array).long() for name, array in inputs.items()}
    if reference.config.model_type not in ("bert", "roberta"):
        del arguments["token_type_ids"]
    if reference.config.model_type == "gpt2":
        arguments["position_ids"] = (arguments["attention_mask"].cumsum(1) - 1).clamp(min=0)
    return arguments


def _reference_parts(reference, readout: Readout, inputs: Mapping[str, np.ndarray]) -> list:
    """Hidden states and logits `[n, t, …]` or `[n, k]`, or the pooled states `[n, d]`."""
    arguments = _arguments(reference, inputs)
    if readout is POOLED:
        return [reference(**arguments).pooler_output]
    return [reference.base_model(**arguments).last_hidden_state, reference(**arguments).logits]


def _error(actual, expected, unit=None) -> float:
    """Largest difference in units of the largest entry."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    return float(np.abs(actual - expected).max() / np.abs(expected if unit is None else unit).max())


def _tokens(model, head, inputs):
    hidden = model(inputs)
    n, t, d = hidden.shape
    logits = model.logits(hidden.reshape(n * t, d))
    return jnp.concatenate([hidden.reshape(n, -1), logits.reshape(n, -1)], axis=1)


def _classes(model, head, inputs):
    hidden = model(inputs)
    return jnp.concatenate([hidden.reshape(len(hidden), -1), model.classify(hidden[:, 0])], axis=1)


def _pooled(model, head, inputs):
    return model.pool(model(inputs)[:, 0])


@pytest.mark.parametrize("model_type", TINY)
def test_readouts_and_exported_files_give_the_logits_of_transformers(tmp_path, monkeypatch, model_type):
    reference = _reference(TINY[model_type], "float64", tmp_path / "came", monkeypatch)
    images = model_type == "vit"
    readout = classifier() if images else label_words([7, 3, 5], position="last")
    model = load(tmp_path / "came", readout=readout, dtype="float64")
    inputs = _images(reference.config) if images else batch((3, 7, 1), vocab_size=13)
    logits = reference(**_arguments(reference, inputs)).logits.detach().numpy()
    expected = logits if images else logits[np.arange(3), inputs["attention_mask"].sum(axis=1) - 1][:, [7, 3, 5]]
    assert _error(outputs_of(model, inputs), expected) < PARITY["float64"]

    went = export(model, tmp_path / "went")
    again = type(reference).from_pretrained(went, dtype=torch.float64, attn_implementation="eager").eval()
    before, after = reference.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor), name
    # The same weights, so the same logits: but torch's matrix product rounds by where in memory its operands begin.
    assert _error(again(**_arguments(again, inputs)).logits.detach(), logits) < PARITY["float64"]
