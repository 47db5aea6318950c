import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft.trajectories import interpolate, total_variation
from tests.tolerances import CLOSED_FORM


@pytest.fixture(scope="module")
def pair():
    """Distributions over eleven tokens, `[5, 2, 11]` for either model."""
    return np.random.default_rng(0).dirichlet(np.full(11, 0.5), (2, 5, 2))


@pytest.mark.parametrize(("weights", "model"), [((0, 1), 1), ((1, 0), 0), ((0, 0.3), 1), ((0.2, 0), 0)])
def test_one_positive_weight_gives_that_model(pair, weights, model):
    found = interpolate(pair[0], pair[1], weights)
    np.testing.assert_allclose(found.probabilities, pair[model], rtol=CLOSED_FORM)
    np.testing.assert_allclose(found.normaliser, max(weights), rtol=CLOSED_FORM)
    assert not found.fell_back.any()


@pytest.mark.parametrize("weights", [(1, -1), (-1, 1)])
def test_the_difference_has_the_tokens_with_more_as_support_and_the_total_variation_as_mass(pair, weights):
    found = interpolate(pair[0], pair[1], weights)
    more = (pair[0] > pair[1]) == (weights[0] > 0)
    np.testing.assert_array_equal(found.probabilities > 0, more)
    np.testing.assert_allclose(found.normaliser, total_variation(*pair), rtol=CLOSED_FORM)
    np.testing.assert_allclose(found.probabilities.sum(axis=-1), 1, rtol=CLOSED_FORM)


@pytest.mark.parametrize("weights", [(0.5, 0.5), (1, -0.4), (-0.7, 0.9)])
def test_every_mixture_is_the_formula_normalised(pair, weights):
    mixed = np.maximum(weights[0] * pair[0] + weights[1] * pair[1], 0)
    expected = mixed / mixed.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(interpolate(pair[0], pair[1], weights).probabilities, expected, rtol=1e-9, atol=1e-15)


def test_total_variation_is_the_largest_difference_over_events():
    p, q = np.random.default_rng(1).dirichlet(np.ones(6), 2)
    events = (np.arange(2**6)[:, None] >> np.arange(6)[None]) & 1
    np.testing.assert_allclose(total_variation(p, q), np.max(events @ (p - q)))
    assert total_variation(p, p) == 0
    assert total_variation(np.array([1.0, 0]), np.array([0.0, 1])) == 1


@pytest.mark.parametrize("weights", [(-1, -0.5), (0, 0), (-1, 0)])
def test_without_a_positive_weight_the_large_model_is_taken_and_it_is_said(pair, weights):
    found = interpolate(pair[0], pair[1], weights)
    np.testing.assert_array_equal(found.probabilities, pair[1])
    assert found.fell_back.all()


def test_the_fall_back_is_told_row_by_row(pair):
    small = pair[0].copy()
    small[3, 1] = pair[1][3, 1]
    found = interpolate(small, pair[1], (1, -1))
    assert np.argwhere(found.fell_back).tolist() == [[3, 1]]
    np.testing.assert_array_equal(found.probabilities[3, 1], pair[1][3, 1])


def test_it_compiles_maps_and_keeps_its_dtype(pair):
    narrow = jnp.asarray(pair, jnp.float32)
    found = jax.jit(lambda small, large: interpolate(small, large, (1, -1)))(*narrow)
    mapped = jax.vmap(lambda small, large: interpolate(small, large, (1, -1)))(*narrow)
    np.testing.assert_allclose(found.probabilities, mapped.probabilities, rtol=1e-6)  # a few roundings of float32
    assert found.probabilities.dtype == jnp.float32


@pytest.mark.parametrize(
    ("shape", "weights", "message"),
    [
        ((5, 2, 11), (1.5, 0), r"weights are \(1.5, 0\); wanted λ₁, λ₂ between −1 and 1"),
        ((5, 2, 11), (np.nan, 0), r"weights are \(nan, 0\)"),
        ((2, 11), (1, -1), r"got distributions \[2, 11\] and \[5, 2, 11\]; wanted the same"),
    ],
)
def test_what_cannot_be_interpolated_is_refused(pair, shape, weights, message):
    with pytest.raises(InputError, match=message):
        interpolate(np.full(shape, 1 / 11), pair[1], weights)
