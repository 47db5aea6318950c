"""Adapters: their function, their kernel against dense Jacobians of the base model, and PEFT's files."""

from dataclasses import replace
from itertools import chain

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

import ntkft
from ntkft import InputError
from ntkft._tree import assign_groups, leaf_paths
from ntkft.models import (
    attach_lora,
    export_lora,
    linear,
    load_lora,
    merge_lora,
    next_token,
)
from tests.models.adapted import INPUTS, ONE_LAYER, SCALE, TARGETS, attached, base_of, moved
from tests.models.tiny import (
    GPT2,
    OPT,
    QWEN3,
    VIT,
    outputs_of,
)
from tests.tolerances import KERNEL_F64, PARITY, kernel_error


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
