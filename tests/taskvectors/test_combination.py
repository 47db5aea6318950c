import numpy as np
import pytest

import ntkft
from ntkft._errors import InputError
from ntkft.batched import compile_outputs, compile_pullback
from ntkft.linearize import linearize
from ntkft.taskvectors import (
    addition,
    choose_coefficients,
    disentanglement_error,
    kernel_combination,
    negation,
    weight_combination,
)
from tests.finetuning.tiny import attention, attention_params, sentences

N, M = 5, 6


@pytest.fixture(scope="module")
def predicted_and_real():
    """Two tasks with random dual coefficients: the kernel's combination, and the linearised model's own."""
    params, generator = attention_params(0), np.random.default_rng(1)
    train = {name: sentences(seed, N) for seed, name in enumerate("ab")}
    test = {name: sentences(seed + 5, M) for seed, name in enumerate("ab")}
    duals = {name: 0.1 * generator.standard_normal((N, 2)) for name in "ab"}
    kernels = {
        (at, of): np.asarray(
            ntkft.empirical_ntk(attention, params, test[at], train[of], outputs="full", method="jacobian").total
        )
        for at in "ab"
        for of in "ab"
    }
    outputs = compile_outputs(linearize(attention, params), 4)
    pretrained = {name: np.asarray(outputs(params, test[name]), np.float64) for name in "ab"}
    pullback = compile_pullback(attention, 4)
    vectors = {name: pullback(params, train[name], duals[name]) for name in "ab"}
    real = weight_combination(outputs, params, vectors, test)
    return kernel_combination(kernels, duals, pretrained), real, kernels, duals, pretrained


@pytest.mark.parametrize("coefficients", [{}, {"a": 1.0}, {"a": 0.4, "b": -1.3}])
def test_kernels_predict_the_linearised_model_with_any_coefficients(predicted_and_real, coefficients):
    predicted, real, *_ = predicted_and_real
    expected, found = real(coefficients), predicted(coefficients)
    for name in "ab":
        np.testing.assert_allclose(found[name], expected[name], atol=1e-10)
    if coefficients:
        assert np.abs(found["b"] - predicted({})["b"]).max() > 1e-3


def test_what_negation_does_is_linear_in_the_linear_model(predicted_and_real):
    y = {name: np.random.default_rng(2).standard_normal((M, 2)) for name in "ab"}
    for combination in predicted_and_real[:2]:
        found = negation(combination, y, "a", 0.7)
        assert found.gap == pytest.approx(found.linear_gap, rel=1e-9)
        moved = combination({"a": 0.7})["a"] - combination({})["a"]
        residual = y["a"] - combination({})["a"]
        assert found.linear_gap == pytest.approx(4 * np.mean(np.sum(residual * moved, axis=1)))
        assert found.finetuned == pytest.approx(np.mean(np.sum((residual - moved) ** 2, axis=1)))
        assert found.negated == pytest.approx(np.mean(np.sum((residual + moved) ** 2, axis=1)))
        assert found.pretrained == pytest.approx(np.mean(np.sum(residual**2, axis=1)))


def _signs(single, together):
    """A combination of two tasks by a table: outputs with one vector, and with both."""

    def outputs(coefficients):
        table = single if len(coefficients) == 1 else together
        return {name: np.asarray(table[name], float)[:, None] for name in "ab"}

    return outputs


def test_addition_compares_all_vectors_with_each_alone():
    combination = _signs({"a": [1, 1, -1, 1], "b": [-1, -1, -1, 1]}, {"a": [1, -1, -1, -1], "b": [-1, -1, -1, -1]})
    y = {"a": np.array([[1.0], [1.0], [-1.0], [1.0]]), "b": np.array([[-1.0], [-1.0], [-1.0], [-1.0]])}
    found = addition(combination, y, {"a": 1.0, "b": 1.0})
    assert found.single == {"a": 1.0, "b": 0.75}
    assert found.multi == {"a": 0.5, "b": 1.0}
    assert found.normalised == {"a": 0.5, "b": pytest.approx(4 / 3)}
    assert disentanglement_error(combination, {"a": 1.0, "b": 1.0}) == 0.5 + 0.25
    with pytest.raises(InputError, match="no coefficient for 'b'"):
        addition(combination, y, {"a": 1.0})
    with pytest.raises(InputError, match="accuracy of 'a': targets are no classes"):
        addition(combination, y | {"a": y["a"] * 2}, {"a": 1.0, "b": 1.0})


def test_tasks_that_share_nothing_do_not_notice_each_other():
    eye = np.eye(N)
    kernels = {(at, of): eye * (at == of) for at in "ab" for of in "ab"}
    duals = {name: np.random.default_rng(3).standard_normal((N, 1)) for name in "ab"}
    alone = kernel_combination(kernels, duals, {name: np.full((N, 1), 0.1) for name in "ab"})
    assert disentanglement_error(alone, {"a": 1.0, "b": 1.0}) == 0
    coupled = kernel_combination(kernels | {("a", "b"): -9 * eye}, duals, {name: np.full((N, 1), 0.1) for name in "ab"})
    assert disentanglement_error(coupled, {"a": 1.0, "b": 1.0}) > 0


def test_the_best_coefficients_are_found_on_the_grid_and_the_smallest_of_equals():
    # Task a is right from 0.5 on, task b up to 0.75 of a's coefficient.
    def outputs(coefficients):
        a, b = coefficients.get("a", 0.0), coefficients.get("b", 0.0)
        return {"a": np.array([[a - 0.4]]), "b": np.array([[0.8 - a + b / 10]])}

    y = {name: np.ones((1, 1)) for name in "ab"}
    grid = np.linspace(0, 1, 5).tolist()
    assert choose_coefficients(outputs, y, grid, shared=True) == {"a": 0.5, "b": 0.5}
    assert choose_coefficients(outputs, y, grid, shared=False) == {"a": 0.5, "b": 0.0}


def test_what_does_not_fit_together_is_named(predicted_and_real):
    predicted, real, kernels, duals, pretrained = predicted_and_real
    for combination in (predicted, real):
        with pytest.raises(InputError, match="coefficient for 'c', which has no vector; there are 'a', 'b'"):
            combination({"c": 1.0})
    broken = {pair: block for pair, block in kernels.items() if pair != ("a", "b")}
    broken["b", "a"] = kernels["b", "a"][:4]
    with pytest.raises(InputError) as caught:
        kernel_combination(broken, duals, pretrained)
    assert "no kernel of the examples of 'a' with the training examples of 'b'" in str(caught.value)
    assert "the kernel of 'b' with 'a' is [4, 2, 5, 2]; wanted [6, 2, 5, 2]" in str(caught.value)
