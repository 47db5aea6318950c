"""The model record: a pure function under every JAX transformation, groups that partition, inputs that are checked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from ntkft import InputError
from ntkft._tree import assign_groups, leaf_paths
from ntkft.models import GROUPS, linear, load, next_token, random_model, read_config
from tests.models.tiny import BERT, GPT2, batch, outputs_of, write_checkpoint

UNTIED = GPT2 | {"tie_word_embeddings": False}
LINEAR = linear(2, pool="mean", scale=1, seed=0)
BLOCKS = {"q", "k", "v", "o", "mlp", "norm", "bias", "embedding"}


@pytest.fixture(scope="module")
def model():
    return random_model(read_config(BERT | {"num_hidden_layers": 1}), readout=LINEAR, seed=0)


@pytest.mark.parametrize(
    ("attributes", "readout", "groups"),
    [
        (BERT, LINEAR, BLOCKS | {"head"}),
        (BERT, next_token(), BLOCKS | {"head"}),
        (BERT, linear(2, pool="pooler", scale=1, seed=0, bias=True), BLOCKS | {"head"}),
        (GPT2, next_token(), BLOCKS),
        (UNTIED, next_token(), BLOCKS | {"head"}),
    ],
)
def test_groups_are_a_partition(attributes, readout, groups):
    model = random_model(read_config(attributes), readout=readout, seed=0)
    assigned = assign_groups(model.params, model.groups)
    assert set(assigned.values()) == set(model.groups) == groups
    assert model.groups.items() <= GROUPS.items()


def test_groups_hold_what_they_are_named_after():
    model = random_model(
        read_config(BERT | {"num_hidden_layers": 1}), readout=linear(2, pool="pooler", scale=1, seed=0), seed=0
    )
    names: dict[str, list[str]] = {}
    for path, group in assign_groups(model.params, model.groups).items():
        names.setdefault(group, []).append(path)
    layer = "layers/0"
    assert names == {
        "q": [f"{layer}/attention/query/kernel"],
        "k": [f"{layer}/attention/key/kernel"],
        "v": [f"{layer}/attention/value/kernel"],
        "o": [f"{layer}/attention/output/kernel"],
        "mlp": [f"{layer}/mlp/down/kernel", f"{layer}/mlp/up/kernel"],
        "norm": [
            "embeddings/norm/bias",
            "embeddings/norm/scale",
            f"{layer}/attention_norm/bias",
            f"{layer}/attention_norm/scale",
            f"{layer}/mlp_norm/bias",
            f"{layer}/mlp_norm/scale",
        ],
        "bias": [
            *(f"{layer}/attention/{part}/bias" for part in ("key", "output", "query", "value")),
            *(f"{layer}/mlp/{part}/bias" for part in ("down", "up")),
        ],
        "embedding": [f"embeddings/{table}" for table in ("position", "token", "token_type")],
        "head": ["head/kernel", "pooler/bias", "pooler/kernel"],
    }


def test_every_transformation_gives_the_rows_of_a_plain_call(model):
    inputs = batch((5, 2, 4), vocab_size=13)
    plain = np.asarray(model.apply_fn(model.params, inputs))  # without jit
    on_device = jax.tree.map(jnp.asarray, inputs)

    def one(params, example):
        return model.apply_fn(params, jax.tree.map(lambda array: array[None], example))[0]

    rows = {
        "jit": jax.jit(model.apply_fn)(model.params, on_device),
        "vmap": jax.jit(jax.vmap(one, (None, 0)))(model.params, on_device),
        "alone": jnp.stack(
            [jax.jit(one)(model.params, {name: array[row] for name, array in inputs.items()}) for row in range(3)]
        ),
        "jvp": jax.jit(lambda params: jax.jvp(lambda params: model.apply_fn(params, inputs), (params,), (params,))[0])(
            model.params
        ),
    }
    for outputs in rows.values():
        np.testing.assert_allclose(outputs, plain, atol=1e-6)
    gradient = jax.grad(lambda params, example: one(params, example)[0])
    gradients = jax.jit(jax.vmap(gradient, (None, 0)))(model.params, on_device)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(gradients)} == {3}


def test_parameters_of_another_structure_are_refused_instead_of_exchanged():
    twelve = random_model(read_config(GPT2 | {"n_layer": 12}), readout=LINEAR, seed=0)
    inputs = batch((3,), vocab_size=13)
    params = twelve.params
    with pytest.raises(InputError, match="layers are keyed by integers"):
        twelve.apply_fn({**params, "layers": {str(key): layer for key, layer in params["layers"].items()}}, inputs)
    with pytest.raises(
        InputError, match="parameters of random: missing head/kernel, unknown extra; keep the structure"
    ):
        twelve.apply_fn({key: tree for key, tree in params.items() if key != "head"} | {"extra": jnp.ones(1)}, inputs)


def test_random_weights_depend_on_the_seed_and_not_on_the_dtype(model):
    wide = random_model(model.config, readout=LINEAR, seed=0, dtype="float64")
    other = random_model(model.config, readout=LINEAR, seed=np.int64(1))
    jax.tree.map(np.testing.assert_array_equal, wide.params["layers"], model.params["layers"])
    assert {leaf.dtype for leaf in jax.tree.leaves(wide.params)} == {np.dtype(np.float64)}
    assert not np.allclose(other.params["embeddings"]["token"], model.params["embeddings"]["token"])


def test_the_dtype_of_the_parameters_is_that_of_the_outputs():
    inputs = batch((3,), vocab_size=13)
    for dtype in ("float32", "float64", "bfloat16"):
        model = random_model(read_config(GPT2 | {"n_layer": 1}), readout=LINEAR, seed=0, dtype=dtype)
        assert outputs_of(model, inputs).dtype == dtype


def test_a_dtype_that_cannot_be_used_is_refused(tmp_path):
    write_checkpoint(tmp_path, BERT)
    with pytest.raises(InputError, match="dtype: got int32; choose one of float32, float64, bfloat16, float16"):
        load(tmp_path, readout=LINEAR, dtype=jnp.int32)
    with jax.enable_x64(False), pytest.raises(InputError, match="dtype: float64 needs"):
        load(tmp_path, readout=LINEAR, dtype=np.float64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: {"input_ids": x["input_ids"]}, "inputs: attention_mask is missing"),
        (lambda x: {**x, "labels": x["input_ids"]}, "labels is unknown; give input_ids, attention_mask and if need be"),
        (
            lambda x: {**x, "attention_mask": x["attention_mask"][:, 1:]},
            r"got shapes .*attention_mask \(2, 3\).*; all must be the same \[examples, tokens\]",
        ),
        (lambda x: {name: array[0] for name, array in x.items()}, "all must be the same"),
        (
            lambda x: {name: np.tile(array, 5) for name, array in x.items()},
            "have 20 tokens, the model 16 positions; truncate",
        ),
    ],
)
def test_inputs_of_another_layout_are_refused(model, change, message):
    with pytest.raises(InputError, match=message):
        model.apply_fn(model.params, change(batch((4, 2), vocab_size=13)))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("input_ids", 13, "1 of 2 examples have input_ids outside 0..12: rows 1"),
        ("input_ids", -1, "input_ids outside 0..12"),
        ("attention_mask", 2, "attention_mask values other than 0 and 1: rows 1"),
        ("token_type_ids", 2, "token_type_ids outside 0..1: rows 1"),
    ],
)
def test_examples_with_values_that_cannot_be_used_are_named(model, name, value, message):
    inputs = batch((4, 2), vocab_size=13)
    model.check_inputs(inputs)
    inputs[name][1, 1] = value
    with pytest.raises(InputError, match=message):
        model.check_inputs(inputs)


def test_an_example_without_a_real_token_is_named(model):
    inputs = {name: array * 0 for name, array in batch((4,) * 7, vocab_size=13).items()}
    with pytest.raises(InputError, match=r"7 of 7 examples have no real token .*: rows 0, 1, 2, 3, 4, …"):
        model.check_inputs(inputs)


def test_parameters_go_straight_onto_a_mesh(tmp_path):
    directory = write_checkpoint(tmp_path, GPT2)
    mesh = jax.make_mesh((4,), ("devices",))
    split, whole = NamedSharding(mesh, PartitionSpec("devices")), NamedSharding(mesh, PartitionSpec())

    def sharding(path, shape):
        return split if path.endswith("/kernel") and shape[0] % 4 == 0 else whole

    plain, spread = load(directory, readout=LINEAR), load(directory, readout=LINEAR, sharding=sharding)
    for path, leaf in leaf_paths(spread.params).items():
        assert leaf.sharding == sharding(path, leaf.shape), path
    jax.tree.map(np.testing.assert_array_equal, plain.params, spread.params)
    everywhere = load(directory, readout=LINEAR, sharding=whole)
    assert {leaf.sharding for leaf in jax.tree.leaves(everywhere.params)} == {whole}
    inputs = batch((3, 5), vocab_size=13)
    np.testing.assert_allclose(outputs_of(spread, inputs), outputs_of(plain, inputs), atol=1e-6)
