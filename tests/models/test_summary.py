"""What is said of a checkpoint before it is loaded is what it is once loaded."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntkft
from ntkft import InputError
from ntkft._tree import leaf_paths
from ntkft.kernels.estimate import estimate_cost
from ntkft.models import checkpoint, linear, load, random_model, read_config
from ntkft.models.loading import abstract_model
from ntkft.models.summary import summarize
from tests.models.tiny import BERT, GPT2, TINY, VIT, architecture_of, write_checkpoint

LINEAR = linear(1, pool="mean", scale=1, seed=0)


@pytest.mark.parametrize("attributes", TINY.values(), ids=TINY)
def test_every_parameter_is_counted_in_one_group_from_the_config_alone(tmp_path, attributes):
    (tmp_path / "config.json").write_text(json.dumps(attributes))
    summary = summarize(tmp_path)
    shapes = jax.tree.leaves(architecture_of(attributes))
    assert summary.total == sum(leaf.size for leaf in shapes)
    for dtype in ("float32", "bfloat16"):
        assert summary.bytes[dtype] == sum(np.empty(leaf.shape, jnp.dtype(dtype)).nbytes for leaf in shapes)
    assert summary.config == read_config(attributes)
    assert summary.model_type == attributes["model_type"]


@pytest.mark.parametrize("attributes", [BERT, VIT], ids=["bert", "vit"])
def test_an_abstract_model_has_the_shapes_of_the_real_one(attributes):
    abstract = abstract_model(read_config(attributes), readout=LINEAR, dtype="bfloat16")
    real = random_model(read_config(attributes), readout=LINEAR, seed=0, dtype="bfloat16")
    shapes, arrays = leaf_paths(abstract.params), leaf_paths(real.params)
    assert {path: (leaf.shape, leaf.dtype) for path, leaf in shapes.items()} == {
        path: (leaf.shape, leaf.dtype) for path, leaf in arrays.items()
    }
    assert abstract.groups == real.groups


def test_the_estimate_is_what_the_plan_of_the_kernel_says(tmp_path):
    summary = summarize(write_checkpoint(tmp_path, GPT2))
    model = random_model(summary.config, readout=LINEAR, seed=0)
    inputs = summary.inputs(6, 5)
    options = {"outputs": "scalar", "groups": 3}
    estimate = estimate_cost(model.apply_fn, model.params, inputs, **options)
    plan = ntkft.empirical_ntk(model.apply_fn, model.params, inputs, outputs="scalar", method="factors").plan
    cheapest = ntkft.empirical_ntk(model.apply_fn, model.params, inputs, outputs="scalar", method="factors:pairs").plan
    assert estimate.parameters == plan.parameters
    assert estimate.form_flops <= min(plan.flops, cheapest.flops)
    assert estimate.kernel_bytes == 4 * 36 * 4
    assert estimate.gradients_bytes == 6 * plan.parameters * 4
    # Forward: 2 operations a token and weight of the blocks and the head's row on each of 6 × 5 tokens or 6 examples.
    blocks = sum(leaf.size for path, leaf in leaf_paths(model.params).items() if path.endswith("/kernel"))
    head = model.params["head"]["kernel"].size
    assert estimate.sweep_flops == 3 * (2 * 30 * (blocks - head) + 2 * 6 * head)
    twice = estimate_cost(model.apply_fn, model.params, summary.inputs(12, 5), **options)
    assert twice.sweep_flops == 2 * estimate.sweep_flops
    assert twice.kernel_bytes == 4 * estimate.kernel_bytes


def test_of_a_hub_id_only_the_config_is_fetched(tmp_path, monkeypatch):
    asked = []

    def fetch(repository, file, revision, token):
        asked.append((repository, file, revision, token))
        (tmp_path / file).write_text(json.dumps(BERT))
        return str(tmp_path / file)

    monkeypatch.setattr(checkpoint.huggingface_hub, "hf_hub_download", fetch)
    assert summarize("owner/name", revision="v1", token="secret").config == read_config(BERT)
    assert asked == [("owner/name", "config.json", "v1", "secret")]


def test_a_directory_without_a_config_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"config\.json is missing"):
        summarize(tmp_path)


def test_a_model_that_is_loaded_has_the_groups_of_the_summary(tmp_path):
    model = load(write_checkpoint(tmp_path, BERT), readout=LINEAR)
    assert set(model.groups) <= set(summarize(tmp_path).parameters)
