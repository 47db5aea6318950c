import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from ntkft._errors import InputError
from ntkft.dynamics import dual_coefficients, gradient_descent, gradient_flow, heavy_ball, outputs_at, per_output, ridge
from ntkft.spectra import spectrum_of_matrix
from tests.spectra.matrices import Record, full_kernel, min_kernel
from tests.tolerances import CLOSED_FORM

N, M, STEP = 12, 5, 0.3
STEPS = np.array([0, 1, 7, 150])


def shared_case(k):
    """One kernel for all outputs: [n, n] and [m, n], with the nk × nk matrix that it stands for."""
    kernel = min_kernel(N + M)
    train, cross = kernel[:N, :N], kernel[N:, :N]
    return train, cross, np.kron(train, np.eye(k)), np.kron(cross, np.eye(k)), k


def full_case(k):
    """All pairs of outputs, which differ: swapped axes would show."""
    train, cross = full_kernel(N, M, k, seed=0)
    return train, cross, train.reshape(N * k, N * k), cross.reshape(M * k, N * k), k


CASES = {
    "one output": shared_case(1),
    "three outputs, one kernel": shared_case(3),
    "three outputs, full": full_case(3),
    "one output, full": full_case(1),
}


@pytest.fixture(params=CASES, ids=str)
def case(request):
    train, cross, train_matrix, cross_matrix, k = CASES[request.param]
    generator = np.random.default_rng(1)
    y, f, f_test = (generator.standard_normal((size, k)) for size in (N, N, M))
    return train, cross, train_matrix, cross_matrix, y, f, f_test


def predict(case, spectral_filter, steps=STEPS):
    train, cross, _, _, y, f, f_test = case
    dual = dual_coefficients(spectrum_of_matrix(train, precision="float64"), y - f, spectral_filter, steps)
    return outputs_at(train, dual, f), outputs_at(cross, dual, f_test)


def iterate(case, momentum):
    """Outputs by running the algorithm in function space, on training and test examples together."""
    _, _, train, cross, y, f, f_test = case
    outputs, test, target = f.ravel(), f_test.ravel(), y.ravel()
    velocity, test_velocity = np.zeros_like(outputs), np.zeros_like(test)
    fitted, predicted = [], []
    for step in range(int(STEPS.max()) + 1):
        if step in STEPS:
            fitted.append(outputs.reshape(y.shape))
            predicted.append(test.reshape(f_test.shape))
        error = outputs - target
        velocity = momentum * velocity - STEP / N * train @ error
        test_velocity = momentum * test_velocity - STEP / N * cross @ error
        outputs, test = outputs + velocity, test + test_velocity
    return np.stack(fitted), np.stack(predicted)


def test_gradient_descent_is_explicit_iteration_on_training_and_test_examples(case):
    for actual, expected in zip(predict(case, gradient_descent(STEP)), iterate(case, 0.0), strict=True):
        np.testing.assert_allclose(actual, expected, atol=CLOSED_FORM)


def test_heavy_ball_is_explicit_iteration_on_training_and_test_examples(case):
    for actual, expected in zip(predict(case, heavy_ball(STEP, 0.8)), iterate(case, 0.8), strict=True):
        np.testing.assert_allclose(actual, expected, atol=CLOSED_FORM)


def test_gradient_flow_is_the_matrix_exponential(case):
    _, _, train, cross, y, f, f_test = case
    fitted, predicted = predict(case, gradient_flow(STEP), np.array([0.5, 20]))
    for row, time in enumerate((0.5, 20)):
        learnt = np.eye(len(train)) - scipy.linalg.expm(-STEP * time * train / N)
        moved = learnt @ (y - f).ravel()
        np.testing.assert_allclose(fitted[row], f + moved.reshape(f.shape), atol=CLOSED_FORM)
        dual = np.linalg.lstsq(train, moved, rcond=None)[0]
        np.testing.assert_allclose(predicted[row], f_test + (cross @ dual).reshape(f_test.shape), atol=1e-8)


def test_ridge_is_the_direct_solve(case):
    _, _, train, cross, y, f, f_test = case
    penalty = 0.05
    fitted, predicted = predict(case, ridge(1.0), np.array([1 / penalty]))
    dual = np.linalg.solve(train + N * penalty * np.eye(len(train)), (y - f).ravel())
    np.testing.assert_allclose(fitted[0], f + (train @ dual).reshape(f.shape), atol=CLOSED_FORM)
    np.testing.assert_allclose(predicted[0], f_test + (cross @ dual).reshape(f_test.shape), atol=CLOSED_FORM)


def test_dual_coefficients_carry_the_parameter_change():
    # With explicit features, θ_t − θ_PT = Jᵀα_t: running gradient descent on the parameters gives the same vector.
    generator = np.random.default_rng(2)
    features, y = generator.standard_normal((N, 4)), generator.standard_normal((N, 1))
    dual = dual_coefficients(
        spectrum_of_matrix(features @ features.T, precision="float64"), y, gradient_descent(0.2), np.array([9])
    )
    theta = np.zeros((4, 1))
    for _ in range(9):
        theta = theta - 0.2 / N * features.T @ (features @ theta - y)
    np.testing.assert_allclose(features.T @ dual[0], theta, atol=CLOSED_FORM)


def test_predictions_do_not_depend_on_the_order_of_examples(case):
    train, cross, _, _, y, f, f_test = case
    order = np.random.default_rng(3).permutation(N)
    axis = train.ndim // 2
    shuffled = np.take(np.take(train, order, axis=0), order, axis=axis)
    fitted, predicted = predict(case, gradient_descent(STEP))
    again = predict((shuffled, np.take(cross, order, axis=axis), None, None, y[order], f[order], f_test),
                    gradient_descent(STEP))  # fmt: skip
    np.testing.assert_allclose(again[0], fitted[:, order], atol=CLOSED_FORM)
    np.testing.assert_allclose(again[1], predicted, atol=CLOSED_FORM)


def test_one_output_needs_no_second_axis():
    train, cross, *_ = shared_case(1)
    spectrum = spectrum_of_matrix(train, precision="float64")
    y, start = np.arange(12.0), np.arange(5.0)
    flat = outputs_at(cross, dual_coefficients(spectrum, y, gradient_descent(STEP), STEPS), start)
    column = outputs_at(cross, dual_coefficients(spectrum, y[:, None], gradient_descent(STEP), STEPS), start[:, None])
    np.testing.assert_array_equal(flat, column)
    assert flat.shape == (4, 5, 1)


def test_a_trace_kernel_is_divided_by_the_number_of_outputs_and_nothing_else_is():
    trace = Record(jnp.asarray(3 * min_kernel(4)), "trace", "float32")
    np.testing.assert_allclose(per_output(trace, 3), min_kernel(4), rtol=1e-6)
    full = Record(full_kernel(4, 1, 2, seed=4)[0], "full")
    assert per_output(full, 2) is full.total
    assert per_output(full.total, 2) is full.total


def test_shapes_that_do_not_fit_are_refused():
    train, cross, *_ = shared_case(3)
    spectrum = spectrum_of_matrix(train, precision="float64")
    with pytest.raises(InputError, match=r"values: got shape \[11\], wanted \[12, k\]"):
        dual_coefficients(spectrum, np.ones(11), gradient_descent(STEP), STEPS)
    dual = dual_coefficients(spectrum, np.ones((N, 3)), gradient_descent(STEP), STEPS)
    message = r"outputs_at: got a kernel \[5, 11\].*12 examples with 3 outputs; wanted \[m, 12\] or \[m, 3, 12, 3\]"
    with pytest.raises(InputError, match=message):
        outputs_at(cross[:, :11], dual, np.ones((M, 3)))
    with pytest.raises(InputError, match=r"pretrained outputs \[5, 2\]"):
        outputs_at(cross, dual, np.ones((M, 2)))
    with pytest.raises(InputError, match=r"pretrained outputs \[5\]"):
        outputs_at(cross, dual, np.ones(M))
