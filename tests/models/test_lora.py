"""Adapters: their function, their kernel against dense Jacobians of the base model, and PEFT's files."""

import json
from dataclasses import replace
from itertools import chain

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from safetensors.numpy import load_file, save_file

import ntkft
from ntkft import InputError
from ntkft._tree import assign_groups, leaf_paths
from ntkft.models import (
    attach_lora,
    export_lora,
    linear,
    load,
    load_lora,
    merge_lora,
    next_token,
    random_model,
    read_config,
)
from tests.models.tiny import (
    BERT,
    GPT2,
    GPT_NEO,
    GPT_NEOX,
    LLAMA,
    OPT,
    QWEN3,
    ROBERTA,
    TINY,
    VIT,
    batch,
    outputs_of,
    write_checkpoint,
)
from tests.tolerances import KERNEL_F64, PARITY, kernel_error

LINEAR = linear(2, pool="mean", scale=1, seed=0)
ONE_LAYER = BERT | {"num_hidden_layers": 1}
INPUTS = batch((5, 2, 4), vocab_size=13)
TARGETS = r"attention/(query|value|output)/kernel$|mlp/"
SCALE = 3 / 2


def base_of(attributes, readout=LINEAR, dtype="float64"):
    return random_model(read_config(attributes), readout=readout, seed=0, dtype=dtype)


def attached(model, targets=TARGETS, train=None):
    return attach_lora(model, targets=targets, rank=2, alpha=3, seed=0, train=train)


def moved(model, seed=1):
    """The model at random parameters: B is no longer zero."""
    rng = np.random.default_rng(seed)
    return replace(
        model, params=jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.5, leaf.shape), leaf.dtype), model.params)
    )


@pytest.fixture(scope="module")
def base():
    return base_of(ONE_LAYER)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A checkpoint of one layer on disk, loaded."""
    directory = write_checkpoint(tmp_path_factory.mktemp("bert"), ONE_LAYER)
    return load(directory, readout=LINEAR, dtype="float64")


def test_fresh_adapters_change_no_output_and_only_b_learns(base):
    model = attached(base)
    np.testing.assert_array_equal(outputs_of(model, INPUTS), outputs_of(base, INPUTS))
    kernel = ntkft.empirical_ntk(
        model.apply_fn, model.params, INPUTS, outputs="trace", groups=model.groups, method="factors"
    )
    assert not np.any(kernel.groups["lora_a"])
    assert np.all(np.diag(kernel.groups["lora_b"]) > 0)


@pytest.mark.parametrize(
    ("attributes", "method"),
    [(ONE_LAYER, "jacobian"), (ONE_LAYER, "factors"), (GPT2 | {"n_layer": 1}, "factors"), (QWEN3, "factors")],
    ids=["bert-jacobian", "bert", "gpt2", "qwen3"],
)
def test_the_kernel_is_that_of_the_merged_weights_seen_through_the_other_factor(attributes, method):
    base = base_of(attributes)
    model = moved(attached(base, train="^head/"))
    kernel = ntkft.empirical_ntk(
        model.apply_fn, model.params, INPUTS, outputs="full", groups=model.groups, method=method
    )
    merged = merge_lora(model)
    factors = leaf_paths(model.params["lora"])
    layers = [path[:-2] for path in factors if path.endswith("/a")]
    assert len(layers) == (6 if attributes is QWEN3 else 5)
    # Dense Jacobians [n, k, in, out] of the base model, in forward mode, of the adapted kernels and the head only.
    leaves = leaf_paths(merged)
    chosen = {path: leaves[path] for path in ("head/kernel", *(f"{layer}/kernel" for layer in layers))}

    def outputs(chosen):
        return base.apply_fn(jax.tree.unflatten(jax.tree.structure(merged), list((leaves | chosen).values())), INPUTS)

    jacobian = jax.jit(jax.jacfwd(outputs))(chosen)
    through_a, through_b = 0, 0
    for layer in layers:
        dense = jacobian[f"{layer}/kernel"]
        of_b = np.einsum("nkio,ir->nkro", dense, factors[f"{layer}/a"])
        of_a = np.einsum("nkio,ro->nkir", dense, factors[f"{layer}/b"])
        through_a += SCALE**2 * np.einsum("nkro,mlro->nkml", of_b, of_b)
        through_b += SCALE**2 * np.einsum("nkir,mlir->nkml", of_a, of_a)
    head = np.einsum("nkio,mlio->nkml", jacobian["head/kernel"], jacobian["head/kernel"])
    assert kernel_error(kernel.groups["lora_b"], through_a) < KERNEL_F64
    assert kernel_error(kernel.groups["lora_a"], through_b) < KERNEL_F64
    assert kernel_error(kernel.total, through_a + through_b + head) < KERNEL_F64


def test_an_orthogonal_a_of_full_rank_gives_the_kernel_of_the_weight_itself(base):
    width = base.config.width
    model = attach_lora(base, targets="query/kernel$", rank=width, alpha=3 * width, seed=0)
    orthogonal, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((width, width)))
    layer = model.params["lora"]["layers"][0]["attention"]["query"]
    params = {"lora": {"layers": {0: {"attention": {"query": layer | {"a": jnp.asarray(orthogonal)}}}}}}
    kernel = ntkft.empirical_ntk(model.apply_fn, params, INPUTS, outputs="trace", groups=model.groups)
    of_base = ntkft.empirical_ntk(base.apply_fn, base.params, INPUTS, outputs="trace", groups=base.groups)
    assert kernel_error(kernel.groups["lora_b"], 3**2 * of_base.groups["q"]) < KERNEL_F64


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_merged_parameters_give_the_same_outputs(dtype):
    base = base_of(ONE_LAYER, dtype=dtype)
    fresh = attached(base, train="^head/|mlp_norm")
    model = moved(fresh)
    merged = merge_lora(fresh, params=model.params)
    assert jax.tree.structure(merged) == jax.tree.structure(base.params)
    assert {leaf.dtype for leaf in jax.tree.leaves(merged)} == {np.dtype(dtype)}
    actual, expected = outputs_of(model, INPUTS), outputs_of(replace(base, params=merged), INPUTS)
    assert np.abs(expected - outputs_of(base, INPUTS)).max() > 0.01
    np.testing.assert_allclose(actual, expected, atol=PARITY[dtype] * np.abs(expected).max(), rtol=0)


def test_gradients_are_finite_differences(base):
    model = moved(attached(base, train="^head/"))
    direction = moved(model, seed=2).params
    apply = jax.jit(model.apply_fn)
    _, slope = jax.jvp(lambda params: apply(params, INPUTS), (model.params,), (direction,))
    step = 1e-5

    def at(sign):
        shifted = jax.tree.map(lambda leaf, along: leaf + sign * step * along, model.params, direction)
        return np.asarray(apply(shifted, INPUTS))

    # Central differences: a truncation error of step², and rounding of 1e-16/step.
    np.testing.assert_allclose(slope, (at(1) - at(-1)) / (2 * step), atol=1e-8 * np.abs(slope).max(), rtol=0)


def test_no_wide_product_is_formed(base):
    model = moved(attached(base, "mlp/up/kernel$"))
    program = jax.make_jaxpr(model.apply_fn)(model.params, INPUTS)

    def shapes(jaxpr):
        for equation in jaxpr.eqns:
            yield from (variable.aval.shape for variable in equation.outvars)
            yield from chain.from_iterable(shapes(inner) for inner in jaxprs_in_params(equation.params))

    assert model.params["lora"]["layers"][0]["mlp"]["up"]["b"].shape == (2, 12)
    assert (8, 12) not in set(shapes(program.jaxpr))


def test_the_parameters_are_what_is_trained_and_their_groups_a_partition():
    base = base_of(ONE_LAYER, linear(2, pool="pooler", scale=1, seed=0))
    model = attached(base, r"query/kernel$|^pooler/", train="^head/|^pooler/bias$|attention_norm")
    assert assign_groups(model.params, model.groups) == {
        "head/kernel": "head",
        "layers/0/attention_norm/bias": "norm",
        "layers/0/attention_norm/scale": "norm",
        "lora/layers/0/attention/query/a": "lora_a",
        "lora/layers/0/attention/query/b": "lora_b",
        "lora/pooler/a": "lora_a",
        "lora/pooler/b": "lora_b",
        "pooler/bias": "head",
    }
    assert (model.readout, model.config, model.name) == (base.readout, base.config, base.name)


def test_a_is_uniform_in_one_over_the_root_of_the_width_and_depends_on_seed_and_path_alone(base):
    def draws(model, targets, alpha, seed):
        attention = attach_lora(model, targets=targets, rank=512, alpha=alpha, seed=seed).params["lora"]["layers"][0]
        return {name: np.asarray(layer["a"]) for name, layer in attention["attention"].items()}

    draw, other_path = draws(base, "(query|key)/kernel$", 1, 0).values()
    single = replace(base, params=jax.tree.map(lambda leaf: leaf.astype(np.float32), base.params))
    np.testing.assert_array_equal(draw.astype(np.float32), draws(single, "key/kernel$", 7, 0)["key"])
    assert not np.allclose(draw, other_path, atol=0.1)
    assert not np.allclose(draw, draws(base, "key/kernel$", 1, 1)["key"], atol=0.1)
    # 4,096 numbers: the mean of x² has the standard error 2/√45 · bound²/√4096, that of x bound/√3/√4096.
    bound = 8**-0.5
    assert draw.shape == (8, 512)
    assert np.abs(draw).max() <= bound
    assert abs(np.mean(draw**2) - bound**2 / 3) < 5 * 2 / np.sqrt(45) * bound**2 / 64
    assert abs(np.mean(draw)) < 5 * bound / np.sqrt(3) / 64


@pytest.mark.parametrize("attributes", [OPT | {"word_embed_proj_dim": 6}, QWEN3, VIT], ids=["opt", "qwen3", "vit"])
def test_every_linear_layer_takes_an_adapter(attributes):
    base = base_of(attributes, linear(2, pool="mean", scale=1, seed=0) if attributes is VIT else next_token())
    model = moved(attached(base, "kernel$"))
    kernels = {path for path in leaf_paths(base.params) if path.endswith("/kernel")}
    layers = {path[:-2] + "/kernel" for path in leaf_paths(model.params["lora"]) if path.endswith("/a")}
    assert kernels - layers <= {"head/kernel", "lm_head/kernel"}
    inputs = {"pixel_values": np.ones((2, 2, 8, 8))} if attributes is VIT else INPUTS
    used = jax.tree.leaves(jax.jit(jax.grad(lambda params: jnp.sum(model.apply_fn(params, inputs) ** 2)))(model.params))
    assert all(np.any(leaf) for leaf in used)


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
        ({"rank": 0}, "attach_lora: rank is 0; it must be at least 1"),
        ({"alpha": -1.0}, "alpha is -1.0; it must be positive"),
        ({"seed": -1}, "seed is -1"),
        (
            {"targets": "query/bias"},
            "targets 'query/bias' matches none of 6 paths; the first is 'layers/0/attention/key",
        ),
        ({"targets": "^head/"}, "targets '\\^head/' matches none"),
        ({"targets": "("}, r"targets '\(' is no regular expression: missing \)"),
        ({"train": "nothing"}, "train 'nothing' matches none"),
    ],
)
def test_adapters_that_cannot_be_attached_are_refused(base, change, message):
    with pytest.raises(InputError, match=message):
        attach_lora(base, **{"targets": TARGETS, "rank": 2, "alpha": 3, "seed": 0} | change)


def test_what_needs_adapters_or_a_checkpoint_says_so(base, stored, tmp_path):
    model = attached(stored)
    with pytest.raises(InputError, match="attach_lora: this model has adapters already; give its base"):
        attached(model)
    with pytest.raises(InputError, match="load_lora: this model has adapters already"):
        load_lora(model, tmp_path)
    with pytest.raises(InputError, match="merge_lora: this model has no adapters"):
        merge_lora(base)
    with pytest.raises(InputError, match="export_lora: a random model has no names in torch"):
        export_lora(attached(base), tmp_path)
    with pytest.raises(InputError, match="load_lora: a random model"):
        load_lora(base, tmp_path)
    with pytest.raises(InputError, match="mlp_norm/bias is trained too"):
        export_lora(attached(stored, train="mlp_norm|^head/"), tmp_path / "adapter")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="exists and is not an empty directory"):
        export_lora(model, tmp_path)


def test_parameters_of_another_structure_are_refused(base):
    model = attached(base, "query/kernel$")
    for params, message in (
        (base.params, "with adapters: missing lora/layers/0/attention/query/a, .*, unknown embeddings"),
        ({"lora": {"layers": {"0": model.params["lora"]["layers"][0]}}}, "layers are keyed by integers"),
    ):
        with pytest.raises(InputError, match=message):
            model.apply_fn(params, INPUTS)
        with pytest.raises(InputError, match=message):
            merge_lora(model, params=params)


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
