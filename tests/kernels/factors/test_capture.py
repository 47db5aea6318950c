"""What is found where: kinds of sites and blocks of models written in every way that we know of."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkft._tree import leaf_paths
from ntkft.kernels.factors.capture import capture
from tests.cases import CASES

X = np.zeros((3, 4, 5))


def _found(apply_fn, params, inputs=X):
    """Leaf path → kinds of its sites, sorted."""
    program = capture(apply_fn, params, inputs)
    names = list(leaf_paths(params))
    found: dict[str, list[str]] = {name: [] for name in names}
    for site in program.sites:
        found[names[site.leaf]].append(site.kind)
    return {name: sorted(kinds) for name, kinds in found.items()}


@pytest.mark.parametrize("name", list(CASES))
def test_blocks_hold_every_site_once_and_never_an_element_twice(name):
    case = CASES[name]()
    program = capture(case.apply_fn, case.params, case.inputs)
    held = Counter(site for block in program.blocks for site in block.sites)
    assert set(held) == set(range(len(program.sites)))
    assert set(held.values()) <= {1}
    for leaf, array in enumerate(jax.tree.leaves(case.params)):
        assert sum(block.size for block in program.blocks if block.leaf == leaf) <= array.size


@pytest.mark.parametrize("name", ["mlp", "bert", "gpt2", "fused_decoder", "tied_decoder", "torch_layout"])
def test_ordinary_transformers_need_no_explicit_gradient(name):
    case = CASES[name]()
    kinds = {kind for found in _found(case.apply_fn, case.params, case.inputs).values() for kind in found}
    assert kinds <= {"matmul", "rows", "affine"}


def test_layers_of_a_scanned_leaf_are_blocks_of_their_own():
    params = {"stack": np.zeros((6, 5, 5))}

    def apply_fn(params, x):
        def layer(hidden, weight):
            return jnp.tanh(hidden @ weight), None

        return jax.lax.scan(layer, x, params["stack"])[0].sum(axis=1)

    program = capture(apply_fn, params, X)
    assert [site.kind for site in program.sites] == ["matmul"] * 6
    assert [block.sizes for block in program.blocks] == [(1, 5, 5)] * 6


def test_parts_of_a_fused_weight_are_blocks_and_uses_of_one_part_are_sites():
    params = {"qkv": np.zeros((5, 15))}

    def apply_fn(params, x):
        query, key, value = jnp.split(params["qkv"], 3, axis=1)
        return ((x @ query) * (x @ key) + jnp.tanh(x @ value) @ value.T).sum(axis=1)

    program = capture(apply_fn, params, X)
    assert sorted(len(block.sites) for block in program.blocks) == [1, 1, 2]
    assert [block.swapped for block in program.blocks if len(block.sites) == 2] == [(False, True)]


def test_uses_that_overlap_without_coinciding_make_a_leaf_explicit():
    def apply_fn(params, x):
        return (x @ params["w"] + x[..., :3] @ params["w"][1:4]).sum(axis=1)

    assert _found(apply_fn, {"w": np.zeros((5, 2))}) == {"w": ["explicit"]}


@pytest.mark.parametrize(
    "use",
    [
        lambda w, x: (x @ (w * w)).sum(axis=1),
        lambda w, x: (x @ (w / jnp.linalg.norm(w))).sum(axis=1),
        lambda w, x: (x @ jnp.concatenate([w, w], axis=1)).sum(axis=1),
        lambda w, x: jax.lax.cond(x.sum() > 0, lambda: x @ w, lambda: x @ w * 2).sum(axis=1),
    ],
    ids=["square", "normalised", "concatenated", "cond"],
)
def test_everything_else_is_explicit_and_never_refused(use):
    assert _found(lambda params, x: use(params["w"], x), {"w": np.ones((5, 2))}) == {"w": ["explicit"]}


def test_a_leaf_that_nothing_uses_has_no_site():
    assert _found(
        lambda params, x: (x @ params["used"]).sum(axis=1), {"used": np.ones((5, 2)), "idle": np.ones(3)}
    ) == {
        "used": ["matmul"],
        "idle": [],
    }


def test_a_dead_use_is_no_site():
    def apply_fn(params, x):
        _ = jnp.tanh(x @ params["w"])
        return (x @ params["w"]).sum(axis=1)

    assert _found(apply_fn, {"w": np.ones((5, 2))}) == {"w": ["matmul"]}
