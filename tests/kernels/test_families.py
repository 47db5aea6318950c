"""The kernel of every family: exact in float64, within rounding in float32, no matrix differentiated explicitly."""

import jax
import numpy as np
import pytest

import ntkft
from ntkft._tree import leaf_paths
from ntkft.kernels.factors.capture import capture
from ntkft.models import linear, random_model, read_config
from tests.models.tiny import TINY, batch
from tests.references import contract, flat_jacobian
from tests.tolerances import KERNEL_F32, KERNEL_F64, kernel_error

FIRST_SIX = ("bert", "gpt2")  # on which test_agreement tries everything


@pytest.mark.parametrize("model_type", [name for name in TINY if name not in FIRST_SIX])
def test_factors_equal_the_flat_jacobian_for_every_group(model_type):
    readout = linear(2, pool="mean" if model_type == "roberta" else "last", scale=1.0, seed=0)
    model = random_model(read_config(TINY[model_type]), readout=readout, seed=0, dtype="float64")
    if model_type == "vit":
        inputs = {"pixel_values": np.random.default_rng(0).standard_normal((4, 2, 8, 8))}
    else:
        inputs = {name: ids for name, ids in batch((5, 3, 7, 2), vocab_size=13).items() if name != "token_type_ids"}
    program, paths = capture(model.apply_fn, model.params, inputs), list(leaf_paths(model.params))
    explicit = {paths[site.leaf] for site in program.sites if site.kind == "explicit"}
    # A table that is used as a whole is its own gradient.
    assert explicit <= {"embeddings/first", "embeddings/position"}

    jacobian = flat_jacobian(model.apply_fn, model.params, inputs)
    expected = contract(jacobian, jacobian, "full")
    kernel = ntkft.empirical_ntk(
        model.apply_fn, model.params, inputs, outputs="full", groups=model.groups, method="factors"
    )
    assert kernel_error(kernel.total, expected) <= KERNEL_F64
    assert kernel_error(sum(kernel.groups.values()), expected) <= KERNEL_F64
    low, rows = jax.tree.map(
        lambda leaf: leaf.astype(np.float32) if leaf.dtype == np.float64 else leaf, (model.params, inputs)
    )
    kernel = ntkft.empirical_ntk(model.apply_fn, low, rows, outputs="full", check=False)
    assert kernel_error(kernel.total, expected) <= KERNEL_F32
