"""The linearised model against other definitions of the derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft.finetuning import finetune, optimizers
from ntkft.linearize import lazy, linearize
from tests.finetuning.tiny import attention, attention_params, linear, sentences
from tests.tolerances import CLOSED_FORM


def test_the_expansion_is_the_value_plus_the_explicit_jacobian_times_the_change():
    params, other, inputs = attention_params(0), attention_params(1), sentences(2, n=3)
    change = jax.tree.map(jnp.subtract, other, params)
    jacobian = jax.jacrev(attention)(params, inputs)
    products = jax.tree.map(lambda j, d: np.tensordot(j, d, axes=d.ndim), jacobian, change)
    expected = attention(params, inputs) + sum(jax.tree.leaves(products))
    np.testing.assert_allclose(linearize(attention, params)(other, inputs), expected, rtol=0, atol=CLOSED_FORM)


def test_the_expansion_agrees_with_central_differences():
    params, other, inputs = attention_params(0), attention_params(1), sentences(2, n=3)
    h = 1e-5
    ahead, behind = (
        attention(jax.tree.map(lambda a, b, s=sign: a + s * h * (b - a), params, other), inputs) for sign in (1, -1)
    )
    expected = attention(params, inputs) + (ahead - behind) / (2 * h)
    np.testing.assert_allclose(linearize(attention, params)(other, inputs), expected, rtol=0, atol=1e-7)


def test_the_error_of_the_expansion_is_of_second_order():
    params, other, inputs = attention_params(0), attention_params(1), sentences(2, n=3)
    linear = linearize(attention, params)

    def error(h):
        near = jax.tree.map(lambda a, b: a + h * (b - a), params, other)
        return float(jnp.abs(attention(near, inputs) - linear(near, inputs)).max())

    assert error(0.0) == 0.0
    assert error(2e-3) / error(1e-3) == pytest.approx(4, rel=0.02)


def test_the_expansion_of_a_linear_model_is_the_model():
    rng = np.random.default_rng(0)
    x, params, other = rng.normal(size=(5, 3)), {"w": rng.normal(size=(3, 2))}, {"w": rng.normal(size=(3, 2))}

    np.testing.assert_allclose(linearize(linear, params)(other, x), x @ other["w"], rtol=0, atol=1e-13)


def test_the_expansion_has_one_jacobian_everywhere():
    params, other, inputs = attention_params(0), attention_params(1), sentences(2, n=3)
    expected = jax.jacrev(attention)(params, inputs)
    jacobian = jax.jacrev(linearize(attention, params))(other, inputs)
    for name in params:
        np.testing.assert_allclose(jacobian[name], expected[name], rtol=0, atol=CLOSED_FORM)


def test_parameters_of_other_shapes_are_refused_together():
    linear = linearize(attention, attention_params(0))
    other = attention_params(0) | {"head": jnp.ones((1, 2)), "extra": jnp.ones(3)}
    with pytest.raises(
        InputError, match=r"2 problems(.|\n)*'head' is \[1, 2\] but \[4, 2\](.|\n)*'extra' is \[3\] but missing"
    ):
        linear(other, sentences(0, n=2))


def test_the_lazy_model_is_the_model_at_the_start_and_its_change_scaled_away_from_it():
    params, other, inputs = attention_params(0), attention_params(1), sentences(2, n=3)
    start, moved = attention(params, inputs), attention(other, inputs)
    np.testing.assert_allclose(lazy(attention, params, 1)(other, inputs), moved, rtol=0, atol=CLOSED_FORM)
    three = lazy(attention, params, 3.0)
    np.testing.assert_allclose(three(params, inputs), start, rtol=0, atol=CLOSED_FORM)
    np.testing.assert_allclose(three(other, inputs), start + 3 * (moved - start), rtol=0, atol=CLOSED_FORM)
    for scale in (0, -1, np.inf):
        with pytest.raises(InputError, match="wanted a positive number, 1 for the model as it is"):
            lazy(attention, params, scale)


def test_the_larger_the_scale_the_nearer_is_training_to_the_linearised_one():
    """With steps of ε/α² the distance to the linearised model's outputs falls as 1/α."""
    params, inputs = attention_params(0), sentences(1, n=5)
    targets = np.random.default_rng(0).standard_normal((5, 2))

    def trained(model, step):
        run = finetune(
            model, params, (inputs, targets), loss="squared", optimizer=optimizers.gradient_descent(step), epochs=20,
            batch_size=None, record_at=[20], evaluate={"train": (inputs, targets)}, keep_predictions={"train"},
        )  # fmt: skip
        return np.asarray(run.curves["train"].predictions)[-1]

    limit = trained(linearize(attention, params), 0.02)
    errors = [np.abs(trained(lazy(attention, params, a), 0.02 / a**2) - limit).max() for a in (1, 8, 16, 32)]
    assert errors[0] > 0.02
    np.testing.assert_allclose(np.log2(np.array(errors[1:-1]) / errors[2:]), 1, atol=0.15)
