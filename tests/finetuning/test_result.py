"""What a run reports: metrics, curves, drift, progress and status."""

import jax
import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft.finetuning import gradient_descent
from ntkft.finetuning.losses import measure
from tests.finetuning.tiny import (
    attention,
    attention_case,
    descend,
    flat,
    flat_jacobian,
    linear,
    linear_case,
    sentences,
)
from tests.tolerances import CLOSED_FORM


def test_curves_measure_the_model_at_the_recorded_epochs():
    params, x, y = linear_case(0, k=2)
    other_x, other_y = linear_case(1, n=5, k=2)[1:]
    result = descend(
        linear,
        params,
        (x, y),
        gradient_descent(0.2),
        6,
        record_at=[4, 1],
        evaluate={"train": (x, y), "test": (other_x, other_y)},
        keep_predictions=["test"],
        micro_batch=3,
    )
    weights = [params["w"]]
    for _ in range(6):
        weights.append(weights[-1] - 0.2 / 8 * x.T @ (x @ weights[-1] - y))
    test = result.curves["test"]
    assert result.epochs.tolist() == test.epochs.tolist() == [0, 1, 4, 6]
    assert test.predictions is not None
    for row, epoch in enumerate(test.epochs):
        f = other_x @ weights[epoch]
        np.testing.assert_allclose(test.predictions[row], f, rtol=0, atol=1e-13)
        assert test.mse is not None
        assert test.mse[row] == pytest.approx(np.mean(np.sum((other_y - f) ** 2, axis=1)), rel=1e-13)
        assert test.loss[row] == pytest.approx(test.mse[row] / 2, rel=1e-13)
    assert test.accuracy is None
    assert result.curves["train"].predictions is None


def test_the_training_loss_of_every_epoch_comes_without_evaluating():
    params, inputs, targets = attention_case(0)
    result = descend(
        attention,
        params,
        (inputs, targets),
        gradient_descent(0.05),
        6,
        record_at=range(7),
        evaluate={"train": (inputs, targets)},
        micro_batch=3,
    )
    np.testing.assert_allclose(result.training_loss, result.curves["train"].loss[:6], rtol=0, atol=1e-13)
    assert result.training_loss[5] < result.training_loss[0]


@pytest.mark.parametrize(
    ("outputs", "targets", "expected"),
    [
        ([[0.3], [-2.0], [0.1]], [[1.0], [-1.0], [-1.0]], 2 / 3),  # signs
        ([[1.0, 0.0], [0.2, 0.1], [0.0, 5.0]], [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], 2 / 3),  # one-hot
        ([[1.0, 0.0], [0.2, 0.1], [0.0, 5.0]], [[0.5, -0.5], [-0.5, 0.5], [-0.5, 0.5]], 2 / 3),  # centred one-hot
        ([[1.0, 0.0], [0.2, 0.1], [0.0, 5.0]], [[0.5, -0.5], [-0.4, 0.5], [-0.5, 0.5]], None),  # numbers
        ([[0.3], [-2.0], [0.1]], [[1.0], [-1.0], [-0.5]], None),
    ],
)
def test_accuracy_counts_right_classes_where_the_targets_are_classes(outputs, targets, expected):
    assert measure(np.array(outputs), np.array(targets), "squared").get("accuracy") == expected


def test_classes_have_cross_entropy_and_accuracy_and_no_squared_error():
    logits, classes = np.array([[0.0, 1.0, 2.0], [3.0, 0.0, 0.0]]), np.array([0, 0])
    measured = measure(logits, classes, "cross_entropy")
    expected = np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[:, 0])
    assert measured["loss"] == pytest.approx(expected, rel=1e-14)
    assert measured["accuracy"] == 0.5
    assert "mse" not in measured


def test_the_best_epoch_is_the_first_minimum_of_the_validation_loss():
    # Descent from the truth towards noisy training targets can only get worse on clean data.
    params, x, y = linear_case(0)
    validation = (np.eye(3), params["w"])
    result = descend(
        linear,
        params,
        (x, y),
        gradient_descent(0.1),
        4,
        record_at=range(5),
        evaluate={"train": (x, y), "validation": validation},
    )
    assert result.curves["validation"].best_epoch == 0
    assert result.curves["train"].best_epoch == 4


def test_drift_is_the_relative_distance_of_parameters_and_kernels():
    params, inputs, targets = attention_case(0)
    calls = []

    def kernel(params):
        calls.append(1)
        jacobian = flat_jacobian(attention, params, inputs)
        return jacobian @ jacobian.T

    result = descend(
        attention,
        params,
        (inputs, targets),
        gradient_descent(0.05),
        5,
        record_at=[2, 5],
        kernel_fn=kernel,
        drift_at=[0, 5],
    )
    assert len(calls) == 2
    moved = np.linalg.norm(flat(result.params) - flat(params))
    assert result.parameter_distance[[0, -1]] == pytest.approx([0, moved], rel=1e-13)
    assert result.parameter_drift[-1] == pytest.approx(moved / np.linalg.norm(flat(params)), rel=1e-13)
    before, after = kernel(params), kernel(result.params)
    expected = np.linalg.norm(after - before) / np.linalg.norm(before)
    assert result.kernel_epochs.tolist() == [0, 5]
    assert result.kernel_drift == pytest.approx([0, expected], rel=CLOSED_FORM)
    assert expected > 0.01


def test_drift_of_parameters_that_start_at_zero_is_undefined_and_their_distance_is_not():
    _, x, y = linear_case(0)
    result = descend(linear, {"w": np.zeros((3, 1))}, (x, y), gradient_descent(0.1), 1).check()
    assert np.isnan(result.parameter_drift).all()
    assert result.parameter_distance[-1] == pytest.approx(0.1 / 8 * np.linalg.norm(x.T @ y), rel=1e-13)


def test_progress_rises_to_the_last_epoch():
    params, x, y = linear_case(0)
    seen = []
    descend(
        linear,
        params,
        (x, y),
        gradient_descent(0.1),
        1000,
        record_at=[10, 20],
        progress=lambda done, total: seen.append((done, total)),
    )
    done = [epoch for epoch, _ in seen]
    assert done == sorted(set(done))
    assert {10, 20, 1000} <= set(done)
    assert {total for _, total in seen} == {1000}


def test_no_epochs_measure_the_model_as_it_is():
    params, x, y = linear_case(0)
    result = descend(
        linear, params, (x, y), gradient_descent(0.1), 0, record_at=[0], evaluate={"train": (x, y)}
    ).check()
    np.testing.assert_array_equal(result.params["w"], params["w"])
    assert result.epochs.tolist() == [0]
    assert result.training_loss.size == 0


def test_divergence_keeps_what_was_recorded_and_names_the_epoch():
    params, x, y = linear_case(0)
    largest = np.linalg.eigvalsh(x @ x.T / 8)[-1]
    result = descend(
        linear,
        params,
        (x, y),
        gradient_descent(1e30 / largest),
        100,
        record_at=[0, 1, 2, 50],
        evaluate={"train": (x, y)},
    )
    assert result.status == "diverged"
    # Every step multiplies the error by 1e30, and its square leaves the range of float64 at the sixth.
    assert result.diverged_at == 6
    assert result.epochs.tolist() == [0, 1, 2]
    assert result.training_loss.shape == (6,)
    assert np.isfinite(result.training_loss).all()
    with pytest.raises(
        InputError, match=r"NaN or infinite at epoch 6 under gradient_descent\(.*epochs up to 2.*step_size < 2/λ₁"
    ):
        result.check()


def test_divergence_is_seen_in_examples_that_are_not_trained_on():
    _, x, y = linear_case(0)
    result = descend(
        linear,
        {"w": np.zeros((3, 1))},
        (x, y),
        gradient_descent(0.1),
        3,
        record_at=[1],
        evaluate={"far": (1e200 * x, y)},
    )
    assert result.diverged_at == 1
    assert result.epochs.tolist() == [0]


def test_inputs_may_be_device_arrays_and_any_pytree():
    params, inputs, targets = attention_case(0)
    on_device = jax.tree.map(jax.numpy.asarray, (inputs, targets))
    losses = [
        descend(
            attention,
            params,
            train,
            gradient_descent(0.05),
            np.int64(2),
            record_at=np.arange(3),
            evaluate={"other": (sentences(5, 4), np.ones((4, 2)))},
        )
        .curves["other"]
        .loss
        for train in ((inputs, targets), on_device)
    ]
    np.testing.assert_array_equal(losses[0], losses[1])
