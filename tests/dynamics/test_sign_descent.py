"""Training by signs in kernel space against training itself, of the same linearised model."""

import jax
import numpy as np
import optax
import pytest

from ntkft._errors import InputError
from ntkft._tree import take_examples
from ntkft.dynamics import outputs_at, signed_descent
from ntkft.finetuning import Optimizer, optimizers
from ntkft.kernels.signgd import signgd_ntk
from ntkft.linearize import linearize
from tests.finetuning.tiny import attention, attention_params, descend, flat_jacobian, sentences
from tests.tolerances import CLOSED_FORM

N, M, STEP, SEED, EPOCHS = 7, 4, 0.01, 3, 6
PARAMS, INPUTS = attention_params(0), sentences(1, N + M)
TRAIN, TEST = take_examples(INPUTS, slice(0, N)), take_examples(INPUTS, slice(N, None))
Y = np.random.default_rng(2).choice([-1.0, 1.0], (N + M, 1))


def difference(params, inputs):
    """One output: the first of attention's minus the second."""
    outputs = attention(params, inputs)
    return outputs[:, :1] - outputs[:, 1:]


F = np.asarray(difference(PARAMS, INPUTS))


def epochs_of_minibatches(seed, epochs):
    """The example of every update of real training in minibatches of one: a permutation for each epoch."""
    keys = [jax.random.fold_in(jax.random.key(seed), epoch) for epoch in range(epochs)]
    return np.concatenate([jax.random.permutation(key, N) for key in keys])


@pytest.mark.parametrize(
    "optimizer",
    [
        optimizers.sign_descent(STEP),
        Optimizer("forgetful adam", optax.adam(STEP, b1=0.0, b2=0.0, eps=1e-30)),
    ],
    ids=["signs", "Adam without memory"],
)
def test_it_is_training_of_the_linearised_model_one_example_a_step(optimizer):
    result = descend(
        linearize(difference, PARAMS), PARAMS, (TRAIN, Y[:N]), optimizer, EPOCHS, batch_size=1, seed=SEED,
        record_at=range(EPOCHS + 1), evaluate={"test": (TEST, Y[N:])}, keep_predictions=["test"],
    )  # fmt: skip
    kernel = signgd_ntk(difference, PARAMS, TRAIN, outputs="scalar", kind="asymmetric")
    cross = signgd_ntk(difference, PARAMS, TEST, TRAIN, outputs="scalar", kind="asymmetric")
    dual = signed_descent(
        kernel, Y[:N], F[:N], loss="squared", step_size=STEP, order=epochs_of_minibatches(SEED, EPOCHS),
        steps=N * np.arange(EPOCHS + 1),
    )  # fmt: skip
    predictions = result.curves["test"].predictions
    assert predictions is not None
    assert np.abs(predictions[-1] - predictions[0]).max() > 0.5
    np.testing.assert_allclose(outputs_at(np.asarray(cross.total), dual, F[N:]), predictions, atol=CLOSED_FORM)


def test_the_first_step_of_adam_is_a_step_by_the_sign():
    # Adam's 1e-8 in the denominator, relative to gradients of this model, which are all above 1e-4.
    results = [
        descend(difference, PARAMS, (take_examples(TRAIN, slice(0, 1)), Y[:1]), optimizer, 1).params
        for optimizer in (optimizers.adamw(STEP, 0.0), optimizers.sign_descent(STEP))
    ]
    for adam, signs in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(adam, signs, atol=1e-4 * STEP)


def explicit(loss, order, step):
    """Outputs of all examples of the linearised model after signed steps on its parameters, one after the other."""
    jacobian = flat_jacobian(difference, PARAMS, INPUTS)
    theta, path = np.zeros(jacobian.shape[1]), []
    for i in order:
        f = F[i, 0] + jacobian[i] @ theta
        slope = f - Y[i, 0] if loss == "squared" else -Y[i, 0] / (1 + np.exp(Y[i, 0] * f))
        theta = theta - step * np.sign(slope * jacobian[i])
        path.append(F[:, 0] + jacobian @ theta)
    return np.stack([F[:, 0], *path])[:, :, None]


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_any_order_of_examples_and_of_recorded_steps(loss):
    order, steps = np.random.default_rng(5).integers(0, N, 40), [40, 0, 1, 13]
    kernel = np.asarray(signgd_ntk(difference, PARAMS, INPUTS, outputs="scalar", kind="asymmetric").total)
    dual = signed_descent(kernel[:N, :N], Y[:N], F[:N], loss=loss, step_size=STEP, order=order, steps=steps)
    predicted = outputs_at(kernel[:, :N], dual, F)
    np.testing.assert_allclose(predicted, explicit(loss, order, STEP)[steps], atol=CLOSED_FORM)


def test_on_the_logistic_loss_coefficients_count_visits():
    order = np.array([0, 3, 3, 1, 3])
    kernel = np.random.default_rng(6).standard_normal((N, N))
    (dual,) = signed_descent(kernel, Y[:N], F[:N], loss="logistic", step_size=STEP, order=order, steps=[5])
    visits = np.bincount(order, minlength=N)
    np.testing.assert_allclose(dual[:, 0], STEP * visits * Y[:N, 0], atol=1e-15)


GOOD = {"loss": "squared", "step_size": STEP, "order": np.arange(N), "steps": [N]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": np.zeros((N, 2))}, "got 1 outputs and 2 targets an example; wanted one"),
        ({"kernel": np.eye(3)}, r"kernel has shape \[3, 3\]; wanted \[7, 7\]"),
        ({"loss": "cross_entropy"}, "got loss='cross_entropy'; wanted 'squared' or 'logistic'"),
        ({"loss": "logistic", "targets": np.zeros(N)}, "loss 'logistic' wants targets ±1"),
        ({"order": np.array([0, 7])}, r"order runs from 0 to 7; wanted examples 0 … 6"),
        ({"steps": [8]}, "step 8 of an order of 7 updates; give a longer order"),
        ({"step_size": 0}, "step size is 0"),
    ],
)
def test_bad_input_is_refused_with_what_was_wanted(changes, message):
    arguments = {"kernel": np.eye(N), "targets": Y[:N], "pretrained": F[:N]} | GOOD | changes
    with pytest.raises(InputError, match=message):
        signed_descent(**arguments)
