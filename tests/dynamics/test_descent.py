import jax
import numpy as np
import pytest

import ntkft
from ntkft._errors import InputError
from ntkft._tree import take_examples
from ntkft.dynamics import dual_coefficients, gradient_descent, heavy_ball, kernel_descent, outputs_at, ridge
from ntkft.dynamics.descent import _SLOPES, CURVATURE
from ntkft.finetuning import finetune, optimizers
from ntkft.finetuning.losses import cross_entropy, squared
from ntkft.linearize import linearize
from ntkft.spectra import spectrum_of_matrix
from tests.finetuning.tiny import attention, attention_params, sentences
from tests.spectra.matrices import Record, full_kernel, min_kernel
from tests.tolerances import CLOSED_FORM

N, STEP = 12, 0.3
STEPS = np.array([7, 0, 1, 150])
PLAIN = {"step_size": STEP, "momentum": 0.0, "penalty": 0.0, "steps": STEPS}

KERNELS = {
    "one output": (min_kernel(N), 1),
    "three outputs, one kernel": (min_kernel(N), 3),
    "three outputs, full": (full_kernel(N, 1, 3, seed=0)[0], 3),
}


@pytest.fixture(params=KERNELS, ids=str)
def case(request):
    kernel, k = KERNELS[request.param]
    generator = np.random.default_rng(1)
    return kernel, generator.standard_normal((N, k)), generator.standard_normal((N, k))


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_on_the_squared_loss_it_is_the_closed_form(case, momentum):
    kernel, y, f = case
    form = heavy_ball(STEP, momentum) if momentum else gradient_descent(STEP)
    expected = dual_coefficients(spectrum_of_matrix(kernel, precision="float64"), y - f, form, STEPS)
    dual = kernel_descent(kernel, y, f, loss="squared", **PLAIN | {"momentum": momentum})
    np.testing.assert_allclose(dual, expected, atol=CLOSED_FORM)


def test_weight_decay_ends_in_kernel_ridge_regression(case):
    kernel, y, f = case
    penalty = 0.05
    dual = kernel_descent(kernel, y, f, loss="squared", **PLAIN | {"penalty": penalty, "steps": [3000]})
    expected = dual_coefficients(spectrum_of_matrix(kernel, precision="float64"), y - f, ridge(1.0), [1 / penalty])
    np.testing.assert_allclose(dual, expected, atol=CLOSED_FORM)


@pytest.mark.parametrize(("loss", "k"), [("cross_entropy", 3), ("logistic", 1)])
def test_weight_decay_ends_where_the_gradient_vanishes(loss, k):
    kernel, generator = min_kernel(N), np.random.default_rng(2)
    f, penalty = generator.standard_normal((N, k)), 0.05
    y = generator.integers(0, 3, N) if loss == "cross_entropy" else generator.choice([-1.0, 1.0], (N, 1))
    dual = kernel_descent(kernel, y, f, loss=loss, **PLAIN | {"penalty": penalty, "steps": [4000]})
    slope = np.asarray(_SLOPES[loss](outputs_at(kernel, dual, f)[0], y))
    np.testing.assert_allclose(dual[0], -slope / (N * penalty), atol=CLOSED_FORM)


@pytest.mark.parametrize(("momentum", "penalty"), [(0.0, 0.0), (0.7, 0.0), (0.0, 0.5)])
def test_cross_entropy_is_training_of_the_linearised_model(momentum, penalty):
    params, inputs, step = attention_params(0, k=3), sentences(1, 14), 0.05
    classes = np.random.default_rng(3).integers(0, 3, 14)
    train, test = take_examples(inputs, slice(0, 9)), take_examples(inputs, slice(9, 14))
    epochs = [0, 1, 5, 40]
    optimizer = optimizers.momentum(step, momentum) if momentum else optimizers.l2_sp(step, penalty, params)
    result = finetune(
        linearize(attention, params), params, (train, classes[:9]), loss="cross_entropy", optimizer=optimizer,
        epochs=40, batch_size=None, record_at=epochs, evaluate={"test": (test, classes[9:])}, keep_predictions={"test"},
    )  # fmt: skip
    kernel = ntkft.empirical_ntk(attention, params, train, outputs="full", method="jacobian")
    cross = ntkft.empirical_ntk(attention, params, test, train, outputs="full", method="jacobian")
    outputs = {name: np.asarray(attention(params, part)) for name, part in (("train", train), ("test", test))}
    dual = kernel_descent(
        kernel, classes[:9], outputs["train"], loss="cross_entropy", step_size=step, momentum=momentum,
        penalty=penalty, steps=epochs,
    )  # fmt: skip
    predicted = outputs_at(np.asarray(cross.total), dual, outputs["test"])
    kept = result.curves["test"].predictions
    assert kept is not None
    assert np.abs(kept[-1] - kept[0]).max() > 0.5
    np.testing.assert_allclose(predicted, kept, atol=1e-8)


def test_slopes_are_derivatives_and_curvatures_their_largest():
    generator = np.random.default_rng(4)
    f, y, classes = generator.standard_normal((5, 3)), generator.standard_normal((5, 3)), np.array([0, 2, 1, 1, 0])
    losses = {
        "squared": (lambda f, y: squared(f, y).sum(), f, y),
        "cross_entropy": (lambda f, y: cross_entropy(f, y).sum(), f, classes),
        "logistic": (lambda f, y: np.sum(jax.nn.softplus(-y * f)), f[:, :1], np.sign(y[:, :1])),
    }
    flattest = {"squared": f[:1], "cross_entropy": np.array([[50.0, 50.0, 0.0]]), "logistic": np.zeros((1, 1))}
    for name, (loss, outputs, wanted) in losses.items():
        slope = _SLOPES[name](outputs, wanted)
        np.testing.assert_allclose(
            slope, jax.grad(lambda f, loss=loss, y=wanted: loss(f, y).sum())(outputs), atol=1e-12
        )
        for at in (outputs[:1], flattest[name]):
            hessian = np.asarray(jax.hessian(lambda f, loss=loss, y=wanted: loss(f, y[:1]).sum())(at))
            steepest = np.linalg.eigvalsh(hessian.reshape(at.size, at.size)).max()
            assert steepest <= CURVATURE[name] + 1e-9
        assert steepest == pytest.approx(CURVATURE[name])


def test_a_trace_record_is_divided_by_the_number_of_outputs():
    y, f = np.random.default_rng(5).standard_normal((2, N, 3))
    mean = kernel_descent(min_kernel(N), y, f, loss="squared", **PLAIN)
    trace = kernel_descent(Record(3 * min_kernel(N), "trace"), y, f, loss="squared", **PLAIN)
    np.testing.assert_allclose(trace, mean, atol=CLOSED_FORM)


def test_bad_input_is_refused_with_what_was_wanted():
    kernel, f = min_kernel(N), np.zeros((N, 3))
    classes = np.arange(N) % 3
    for targets, options, message in [
        (classes, {"loss": "hinge"}, "got loss='hinge'; wanted one of 'squared', 'cross_entropy', 'logistic'"),
        (classes + 1, {}, r"classes run from 1 to 3; wanted 0 … 2 for 3 outputs"),
        (classes[:5], {}, r"targets are int64 \[5\]; wanted integer classes \[12\]"),
        (f[:, :2], {"loss": "squared"}, "targets have 2 columns for 3 outputs"),
        (f, {"loss": "logistic"}, "wants one output and targets ±1; got 3 outputs"),
        (classes, {"momentum": 1.0}, "momentum is 1; wanted 0 ≤ momentum < 1"),
        (classes, {"step_size": 40.0}, "at or above the stability limit"),
        (classes, {"steps": [0.5]}, "step 0.5 is not whole"),
    ]:
        with pytest.raises(InputError, match=message):
            kernel_descent(kernel, targets, f, **{"loss": "cross_entropy"} | PLAIN | options)
    with pytest.raises(InputError, match=r"kernel has shape \[11, 11\]; wanted \[12, 12\] or \[12, 3, 12, 3\]"):
        kernel_descent(kernel[:11, :11], classes, f, loss="cross_entropy", **PLAIN)
