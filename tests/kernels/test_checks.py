"""Models and arguments that would give a wrong kernel are refused, each with its own sentence."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntkft
from ntkft import InputError
from ntkft.kernels import checks
from ntkft.kernels.checks import check_tile

X = np.random.default_rng(0).normal(size=(6, 3))
W = {"w": np.random.default_rng(1).normal(size=(3, 2))}


def _linear(params, x):
    return x @ params["w"]


def _kernel(apply_fn=_linear, params=W, x=X, x2=None, **options):
    chosen: dict[str, Any] = {"outputs": "trace"} | options
    return ntkft.empirical_ntk(apply_fn, params, x, x2, **chosen)


def test_a_model_that_draws_random_numbers_is_refused():
    keys = iter(jax.random.split(jax.random.key(0), 100))

    def dropout(params, x):
        noise = jax.pure_callback(
            lambda: np.asarray(jax.random.uniform(next(keys), (), jnp.float64)), jax.ShapeDtypeStruct((), jnp.float64)
        )
        return x @ params["w"] * noise

    with pytest.raises(InputError, match="two calls on the same inputs differ"):
        _kernel(dropout)


def test_a_model_whose_rows_depend_on_one_another_is_refused():
    def batch_norm(params, x):
        return (x - x.mean(axis=0, keepdims=True)) @ params["w"]

    with pytest.raises(InputError, match="row i must depend on example i only"):
        _kernel(batch_norm)
    with pytest.raises(InputError, match="row i must depend on example i only"):
        _kernel(batch_norm, x=X[:2])
    _kernel(batch_norm, check=False)


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_a_model_with_independent_rows_is_accepted(n):
    assert _kernel(x=X[:n]).total.shape == (n, n)


def test_non_finite_parameters_and_outputs_are_named():
    with pytest.raises(InputError, match="leaf 'w' holds 1 NaN"):
        _kernel(params={"w": np.where(np.arange(6).reshape(3, 2) == 4, np.nan, 1.0)})
    with pytest.raises(InputError, match=r"example 4 of x1 \(1 like it in this tile of 6 × 6\)"):
        _kernel(x=_spoilt(4))


def _spoilt(row: int) -> np.ndarray:
    """X with an example whose gradient is not finite."""
    bad = X.copy()
    bad[row] = np.inf
    return bad


def test_a_tile_that_is_not_finite_is_refused_with_its_examples():
    for tile, met in ((2, "2 × 2"), (4, "2 × 4")):  # the first tile that example 4 is in
        with pytest.raises(InputError, match=rf"example 4 of x1 \(1 like it in this tile of {met}\)"):
            _kernel(x=_spoilt(4), tile=tile)
    with pytest.raises(InputError, match="example 1 of the columns"):
        _kernel(x2=_spoilt(1))
    assert np.isnan(_kernel(x=_spoilt(4), check=False).total[4]).all()


def test_examples_that_are_only_bad_together_are_named_as_a_pair():
    with pytest.raises(InputError, match="the pair of examples 3 and 5"):
        check_tile(np.array([[1.0, np.inf], [0.0, 1.0]]), 3, 4)
    with pytest.raises(InputError, match="the pair of examples 3 and 1"):
        check_tile(np.array([[1.0, np.inf], [0.0, 1.0]]), 3, 0)
    with pytest.raises(InputError, match="the pair of examples 3 and 4"):
        check_tile(np.array([[1.0, np.inf], [0.0, 1.0]]), 3, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outputs": "diagonal"}, "wanted 'full', 'trace' or 'scalar'"),
        ({"outputs": "scalar"}, "wants a model with one output, this one has 2"),
        ({"method": "ghost"}, "got method='ghost'; wanted one of auto, factors"),
        ({"params": {"w": W["w"], "step": np.array(3)}}, "leaf 'step' is int64; wanted floating"),
        ({"apply_fn": lambda p, x: (x @ p["w"]).sum(axis=1)}, r"returned float64\[6\] for 6 examples"),
        ({"x": {"a": X, "b": X[:4]}, "apply_fn": lambda p, x: x["a"] @ p["w"]}, "leading axes differ"),
        ({"x": {}}, "pytree without arrays"),
        ({"groups": {"a": "w", "b": "^w"}}, "matches groups a, b; it must match one"),
        ({"groups": {"a": "w", "b": "bias"}}, "group 'b'.*matches no parameter"),
        ({"groups": {"a": "bias"}}, "2 problems"),
        ({"method": "neural_tangents:1", "store": "K.zarr"}, "keeps no store"),
    ],
)
def test_unusable_arguments_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        _kernel(**options)


@pytest.mark.parametrize("check", [checks.check_apply_fn, checks.check_outputs])
def test_what_a_model_closes_over_is_no_constant_of_the_program_that_checks_it(check, monkeypatch):
    table, arguments = jnp.ones((5, 7)), []
    compile_once = checks.compile_once

    def noted(function, given, **options):
        arguments.extend(jax.tree.leaves(given))
        return compile_once(function, given, **options)

    monkeypatch.setattr(checks, "compile_once", noted)
    check(lambda params, x: x @ table @ params, jnp.ones((7, 2)), np.ones((4, 5)))
    assert any(leaf is table for leaf in arguments)
