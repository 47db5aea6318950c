"""What training does: the steps, the batches and the closed form that they must follow."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ntkft.finetuning import Optimizer, adamw, gradient_descent, l2_sp, momentum, sign_descent
from ntkft.linearize import linearize
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


def train_linear(optimizer, epochs, **options):
    """Parameters `[p]` after full-batch training of the linear case, and its data."""
    params, x, y = linear_case(0)
    result = descend(linear, params, (x, y), optimizer, epochs, **options)
    return np.asarray(result.params["w"][:, 0]), params["w"][:, 0], x, y[:, 0]


def test_gradient_descent_is_the_iteration_of_the_theory():
    trained, w, x, y = train_linear(gradient_descent(0.3), epochs=20)
    for _ in range(20):
        w = w - 0.3 / len(x) * x.T @ (x @ w - y)
    np.testing.assert_allclose(trained, w, rtol=0, atol=1e-13)


def test_momentum_is_the_heavy_ball():
    trained, w, x, y = train_linear(momentum(0.1, 0.9), epochs=20)
    velocity = np.zeros_like(w)
    for _ in range(20):
        velocity = 0.9 * velocity + x.T @ (x @ w - y) / len(x)
        w = w - 0.1 * velocity
    np.testing.assert_allclose(trained, w, rtol=0, atol=1e-13)


def test_adamw_is_the_published_algorithm():
    trained, w, x, y = train_linear(adamw(0.05, weight_decay=0.2), epochs=20)
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t in range(1, 21):
        g = x.T @ (x @ w - y) / len(x)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        w = w - 0.05 * (m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8) + 0.2 * w)
    np.testing.assert_allclose(trained, w, rtol=0, atol=1e-12)


def test_l2_sp_decays_towards_the_pretrained_parameters():
    pretrained, _, _ = linear_case(0)
    trained, w, x, y = train_linear(l2_sp(0.1, 0.7, pretrained), epochs=20)
    start = w
    for _ in range(20):
        w = w - 0.1 * (x.T @ (x @ w - y) / len(x) + 0.7 * (w - start))
    np.testing.assert_allclose(trained, w, rtol=0, atol=1e-13)


def test_sign_descent_moves_every_parameter_by_the_step_size():
    trained, w, x, y = train_linear(sign_descent(0.01), epochs=20)
    for _ in range(20):
        w = w - 0.01 * np.sign(x.T @ (x @ w - y))
    np.testing.assert_allclose(trained, w, rtol=0, atol=1e-13)


def test_the_linearised_model_follows_the_closed_form_of_its_kernel():
    params, inputs, targets = attention_case(0)
    test_inputs, n, epochs = sentences(9, 5), len(targets), [0, 1, 7, 300]
    jacobian, test_jacobian = (flat_jacobian(attention, params, x) for x in (inputs, test_inputs))
    eigenvalues, u = np.linalg.eigh(jacobian @ jacobian.T / n)
    step = 1.5 / eigenvalues[-1]

    residual = u.T @ (targets - attention(params, inputs)).ravel()
    filters = [(1 - (1 - step * eigenvalues) ** t) / eigenvalues for t in epochs]
    moves = [test_jacobian @ jacobian.T @ u @ (f * residual) / n for f in filters]
    expected = np.stack([np.asarray(attention(params, test_inputs)) + move.reshape(5, 2) for move in moves])

    result = descend(
        linearize(attention, params),
        params,
        (inputs, targets),
        gradient_descent(step),
        300,
        record_at=epochs,
        evaluate={"test": (test_inputs, np.zeros((5, 2)))},
        keep_predictions=["test"],
        micro_batch=3,
    )
    predictions = result.curves["test"].predictions
    assert predictions is not None
    np.testing.assert_allclose(predictions, expected, rtol=0, atol=CLOSED_FORM)
    assert np.abs(expected[-1] - expected[0]).max() > 0.1  # it did learn something


@pytest.mark.parametrize(("batch_size", "micro_batch"), [(None, 1), (None, 3), (None, 64), (3, 2)])
def test_the_size_of_micro_batches_changes_rounding_only(batch_size, micro_batch):
    params, inputs, targets = attention_case(0)

    def train(micro_batch):
        result = descend(
            attention,
            params,
            (inputs, targets),
            gradient_descent(0.05),
            5,
            batch_size=batch_size,
            seed=4,
            micro_batch=micro_batch,
        )
        return np.concatenate([flat(result.params), result.training_loss])

    np.testing.assert_allclose(train(micro_batch), train(7), rtol=0, atol=1e-12)


def batch_of_each_example(seed, *, epochs=1):
    """Train f_i = w_i from 0 on targets 1 with step j + 1 at update j: w_i = (j + 1)/B when update j saw example i."""
    n = 8
    result = descend(
        linear,
        {"w": np.zeros((n, 1))},
        (np.eye(n), np.ones((n, 1))),
        Optimizer("counting", optax.scale_by_schedule(lambda j: -(jnp.remainder(j, 3) + 1.0))),
        epochs,
        batch_size=3,
        seed=seed,
        record_at=range(epochs + 1),
        evaluate={"all": (np.eye(n), np.ones((n, 1)))},
        keep_predictions=["all"],
    )
    assert result.curves["all"].predictions is not None
    f = result.curves["all"].predictions[:, :, 0]
    return (f[1:] - f[:-1]) / (1 - f[:-1])


def test_an_epoch_of_minibatches_sees_every_example_once_and_averages_over_what_is_left():
    # Updates of 3, 3 and 2 examples: steps 1, 2, 3 over batch sizes 3, 3, 2.
    counts = dict(zip(*np.unique(batch_of_each_example(0)[0].round(12), return_counts=True), strict=True))
    assert counts == {round(1 / 3, 12): 3, round(2 / 3, 12): 3, 1.5: 2}


def test_minibatches_are_drawn_anew_each_epoch_and_again_from_the_same_seed():
    first = batch_of_each_example(0, epochs=2)
    assert np.abs(first[0] - first[1]).max() > 0.1
    np.testing.assert_array_equal(first, batch_of_each_example(0, epochs=2))
    assert np.abs(first - batch_of_each_example(1, epochs=2)).max() > 0.1


def test_the_loss_of_an_epoch_of_minibatches_weighs_every_example_alike():
    # With f_i = w_i = 0 an example's loss is ½ y_i² until its own update, whatever the order.
    targets = np.arange(8.0)[:, None]
    result = descend(
        linear, {"w": np.zeros((8, 1))}, (np.eye(8), targets), gradient_descent(0.1), 1, batch_size=3, seed=0
    )
    assert result.training_loss == pytest.approx([np.mean(targets**2) / 2], rel=1e-14)


def test_a_batch_of_all_examples_is_full_batch_descent_whatever_the_order():
    whole, *_ = train_linear(gradient_descent(0.3), epochs=10)
    shuffled, *_ = train_linear(gradient_descent(0.3), epochs=10, batch_size=8, seed=0)
    np.testing.assert_allclose(shuffled, whole, rtol=0, atol=1e-13)


def test_cross_entropy_descends_along_its_own_gradient():
    params, x, _ = linear_case(0, k=3)
    classes = np.arange(8) % 3
    result = descend(linear, params, (x, classes), gradient_descent(0.5), 10, loss="cross_entropy")
    w = params["w"]
    for _ in range(10):
        exponentials = np.exp(x @ w)
        w = w - 0.5 / 8 * x.T @ (exponentials / exponentials.sum(axis=1, keepdims=True) - np.eye(3)[classes])
    np.testing.assert_allclose(result.params["w"], w, rtol=0, atol=1e-13)


def test_the_model_is_traced_a_fixed_number_of_times():
    def traces(epochs, record_at, sets):
        seen = []

        def counted(params, inputs):
            seen.append(1)
            return attention(params, inputs)

        params, inputs, targets = attention_case(0)
        descend(
            counted,
            params,
            (inputs, targets),
            adamw(1e-3, 0.1),
            epochs,
            batch_size=3,
            seed=0,
            record_at=record_at,
            evaluate=sets,
            micro_batch=2,
        )
        return len(seen)

    odd, even = ((sentences(3, n), np.zeros((n, 2))) for n in (5, 4))
    # Once for the shape of the outputs, once for the descent, once for the evaluation.
    assert traces(2, [], {"odd": odd}) == 3
    assert traces(50, range(50), {"odd": odd, "even": even}) == 3


def test_float32_stays_float32():
    with jax.enable_x64(False):
        params, inputs, targets = jax.tree.map(
            lambda leaf: leaf.astype(np.float32) if leaf.dtype == np.float64 else leaf,
            jax.tree.map(np.asarray, attention_case(0)),
        )
        result = descend(attention, params, (inputs, targets), adamw(0.01, 0.1), 20)
    exact = descend(attention, *attention_case(0)[:1], attention_case(0)[1:], adamw(0.01, 0.1), 20)
    assert {leaf.dtype for leaf in jax.tree.leaves(result.params)} == {np.dtype(np.float32)}
    np.testing.assert_allclose(flat(result.params), flat(exact.params), rtol=0, atol=1e-4)


def test_the_parameters_given_are_left_alone():
    params, x, y = linear_case(0)
    on_device = jax.tree.map(jnp.asarray, params)
    for given in (params, on_device):
        descend(linear, given, (x, y), gradient_descent(0.1), 3)
        np.testing.assert_array_equal(given["w"], linear_case(0)[0]["w"])
