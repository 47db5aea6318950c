"""A user's own Flax modules: parameters are differentiated, everything else is held in evaluation mode."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from ntkft import InputError
from ntkft._tree import leaf_paths
from ntkft.models import from_linen, from_nnx

X = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)


class Nnx(nnx.Module):
    """Dense, batch normalisation, dropout, and a dense layer used twice."""

    def __init__(self, rngs: nnx.Rngs):
        self.layers = nnx.List([nnx.Linear(3, 4, rngs=rngs), nnx.Linear(4, 4, rngs=rngs)])
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        x = self.norm(self.layers[0](x))
        return self.layers[1](self.dropout(jnp.tanh(self.layers[1](x))))


class Linen(linen.Module):
    """Dense, batch normalisation and dropout, with the usual switch."""

    @linen.compact
    def __call__(self, x, *, train: bool):
        x = linen.BatchNorm(use_running_average=not train)(linen.Dense(4)(x))
        return linen.Dense(2)(linen.Dropout(0.5, deterministic=not train)(x))


@pytest.fixture
def nnx_module():
    """A module whose batch statistics have moved, left in training mode."""
    module = Nnx(nnx.Rngs(0))
    module(X)
    return module


def test_an_nnx_module_is_evaluated_with_fixed_statistics_and_without_dropout(nnx_module):
    apply_fn, params = from_nnx(nnx_module)
    expected = nnx.clone(nnx_module)
    expected.eval()
    for _ in range(2):
        np.testing.assert_allclose(jax.jit(apply_fn)(params, X), expected(X), atol=1e-6)
    np.testing.assert_allclose(apply_fn(params, X[2:3])[0], apply_fn(params, X)[2], atol=1e-6)


def test_an_nnx_module_stays_as_it_was(nnx_module):
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(nnx_module, nnx.BatchStat)))
    apply_fn, params = from_nnx(nnx_module)
    apply_fn(params, X)
    assert nnx_module.norm.use_running_average is False
    assert nnx_module.dropout.deterministic is False
    jax.tree.map(np.testing.assert_array_equal, nnx.to_pure_dict(nnx.state(nnx_module, nnx.BatchStat)), before)


def test_only_the_parameters_of_an_nnx_module_are_differentiated(nnx_module):
    apply_fn, params = from_nnx(nnx_module)
    dense = {f"layers/{layer}/{leaf}" for layer in (0, 1) for leaf in ("bias", "kernel")}
    assert set(leaf_paths(params)) == dense | {"norm/bias", "norm/scale"}
    gradients = jax.grad(lambda params: apply_fn(params, X).sum())(params)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients))


def test_parameters_of_another_structure_are_refused(nnx_module):
    apply_fn, params = from_nnx(nnx_module)
    renamed = {**params, "layers": {str(key): layer for key, layer in params["layers"].items()}}
    with pytest.raises(InputError, match=r"from_nnx: parameters have the structure .*, not "):
        apply_fn(renamed, X)


def test_an_nnx_module_without_parameters_is_refused():
    with pytest.raises(InputError, match=r"from_nnx: Dropout has no nnx.Param"):
        from_nnx(nnx.Dropout(0.5, rngs=nnx.Rngs(0)))


def test_a_linen_module_is_evaluated_with_fixed_collections():
    module = Linen()
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    variables = module.init(keys, X, train=True)
    _, moved = module.apply(variables, X, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(2)})
    variables = {**variables, **moved}
    apply_fn, params = from_linen(module, variables, train=False)
    expected = np.asarray(module.apply(variables, X, train=False))
    np.testing.assert_allclose(jax.jit(apply_fn)(params, X), expected, atol=1e-6)
    np.testing.assert_allclose(apply_fn(params, X[2:3])[0], apply_fn(params, X)[2], atol=1e-6)
    dense = {f"{layer}/{leaf}" for layer in ("Dense_0", "Dense_1") for leaf in ("bias", "kernel")}
    assert set(leaf_paths(params)) == dense | {"BatchNorm_0/bias", "BatchNorm_0/scale"}


def test_linen_variables_without_parameters_are_refused():
    with pytest.raises(InputError, match="from_linen: variables hold batch_stats; wanted a collection 'params'"):
        from_linen(Linen(), {"batch_stats": {}}, train=False)
