"""Adapters in PEFT's files: names, shapes, round trips, and the reference implementation with their product added."""

import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ntkft import InputError
from ntkft.models import (
    export_lora,
    linear,
    load,
    load_lora,
    next_token,
)
from tests.models.adapted import INPUTS, LINEAR, ONE_LAYER, TARGETS, attached, moved
from tests.models.tiny import (
    GPT2,
    GPT_NEO,
    GPT_NEOX,
    LLAMA,
    REFERENCES,
    ROBERTA,
    TINY,
    VIT,
    batch,
    outputs_of,
    tokenizer_of,
    write_checkpoint,
)
from tests.tolerances import PARITY


@pytest.mark.parametrize(
    ("attributes", "dtype"),
    [(ONE_LAYER, "float64"), (ONE_LAYER, "bfloat16"), (ROBERTA, "float32"), (GPT_NEO, "float32"), (LLAMA, "float32")],
    ids=["bert-float64", "bert-bfloat16", "roberta", "gpt_neo", "llama"],
)
def test_files_give_back_the_same_adapters_and_head(tmp_path, attributes, dtype):
    base = load(write_checkpoint(tmp_path / "base", attributes), readout=LINEAR, dtype=dtype)
    model = moved(attached(base, train="^head/"))
    export_lora(attached(base, train="^head/"), tmp_path / "adapter", params=model.params)
    again = load_lora(base, tmp_path / "adapter")
    jax.tree.map(np.testing.assert_array_equal, again.params, model.params)
    assert {leaf.dtype for leaf in jax.tree.leaves(again.params)} == {jnp.dtype(dtype)}
    assert again.groups == model.groups
    if attributes is ONE_LAYER:
        np.testing.assert_array_equal(outputs_of(again, INPUTS), outputs_of(model, INPUTS))


def test_files_have_the_names_and_shapes_of_peft(tmp_path):
    head = ONE_LAYER | {"architectures": ["BertForMaskedLM"]}
    for name, attributes, prefix in (
        ("bare", ONE_LAYER, ""),
        ("named", ONE_LAYER | {"architectures": ["BertModel"]}, ""),
        ("head", head, "bert."),
    ):
        base = load(write_checkpoint(tmp_path / name, attributes), readout=next_token())
        export_lora(attached(base, r"mlp/up|^lm_head/dense"), tmp_path / f"{name}-adapter")
        up, dense = f"{prefix}encoder.layer.0.intermediate.dense", "cls.predictions.transform.dense"
        tensors = load_file(tmp_path / f"{name}-adapter" / "adapter_model.safetensors")
        assert {name: tensor.shape for name, tensor in tensors.items()} == {
            f"base_model.model.{up}.lora_A.weight": (2, 8),
            f"base_model.model.{up}.lora_B.weight": (12, 2),
            f"base_model.model.{dense}.lora_A.weight": (2, 8),
            f"base_model.model.{dense}.lora_B.weight": (8, 2),
        }
        config = json.loads((tmp_path / f"{name}-adapter" / "adapter_config.json").read_text())
        assert config["target_modules"] == sorted([up, dense])
        assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 2, 3)
        assert config["base_model_name_or_path"] == str(tmp_path / name)
        assert config["fan_in_fan_out"] is False


@pytest.mark.parametrize(
    ("model_type", "targets"),
    [("bert", TARGETS), ("llama", TARGETS), ("gpt2", r"attention/output/kernel|mlp/")],
)
def test_logits_are_those_of_transformers_with_the_exported_product_added(tmp_path, monkeypatch, model_type, targets):
    # Inside the test, so that only it is skipped where the reference implementation is not installed.
    from tests.models.test_parity import _arguments, _error, _reference, torch

    reference = _reference(TINY[model_type], "float64", tmp_path / "base", monkeypatch)
    model = moved(attached(load(tmp_path / "base", readout=next_token(), dtype="float64"), targets))
    export_lora(model, tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    with torch.no_grad():
        for name in config["target_modules"]:
            a, b = (tensors[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
            change = torch.from_numpy(config["lora_alpha"] / config["r"] * b @ a)
            reference.get_submodule(name).weight += change.T if config["fan_in_fan_out"] else change
        logits = reference(**_arguments(reference, INPUTS)).logits.numpy()
    expected = logits[np.arange(3), INPUTS["attention_mask"].sum(1) - 1]
    assert _error(outputs_of(model, INPUTS), expected) < PARITY["float64"]


@pytest.mark.parametrize(
    ("attributes", "readout", "targets", "message"),
    [
        (
            GPT2 | {"n_layer": 1},
            next_token(),
            "kernel$",
            r"3 problems\n.*attention/key is a part of .* h.0.attn.c_attn",
        ),
        (
            GPT_NEOX,
            next_token(),
            "value/",
            "attention/value is a part of the fused tensor layers.0.attention.query_key",
        ),
        (
            VIT,
            linear(2, pool="mean", scale=1, seed=0),
            "patch/",
            "embeddings/patch is the convolution embeddings.patch",
        ),
    ],
)
def test_layers_without_a_tensor_of_their_own_are_not_exported(tmp_path, attributes, readout, targets, message):
    model = attached(load(write_checkpoint(tmp_path / "base", attributes), readout=readout), targets)
    with pytest.raises(InputError, match=message):
        export_lora(model, tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'; supported: 'LORA'"),
        ({"r": None}, "r is None; supported: a positive integer"),
        ({"lora_alpha": "8"}, "lora_alpha is '8'; supported: a positive number"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa', which changes the base weights"),
        ({"use_dora": True, "use_rslora": True}, "2 problems\n  - use_rslora is True, a variant"),
        ({"rank_pattern": {"query": 4}}, "rank_pattern is {'query': 4}, a variant of LoRA"),
        ({"bias": "all"}, "bias is 'all', a variant"),
        ({"invented": 1}, "invented is 1, a variant"),
    ],
)
def test_variants_of_lora_are_refused_by_name(stored, tmp_path, change, message):
    path = export_lora(attached(stored), tmp_path / "adapter") / "adapter_config.json"
    config = json.loads(path.read_text())
    harmless = {"lora_dropout": 0.1, "target_modules": "any", "alpha_pattern": {}, "lora_bias": False}
    path.write_text(json.dumps(config | harmless))
    load_lora(stored, tmp_path / "adapter")
    path.write_text(json.dumps(config | change))
    with pytest.raises(InputError, match=message):
        load_lora(stored, tmp_path / "adapter")


QUERY = "base_model.model.encoder.layer.0.attention.self.query"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({f"{QUERY}.lora_C.weight": np.ones((2, 8))}, "query.lora_C.weight' belongs to no linear layer"),
        (
            {"base_model.model.pooler.dense.lora_A.weight": np.ones((2, 8))},
            "pooler.* belongs to no linear layer of this",
        ),
        ({f"{QUERY}.lora_A.weight": np.ones((3, 8))}, r"lora_A.weight' has shape \(3, 8\); .* ask for \(2, 8\)"),
        ({f"{QUERY}.lora_A.weight": np.full((2, 8), np.nan)}, "query/a' holds 16 NaN or infinite"),
        ({f"{QUERY}.lora_B.weight": None}, "the tensor of layers/0/attention/query/b is missing"),
    ],
)
def test_tensors_that_do_not_fit_are_named(stored, tmp_path, change, message):
    path = export_lora(attached(stored), tmp_path / "adapter") / "adapter_model.safetensors"
    save_file({key: tensor for key, tensor in (load_file(path) | change).items() if tensor is not None}, path)
    with pytest.raises(InputError, match=message):
        load_lora(stored, tmp_path / "adapter")


def test_files_that_cannot_be_read_are_named(stored, tmp_path):
    with pytest.raises(InputError, match=r"adapter_config\.json is missing; an adapter is a directory"):
        load_lora(stored, tmp_path)
    (tmp_path / "adapter_config.json").write_text("[]")
    with pytest.raises(InputError, match="got a JSON list; wanted an object"):
        load_lora(stored, tmp_path)
    directory = export_lora(attached(stored, train="^head/"), tmp_path / "adapter")
    save_file({}, directory / "adapter_model.safetensors")
    with pytest.raises(InputError, match=r"adapter_model\.safetensors holds no tensors"):
        load_lora(stored, directory)
    (directory / "adapter_model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(InputError, match=r"adapter_model.safetensors: cannot be read \("):
        load_lora(stored, directory)


def test_a_head_of_another_readout_is_refused(stored, tmp_path):
    directory = export_lora(attached(stored, train="^head/"), tmp_path / "adapter")
    other = load(stored.checkpoint.directory, readout=linear(3, pool="mean", scale=1, seed=0))
    with pytest.raises(
        InputError, match=r"ntkft_head.safetensors holds head/kernel \(8, 2\); readout linear:pool=mean"
    ):
        load_lora(other, directory)


# PEFT asks transformers by a name that this renamed.
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    ("model_type", "task", "targets", "modules"),
    [
        ("llama", "ForCausalLM", r"attention/(query|value)/kernel$|mlp/", ["q_proj", "v_proj"]),
        ("bert", "ForMaskedLM", r"attention/(query|value)/kernel$", ["query", "value"]),
        ("gpt2", "LMHeadModel", r"mlp/|attention/output", ["c_fc"]),
    ],
)
def test_peft_reads_what_is_exported_and_what_peft_writes_is_loaded(tmp_path, model_type, task, targets, modules):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft = pytest.importorskip("peft", reason="compares with PEFT itself; install it with the extra 'parity'")
        torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    name, ids = REFERENCES[model_type], {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    reference = getattr(transformers, name + task)(getattr(transformers, f"{name}Config")(**TINY[model_type], **ids))
    reference.eval().save_pretrained(tmp_path / "base")
    tokenizer_of(TINY[model_type]).save(str(tmp_path / "base" / "tokenizer.json"))
    base = load(tmp_path / "base", readout=next_token())
    inputs = {key: array for key, array in batch((7, 7), vocab_size=13).items() if key != "token_type_ids"}

    def last_logits(model):
        arguments = {key: torch.from_numpy(array).long() for key, array in inputs.items()}
        return model(**arguments).logits[:, -1].detach().numpy()

    ours = moved(attached(base, targets=targets))
    export_lora(ours, tmp_path / "ours")
    again = type(reference).from_pretrained(tmp_path / "base").eval()
    read = peft.PeftModel.from_pretrained(again, tmp_path / "ours").eval()
    np.testing.assert_allclose(outputs_of(ours, inputs), last_logits(read), atol=PARITY["float32"])

    settings = {"r": 2, "lora_alpha": 5, "lora_dropout": 0.1, "fan_in_fan_out": model_type == "gpt2"}
    theirs = peft.get_peft_model(reference, peft.LoraConfig(target_modules=modules, **settings)).eval()
    with torch.no_grad():
        for parameter in (value for name, value in theirs.named_parameters() if "lora_" in name):
            parameter.normal_(0, 0.5)
    theirs.save_pretrained(tmp_path / "theirs")
    loaded = load_lora(base, tmp_path / "theirs")
    np.testing.assert_allclose(outputs_of(loaded, inputs), last_logits(theirs), atol=PARITY["float32"])
    assert np.abs(outputs_of(loaded, inputs) - outputs_of(base, inputs)).max() > 100 * PARITY["float32"]
