import jax
import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft._tree import take_examples
from ntkft.anchoring import Network, predict_anchored
from ntkft.anchoring.prediction import Scheme
from ntkft.dynamics import dual_coefficients, gradient_descent, outputs_at
from ntkft.dynamics.descent import LossName
from ntkft.finetuning import finetune, optimizers
from ntkft.spectra import spectrum_of_matrix
from tests.finetuning.tiny import attention, attention_params, flat, sentences
from tests.tolerances import CLOSED_FORM

N, M, STEP = 7, 4, 0.004
JACOBIAN = jax.jit(jax.jacrev(attention))


def kernel_fn(params, x1, x2=None):
    """The full kernel from the definition."""
    first = JACOBIAN(params, x1)
    second = first if x2 is None else JACOBIAN(params, x2)
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return np.sum([np.einsum("iapq,jbpq->iajb", np.asarray(a), np.asarray(b)) for a, b in pairs], axis=0)


@pytest.fixture(scope="module")
def problem():
    """Parameters, training and test examples with two regression targets."""
    inputs, targets = sentences(1, N + M), np.random.default_rng(2).normal(size=(N + M, 2))
    parts = [(take_examples(inputs, rows), targets[rows]) for rows in (slice(0, N), slice(N, N + M))]
    return attention_params(0), *parts


def real(problem, loss, epochs, step=STEP):
    """Outputs of really training the network, on the test examples, and the parameters at the end."""
    params, train, test = problem
    if loss == "cross_entropy":
        train, test = ((inputs, (targets[:, 0] > 0).astype(int)) for inputs, targets in (train, test))
    result = finetune(
        attention, params, train, loss=loss, optimizer=optimizers.gradient_descent(step), epochs=max(epochs),
        batch_size=None, record_at=epochs, evaluate={"test": test}, keep_predictions={"test"},
    )  # fmt: skip
    kept = dict(zip(result.epochs.tolist(), np.asarray(result.curves["test"].predictions), strict=True))
    return np.stack([kept[epoch] for epoch in epochs]), result.params


def predicted(problem, *, loss: LossName = "squared", epochs, anchors, scheme: Scheme = "euler", step=STEP, **options):
    params, (inputs, targets), (test, _) = problem
    wanted = (targets[:, 0] > 0).astype(int) if loss == "cross_entropy" else targets
    network = Network.of(attention, inputs, {"test": test}, micro_batch=3)
    return predict_anchored(
        network, params, wanted, kernel_fn, loss=loss, step_size=step, epochs=epochs, anchors=anchors, scheme=scheme,
        **options,
    )  # fmt: skip


@pytest.mark.parametrize("scheme", ["euler", "midpoint"])
@pytest.mark.parametrize("loss", ["squared", "cross_entropy"])
def test_an_anchor_at_every_epoch_is_training_itself(problem, loss, scheme):
    epochs = [0, 1, 2, 5]
    outputs, params = real(problem, loss, epochs)
    found = predicted(problem, loss=loss, epochs=epochs, anchors=range(5), scheme=scheme)
    assert np.abs(outputs[-1] - outputs[0]).max() > 0.05
    np.testing.assert_allclose(found.network["test"], outputs, atol=1e-9)
    np.testing.assert_allclose(flat(found.params), flat(params), atol=1e-9)
    assert found.kernels == 5


def test_one_anchor_is_the_first_order_prediction(problem):
    params, (inputs, targets), (test, _) = problem
    epochs, kernel = [0, 3, 40], kernel_fn(params, inputs)
    start = np.asarray(attention(params, inputs))
    dual = dual_coefficients(
        spectrum_of_matrix(kernel, precision="float64"), targets - start, gradient_descent(STEP), epochs
    )
    expected = outputs_at(kernel_fn(params, test, inputs), dual, np.asarray(attention(params, test)))
    found = predicted(problem, epochs=epochs, anchors=[0], readings=("linear",))
    np.testing.assert_allclose(found.linear["test"], expected, atol=CLOSED_FORM)
    assert found.network == {}


def test_an_anchor_in_between_changes_nothing_before_it_and_evaluates_the_network_at_it(problem):
    epochs = [2, 10, 20]
    whole, split = (predicted(problem, epochs=epochs, anchors=anchors) for anchors in ([0], [0, 10]))
    np.testing.assert_allclose(split.linear["test"][0], whole.linear["test"][0], atol=CLOSED_FORM)
    np.testing.assert_allclose(split.linear["test"][1], whole.network["test"][1], atol=CLOSED_FORM)
    assert np.abs(split.linear["test"][2] - whole.linear["test"][2]).max() > 1e-4


def test_shorter_stretches_come_nearer_by_the_order_of_the_scheme(problem):
    # A stretch of one epoch is training itself, so Euler's error is in proportion to length − 1.
    step, last, lengths = 0.0002, 64, np.array([8, 4, 2])
    outputs, _ = real(problem, "squared", [last], step)
    errors = {
        scheme: [
            np.abs(predicted(problem, epochs=[last], anchors=range(0, last, length), scheme=scheme, step=step)
                   .network["test"] - outputs).max()
            for length in lengths
        ]
        for scheme in ("euler", "midpoint")
    }  # fmt: skip
    euler, midpoint = (np.array(found) for found in errors.values())
    order = np.diff(np.log(euler)) / np.diff(np.log(lengths - 1))
    np.testing.assert_allclose(order, 1, atol=0.2)
    assert (np.log2(midpoint[:-1] / midpoint[1:]) > 1.7).all()  # errors of opposite signs may cancel
    assert (midpoint < euler).all()


def test_progress_and_every_recorded_epoch_come_once_and_in_order(problem):
    seen = []
    found = predicted(
        problem, epochs=[0, 4, 5, 9], anchors=[0, 4, 9 - 1], progress=lambda done, of: seen.append((done, of))
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert found.linear["test"].shape == found.network["test"].shape == (4, M, 2)
    np.testing.assert_allclose(found.linear["test"][0], attention(problem[0], problem[2][0]), atol=CLOSED_FORM)


def test_bad_plans_are_refused(problem):
    for options, message in [
        ({"epochs": [5, 2], "anchors": [0]}, r"epochs are \[5, 2\]; wanted at least one, ascending"),
        (
            {"epochs": [5], "anchors": [1, 2]},
            r"anchors are \[1, 2\]; wanted 0 first, ascending, before the last epoch 5",
        ),
        ({"epochs": [5], "anchors": [0, 5]}, r"anchors are \[0, 5\]"),
        ({"epochs": [5], "anchors": [0], "scheme": "heun"}, "got scheme='heun'; wanted 'euler' or 'midpoint'"),
    ]:
        with pytest.raises(InputError, match=message):
            predicted(problem, **options)
