"""What goes back to Hugging Face is what came, but for the parameters that changed."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from ntkft import InputError
from ntkft._tree import leaf_paths
from ntkft.models import export, linear, load, next_token, random_model, read_config, write_checkpoint
from ntkft.models.export import HEAD
from tests.models.tiny import BERT, GPT2, TINY, random_tensors, tokenizer_of, write_checkpoint as write_tiny

LINEAR = linear(2, pool="mean", scale=1, seed=0)


def shards(directory):
    return {name: array for path in directory.glob("model*.safetensors") for name, array in load_file(path).items()}


@pytest.mark.parametrize("attributes", TINY.values(), ids=TINY)
def test_loading_and_exporting_changes_no_tensor_and_no_other_file(tmp_path, attributes):
    came = write_tiny(tmp_path / "came", attributes)
    (came / "special_tokens_map.json").write_text("{}")
    went = export(load(came, readout=LINEAR), tmp_path / "went")
    before, after = shards(came), shards(went)
    assert before.keys() == after.keys()
    jax.tree.map(np.testing.assert_array_equal, before, after)
    assert {name: array.dtype for name, array in before.items()} == {name: array.dtype for name, array in after.items()}
    for name in {path.name for path in came.iterdir()} - {"model.safetensors"}:
        assert (came / name).read_bytes() == (went / name).read_bytes()
    assert not list(tmp_path.glob("*.new"))


def test_names_keep_their_prefix_and_a_tied_copy_follows_its_original(tmp_path):
    tensors = {f"transformer.{name}": tensor for name, tensor in random_tensors(GPT2).items()}
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"]
    model = load(write_tiny(tmp_path / "came", GPT2, tensors), readout=next_token())
    moved = jax.tree.map(lambda leaf: leaf + 1, model.params)
    after = shards(export(model, tmp_path / "went", params=moved))
    assert after.keys() == tensors.keys()
    for name, tensor in tensors.items():
        changed = tensor if name == "transformer.score.weight" else tensor + 1
        np.testing.assert_array_equal(after[name], changed)


def test_shards_hold_every_tensor_once_and_load_again(tmp_path):
    model = load(write_tiny(tmp_path / "came", BERT), readout=LINEAR)
    went = export(model, tmp_path / "went", shard_size=1000)
    files = sorted(path.name for path in went.glob("model-*"))
    assert len(files) > 3
    assert files[0].startswith("model-00001-of-0")
    listed = json.loads((went / "model.safetensors.index.json").read_text())["weight_map"]
    assert listed.keys() == random_tensors(BERT).keys()
    jax.tree.map(np.testing.assert_array_equal, load(went, readout=LINEAR).params, model.params)


def test_a_fresh_head_has_a_file_of_its_own(tmp_path):
    model = load(write_tiny(tmp_path / "came", BERT), readout=LINEAR, dtype="bfloat16")
    went = export(model, tmp_path / "went")
    head = load_file(went / HEAD)
    np.testing.assert_array_equal(head["head/kernel"], model.params["head"]["kernel"])
    assert shards(went)["pooler.dense.weight"].dtype == np.float32  # not used by the readout, so as it was
    assert shards(went)["embeddings.word_embeddings.weight"].dtype == jnp.bfloat16


@pytest.mark.parametrize("attributes", TINY.values(), ids=TINY)
def test_a_model_from_scratch_is_written_and_loads_again(tmp_path, attributes):
    model = random_model(read_config(attributes), readout=LINEAR, seed=0)
    backbone = {name: part for name, part in model.params.items() if name != "head"}
    tokenizer = tokenizer_of(attributes) if "vocab_size" in attributes else None
    again = load(write_checkpoint(tmp_path / "new", attributes, backbone, tokenizer), readout=LINEAR)
    assert leaf_paths(again.params).keys() == leaf_paths(model.params).keys()
    jax.tree.map(np.testing.assert_array_equal, again.params, model.params)


def test_what_cannot_be_exported_is_refused(tmp_path):
    model = load(write_tiny(tmp_path / "came", BERT), readout=LINEAR)
    with pytest.raises(InputError, match="a random model has no checkpoint"):
        export(random_model(read_config(BERT), readout=LINEAR, seed=0), tmp_path / "went")
    with pytest.raises(
        InputError, match=r"2 leaves are not those of the model: extra \(\(2,\), wanted none\), head/ker"
    ):
        export(model, tmp_path / "went", params=model.params | {"head": {"kernel": np.zeros(3)}, "extra": np.zeros(2)})
    with pytest.raises(InputError, match="came exists and is not an empty directory"):
        export(model, tmp_path / "came")
    params = {"pooler": np.zeros(1), "embeddings": {"token_type": np.zeros(1)}}
    with pytest.raises(InputError, match="model_type 'gpt2' has no embeddings/token_type, pooler"):
        write_checkpoint(tmp_path / "went", GPT2, params, None)
    assert not (tmp_path / "went").exists()
