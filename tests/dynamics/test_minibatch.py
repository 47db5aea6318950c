"""Expected minibatch descent against every sequence of batches, against many random ones, and against real training."""

import itertools

import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft.dynamics import dual_coefficients, expected_error, gradient_descent, minibatch_descent, outputs_at
from ntkft.finetuning import optimizers
from ntkft.spectra import spectrum_of_matrix
from tests.finetuning.tiny import descend
from tests.spectra.matrices import Record
from tests.tolerances import CLOSED_FORM

N, M, STEP = 5, 3, 0.4


def linear_model(form, n=N, seed=0):
    """Features `[n + M, k, p]` of a model linear in its parameters, targets and outputs before training `[n + M, k]`.

    "shared": every output has weights of its own on the same features; "full": all outputs share all parameters.
    """
    generator = np.random.default_rng(seed)
    k = 1 if form == "one" else 2
    if form == "full":
        features = generator.standard_normal((n + M, k, 4)) / 2
    else:
        features = np.einsum("ip,ab->iabp", generator.standard_normal((n + M, 4)) / 2, np.eye(k)).reshape(n + M, k, -1)
    return features, *generator.standard_normal((2, n + M, k))


def kernels(form, features, n=N):
    """Training kernel and kernel of all examples with the training ones, in the form's shape."""
    full = np.einsum("iap,jbp->iajb", features, features[:n])
    array = full if form == "full" else full[:, 0, :, 0]
    return array[:n], array


def trained(features, y, f, batches, step=STEP):
    """Outputs of all examples after one step of θ on each batch: explicit descent on the parameters."""
    theta = np.zeros(features.shape[2])
    for batch in batches:
        rows = list(batch)
        theta = theta - step / len(rows) * np.einsum("iap,ia->p", features[rows], (f + features @ theta - y)[rows])
    return f + features @ theta


def all_batches(size, replace, n=N):
    """Every batch that a step may draw, all equally likely."""
    return list(itertools.product(range(n), repeat=size) if replace else itertools.combinations(range(n), size))


@pytest.mark.parametrize("form", ["one", "shared", "full"])
@pytest.mark.parametrize("replace", [False, True])
def test_mean_and_error_are_averages_over_every_sequence_of_batches(form, replace):
    features, y, f = linear_model(form)
    train, every = kernels(form, features)
    steps = 2 if replace else 3
    descent = minibatch_descent(
        train, y[:N], f[:N], batch_size=2, replace=replace, step_size=STEP, steps=[steps, 0, 1]
    )  # fmt: skip
    sequences = itertools.product(all_batches(2, replace), repeat=steps)
    outputs = np.array([trained(features, y, f, batches) for batches in sequences])
    np.testing.assert_allclose(outputs_at(every, descent.mean, f)[0], outputs.mean(axis=0), atol=CLOSED_FORM)
    for rows in (slice(0, N), slice(N, None)):
        error = expected_error(descent, every[rows], y[rows], f[rows])
        squared = np.sum((outputs[:, rows] - y[None, rows]) ** 2, axis=2).mean(axis=1)
        assert error.total[0] == pytest.approx(squared.mean(), rel=CLOSED_FORM)
        assert error.noise[0] > 1e-3 * error.total[0]
        assert error.noise[1] == 0


@pytest.mark.parametrize("form", ["one", "shared", "full"])
def test_the_mean_path_is_full_batch_descent_and_a_batch_of_all_has_no_noise(form):
    features, y, f = linear_model(form)
    train, every = kernels(form, features)
    steps = [0, 3, 40]
    path = dual_coefficients(
        spectrum_of_matrix(train, precision="float64"), y[:N] - f[:N], gradient_descent(STEP), steps
    )
    for size, replace in ((1, False), (3, True), (N, False)):
        descent = minibatch_descent(
            train, y[:N], f[:N], batch_size=size, replace=replace, step_size=STEP, steps=steps
        )  # fmt: skip
        np.testing.assert_allclose(descent.mean, path, atol=CLOSED_FORM)
        noise = expected_error(descent, every, y, f).noise
        assert np.all(noise[1:] > 1e-4) if size < N else np.all(noise == 0)


def test_many_random_runs_average_to_the_expected_error():
    # Runs fixed in advance; five standard errors of the mean, which are small enough to notice a tenth of the noise.
    n, size, steps, runs = 12, 4, 25, 20_000
    features, y, f = linear_model("one", n=n, seed=3)
    train, every = kernels("one", features, n=n)
    descent = minibatch_descent(train, y[:n], f[:n], batch_size=size, replace=False, step_size=STEP, steps=[steps])
    generator = np.random.default_rng(4)
    weights = np.zeros((runs, features.shape[2]))
    for _ in range(steps):
        rows = np.argsort(generator.random((runs, n)), axis=1)[:, :size]
        chosen = features[rows, 0]
        wrong = f[rows, 0] + np.einsum("rbp,rp->rb", chosen, weights) - y[rows, 0]
        weights = weights - STEP / size * np.einsum("rbp,rb->rp", chosen, wrong)
    errors = np.mean((f[n:, 0] + weights @ features[n:, 0].T - y[n:, 0]) ** 2, axis=1)
    expected = expected_error(descent, every[n:], y[n:], f[n:])
    deviation = 5 * errors.std(ddof=1) / np.sqrt(runs)
    assert deviation < 0.1 * expected.noise[0]
    assert abs(errors.mean() - expected.total[0]) < deviation


def epochs_of_permutations(x, y, step, size):
    """Residuals on the training examples after one epoch, `[n, permutations]`, for every permutation cut in batches."""
    orders = itertools.permutations(range(len(x)))
    epochs = [[order[i : i + size] for i in range(0, len(x), size)] for order in orders]
    return y - np.array([trained(x[:, None], y, np.zeros_like(y), batches, step) for batches in epochs])[:, :, 0].T


def test_an_epoch_of_real_training_is_one_of_the_permutations():
    n, size = 6, 2
    features, y, _ = linear_model("one", n=n, seed=1)
    x, y = features[:n, 0], y[:n]
    left = epochs_of_permutations(x, y, STEP, size)
    result = descend(
        lambda params, inputs: inputs @ params["w"],
        {"w": np.zeros((x.shape[1], 1))},
        (x, y),
        optimizers.gradient_descent(STEP),
        1,
        batch_size=size,
        seed=5,
        evaluate={"train": (x, y)},
        keep_predictions=["train"],
    )
    assert result.curves["train"].predictions is not None
    real = y - result.curves["train"].predictions[-1]
    assert np.abs(left - real).max(axis=0).min() < CLOSED_FORM


def test_when_an_epoch_ends_permutations_leave_noise_of_fourth_order_and_independent_batches_of_second():
    n, size = 6, 2
    features, y, f = linear_model("one", n=n, seed=1)
    x, y, f = features[:n, 0], y[:n], f[:n] * 0

    def noises(step):
        independent = minibatch_descent(
            x @ x.T, y, f, batch_size=size, replace=False, step_size=step, steps=[n // size]
        )  # fmt: skip
        permuted = np.mean(np.var(epochs_of_permutations(x, y, step, size), axis=1))
        return permuted, expected_error(independent, x @ x.T, y, f).noise[0]

    (permuted, independent), (quieter, halved) = noises(0.04), noises(0.02)
    assert 14 < permuted / quieter < 18
    assert 3.5 < independent / halved < 4.5
    assert permuted < independent / 100


def test_the_mean_over_permutations_differs_from_full_batch_descent_by_the_stated_second_order_term():
    n, size = 6, 2
    features, y, _ = linear_model("one", n=n, seed=1)
    x, y, count = features[:n, 0], y[:n], n // size
    kernel = x @ x.T
    excess = kernel @ (n / (n - 1) * (kernel - np.diag(np.diag(kernel))) - kernel)

    def unexplained(step):
        mean = epochs_of_permutations(x, y, step, size).mean(axis=1)
        full = np.linalg.matrix_power(np.eye(n) - step / n * kernel, count)
        second = (step / n) ** 2 * count * (count - 1) / 2 * excess
        return np.linalg.norm(mean - full @ y[:, 0]), np.linalg.norm(mean - (full + second) @ y[:, 0])

    (difference, rest), (_, smaller) = unexplained(0.04), unexplained(0.02)
    assert rest < 0.1 * difference
    assert 7 < rest / smaller < 9  # third order


def test_a_trace_record_is_divided_by_the_number_of_outputs():
    features, y, f = linear_model("shared")
    train, every = kernels("shared", features)
    settings = {"batch_size": 2, "replace": False, "step_size": STEP, "steps": [4]}
    plain = minibatch_descent(train, y[:N], f[:N], **settings)
    trace = minibatch_descent(Record(2 * train, "trace"), y[:N], f[:N], **settings)
    np.testing.assert_allclose(trace.covariance, plain.covariance, atol=CLOSED_FORM)
    error = expected_error(plain, every, y, f)
    np.testing.assert_allclose(expected_error(trace, Record(2 * every, "trace"), y, f).total, error.total)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; wanted 1 to n = 5"),
        ({"batch_size": 6}, "batch_size is 6; wanted 1 to n = 5, or replace=True"),
        ({"steps": [0.5]}, "step 0.5 is not whole"),
        ({"step_size": 100.0}, "at or above the stability limit"),
        (
            {"step_size": 3.5, "batch_size": 1, "steps": [5000]},
            "the variance diverges at step size 3.5 with batches of 1",
        ),
        ({"kernel": np.eye(4)}, r"kernel has shape \[4, 4\]; wanted \[5, 5\] or \[5, 1, 5, 1\]"),
        ({"targets": np.zeros((N, 2))}, "targets have 2 columns for 1 outputs"),
    ],
)
def test_bad_input_is_refused_with_what_was_wanted(changes, message):
    features, y, f = linear_model("one")
    arguments = {"kernel": kernels("one", features)[0], "targets": y[:N], "pretrained": f[:N], "batch_size": 2}
    with pytest.raises(InputError, match=message):
        minibatch_descent(**arguments | {"replace": False, "step_size": STEP, "steps": [3]} | changes)


def test_the_form_of_the_kernel_must_not_change_between_descent_and_error():
    features, y, f = linear_model("full")
    train, every = kernels("full", features)
    descent = minibatch_descent(
        train, y[:N], f[:N], batch_size=2, replace=False, step_size=STEP, steps=[1]
    )  # fmt: skip
    with pytest.raises(InputError, match="wanted the form, shared by all outputs or of all pairs of them"):
        expected_error(descent, every[:, 0, :, 0], y, f)
