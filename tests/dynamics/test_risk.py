import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from ntkft._errors import InputError
from ntkft.dynamics import dual_coefficients, gradient_descent, nested_rows, outputs_at, over_seeds, predict_risk
from ntkft.spectra import spectrum_of_matrix
from tests.spectra.matrices import Record, full_kernel, min_kernel
from tests.tolerances import CLOSED_FORM

N, M, STEP = 16, 7, 0.3
EPOCHS = [0, 1, 20, 500]


def case(k, full):
    generator = np.random.default_rng(0)
    train, cross = full_kernel(N, M, k, seed=1)
    if not full:
        train, cross = min_kernel(N + M)[:N, :N], min_kernel(N + M)[N:, :N]
    y, f = generator.standard_normal((2, N, k))
    y_test, f_test = generator.standard_normal((2, M, k))
    return train, cross, y, y_test, f, f_test


def predict(data, sizes=(5, N), seeds=(0, 1), epochs=EPOCHS, step_size=STEP):
    return predict_risk(*data, sizes=sizes, epochs=epochs, step_size=step_size, seeds=seeds)


def direct(data, rows):
    """Test and training error from the kernel of `rows` alone."""
    train, cross, y, y_test, f, f_test = data
    axis = train.ndim // 2
    subset = np.take(np.take(train, rows, axis=0), rows, axis=axis)
    spectrum = spectrum_of_matrix(subset, precision="float64")
    dual = dual_coefficients(spectrum, y[rows] - f[rows], gradient_descent(STEP), EPOCHS)
    predicted, fitted = outputs_at(np.take(cross, rows, axis=axis), dual, f_test), outputs_at(subset, dual, f[rows])
    return [np.mean(np.sum((a - b[None]) ** 2, axis=2), axis=1) for a, b in ((predicted, y_test), (fitted, y[rows]))]


@pytest.mark.parametrize(("k", "full"), [(1, False), (3, False), (3, True)])
def test_all_examples_give_the_direct_prediction_for_every_seed(k, full):
    data = case(k, full)
    surface, expected = predict(data), direct(data, np.arange(N))
    for seed in range(2):
        np.testing.assert_allclose(surface.test_mse[seed, 1], expected[0], rtol=CLOSED_FORM)
        np.testing.assert_allclose(surface.train_mse[seed, 1], expected[1], atol=CLOSED_FORM)


@pytest.mark.parametrize(("k", "full"), [(1, False), (3, False), (3, True)])
def test_a_smaller_size_is_training_on_a_subset_that_the_seed_names(k, full):
    data = case(k, full)
    surface = predict(data)
    for seed in range(2):
        expected = direct(data, np.random.default_rng(seed).permutation(N)[:5])
        np.testing.assert_allclose(surface.test_mse[seed, 0], expected[0], rtol=CLOSED_FORM)
        np.testing.assert_allclose(surface.train_mse[seed, 0], expected[1], atol=CLOSED_FORM)
    assert not np.allclose(surface.test_mse[0, 0], surface.test_mse[1, 0])


def test_epoch_zero_is_the_pretrained_model_and_training_error_falls():
    data = case(3, True)
    surface = predict(data)
    np.testing.assert_allclose(surface.test_mse[..., 0], np.mean(np.sum((data[5] - data[3]) ** 2, axis=1)))
    assert np.all(np.diff(surface.train_mse, axis=2) < 0)


def test_records_work_as_arrays_do_and_trace_kernels_are_divided_by_the_outputs():
    train, cross, *rest = case(3, full=False)
    expected = predict((train, cross, *rest))
    trace = predict((Record(jnp.asarray(3 * train), "trace"), Record(3 * cross, "trace"), *rest))
    np.testing.assert_allclose(trace.test_mse, expected.test_mse, rtol=CLOSED_FORM)
    full = Record(np.einsum("ij,ab->iajb", train, np.eye(3)), "full")
    full_cross = Record(np.einsum("ij,ab->iajb", cross, np.eye(3)), "full")
    np.testing.assert_allclose(predict((full, full_cross, *rest)).test_mse, expected.test_mse, rtol=CLOSED_FORM)


def accuracy(surface) -> np.ndarray:
    assert surface.test_accuracy is not None
    return surface.test_accuracy


def test_accuracy_counts_signs_for_one_output_and_largest_outputs_for_one_hot_targets():
    train, cross, *_ = case(1, full=False)
    generator = np.random.default_rng(2)
    f_test = generator.standard_normal((M, 1))
    signs = [generator.choice([-1, 1], size) for size in (N, M)]  # integers, one axis
    binary = predict((train, cross, *signs, np.zeros(N), f_test[:, 0]), epochs=[0])
    np.testing.assert_allclose(accuracy(binary), np.mean(np.sign(f_test[:, 0]) == signs[1]))
    one_hot = [np.eye(3)[generator.integers(3, size=size)] for size in (N, M)]
    start = generator.standard_normal((M, 3))
    several = predict((train, cross, *one_hot, np.zeros((N, 3)), start), epochs=[0])
    np.testing.assert_allclose(accuracy(several), np.mean(start.argmax(axis=1) == one_hot[1].argmax(axis=1)))
    assert predict(case(1, full=False)).test_accuracy is None
    assert predict(case(3, full=False)).test_accuracy is None


def test_a_separable_problem_is_learnt_perfectly():
    inputs = np.linspace(-1, 1, 40)
    kernel = np.multiply.outer(inputs, inputs)
    y = np.where(inputs > 0, 1.0, -1.0)
    surface = predict_risk(kernel, kernel, y, y, 0 * y, 0 * y, sizes=[10], epochs=[200], step_size=1, seeds=[0])
    np.testing.assert_array_equal(accuracy(surface), 1)


def test_intervals_are_students():
    values = np.random.default_rng(3).standard_normal((6, 2, 3))
    interval = over_seeds(values, 0.9)
    expected = scipy.stats.t.interval(0.9, 5, values.mean(axis=0), scipy.stats.sem(values, axis=0))
    np.testing.assert_allclose([interval.low, interval.high], expected)
    np.testing.assert_allclose(interval.mean, values.mean(axis=0))


def test_every_misfit_is_listed_at_once():
    train, cross, y, y_test, f, f_test = case(3, full=False)
    message = (
        r"(?s)predict_risk: 3 problems.*f_test has 2 outputs per example, y_train 3.*"
        r"train kernel has shape \[15, 16\]; wanted \[16, 16\] or \[16, 3, 16, 3\].*cross kernel has shape \[7, 15\]"
    )
    with pytest.raises(InputError, match=message):
        predict((train[1:], cross[:, 1:], y, y_test, f, f_test[:, :2]))
    with pytest.raises(InputError, match="one kernel has all pairs of outputs and the other has not"):
        predict((case(3, full=True)[0], cross, y, y_test, f, f_test))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sizes": [0, 17]}, r"(?s)2 problems.*size 0 is outside 1 … n = 16.*size 17 is outside"),
        ({"sizes": [], "seeds": [], "epochs": []}, r"(?s)3 problems.*no sizes.*no epochs.*no seeds"),
        ({"step_size": 100}, r"step size 100 is at or above the stability limit 2/λ̂₁"),
        ({"epochs": [1, -1]}, r"wanted a list of finite numbers, zero or above"),
    ],
)
def test_unusable_settings_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        predict(case(1, full=False), **arguments)


def test_bad_numbers_are_refused_by_name():
    train, cross, y, y_test, f, f_test = case(1, full=False)
    with pytest.raises(InputError, match="y_train: examples 3 hold NaN or infinity"):
        predict((train, cross, np.where(np.arange(N) == 3, np.nan, y[:, 0]), y_test, f, f_test))
    with pytest.raises(InputError, match=r"f_train: got shape \[15, 1\], wanted \[16, k\]"):
        predict((train, cross, y, y_test, f[1:], f_test))
    cross = np.where(np.arange(M)[:, None] == 4, np.inf, cross)
    with pytest.raises(InputError, match=r"cross kernel holds NaN or infinity for test examples \[4\]"):
        predict((train, cross, y, y_test, f, f_test))
    with pytest.raises(InputError, match="got 1 seed; an interval needs at least two"):
        over_seeds(np.ones((1, 2)), 0.9)
    with pytest.raises(InputError, match="level is 95; wanted a share between 0 and 1"):
        over_seeds(np.ones((3, 2)), 95)


def test_subsets_are_nested_random_and_those_that_the_surface_is_made_of():
    small, middle, whole = nested_rows(N, [3, 7, N], seed=5)
    assert set(small) < set(middle) < set(whole) == set(range(N))
    assert all((np.diff(rows) > 0).all() for rows in (small, middle, whole))
    assert not np.array_equal(small, nested_rows(N, [3], seed=6)[0])
    train, cross, y, y_test, f, f_test = case(1, full=False)
    found = predict((train, cross, y, y_test, f, f_test), sizes=[7], seeds=[5])
    cut = train[np.ix_(middle, middle)], cross[:, middle], y[middle], y_test, f[middle], f_test
    alone = predict(cut, sizes=[7], seeds=[0])
    np.testing.assert_allclose(found.test_mse, alone.test_mse, rtol=1e-12)
    with pytest.raises(InputError, match="size 17 is outside 0 … n = 16"):
        nested_rows(N, [17], seed=0)
