"""Solvers against their own equations, written here from the papers."""

import numpy as np
import pytest
import scipy.special

from ntkft._errors import InputError
from ntkft.dynamics import (
    SHARES,
    asymmetric_machine,
    best_share,
    dual_coefficients,
    logistic_regression,
    outputs_at,
    ridge,
    ridge_regression,
)
from ntkft.spectra import spectrum_of_matrix
from tests.spectra.matrices import Record, full_kernel, min_kernel, prescribed
from tests.tolerances import CLOSED_FORM

N, M = 10, 4
GENERATOR = np.random.default_rng(0)
Y, F = GENERATOR.standard_normal((2, N, 3))
SIGNS = GENERATOR.choice([-1.0, 1.0], N)
PENALTIES = SHARES[1:]


@pytest.mark.parametrize("kernel", [min_kernel(N), full_kernel(N, 1, 3, seed=0)[0]], ids=["shared", "full"])
def test_ridge_is_the_direct_solve_and_the_spectral_filter(kernel):
    matrix = np.kron(kernel, np.eye(3)) if kernel.ndim == 2 else kernel.reshape(3 * N, 3 * N)
    found = ridge_regression(kernel, Y - F, shares=PENALTIES)
    norm = np.linalg.norm(matrix, 2)
    for dual, share in zip(found, PENALTIES, strict=True):
        expected = np.linalg.solve(matrix + share * norm * np.eye(3 * N), (Y - F).ravel())
        np.testing.assert_allclose(dual.ravel(), expected, atol=CLOSED_FORM)
    spectrum = spectrum_of_matrix(kernel, precision="float64")
    times = [1 / (share * spectrum.eigenvalues[0]) for share in PENALTIES]
    np.testing.assert_allclose(dual_coefficients(spectrum, Y - F, ridge(1.0), times), found, atol=CLOSED_FORM)


def test_no_penalty_is_the_least_squares_solution_of_least_norm():
    low_rank = prescribed([3.0, 1.0, 0.5] + [0.0] * (N - 3), seed=1)
    (dual,) = ridge_regression(Record(low_rank, "scalar"), SIGNS, shares=[0])
    np.testing.assert_allclose(dual[:, 0], np.linalg.pinv(low_rank, rcond=1e-10) @ SIGNS, atol=CLOSED_FORM)


def test_a_trace_record_is_divided_by_the_number_of_outputs():
    trace = ridge_regression(Record(3 * min_kernel(N), "trace"), Y, shares=[0.1])
    np.testing.assert_allclose(trace, ridge_regression(min_kernel(N), Y, shares=[0.1]), atol=CLOSED_FORM)


@pytest.mark.parametrize("loss", ["logistic", "cross_entropy"])
def test_logistic_regression_ends_where_the_gradient_of_the_penalised_loss_vanishes(loss):
    kernel = min_kernel(N) if loss == "logistic" else full_kernel(N, 1, 3, seed=0)[0]
    start, targets = (F[:, :1], SIGNS) if loss == "logistic" else (F, np.arange(N) % 3)
    shares = (0.01, 0.1, 1.0)
    found = logistic_regression(kernel, targets, start, loss=loss, shares=shares)
    norm = np.linalg.norm(kernel.reshape(start.size, start.size), 2)
    for dual, share in zip(found, shares, strict=True):
        f = outputs_at(kernel, dual[None], start)[0]
        if loss == "logistic":
            slope = -SIGNS[:, None] / (1 + np.exp(SIGNS[:, None] * f))
        else:
            slope = scipy.special.softmax(f, axis=1) - np.eye(3)[targets]
        # The iteration is within 1e-10 of the solution's norm; the norm here is a few units.
        np.testing.assert_allclose(share * norm * dual, -slope, atol=1e-8)


def feature_maps(seed, n=N, p=14):
    """Two feature maps `[n, p]`, the second the sign of the first, as in training by signs."""
    phi = np.random.default_rng(seed).standard_normal((n, p)) + 0.5
    return phi, np.sign(phi)


@pytest.mark.parametrize("bias", [True, False])
def test_the_asymmetric_machine_is_a_stationary_point_of_its_primal_problem(bias):
    phi, psi = feature_maps(2, n=N + M)
    kernel, residual = phi @ psi.T, (Y - F)[:, 0]
    share = 0.3
    machine = asymmetric_machine(kernel[:N, :N], residual, shares=[share], bias=bias)
    a, c, (b1, b2) = machine.rows[0, :, 0], machine.columns[0, :, 0], machine.biases[0, :, 0]
    omega, nu, penalty = c @ psi[:N], a @ phi[:N], share * np.linalg.norm(kernel[:N, :N], 2)

    # With the constraints inserted, the objective is a function of ω, ν and the biases: its gradient vanishes.
    def gradient(omega, nu, b1, b2):
        e, h = residual - phi[:N] @ omega - b1, residual - psi[:N] @ nu - b2
        return np.concatenate(
            [nu - e @ phi[:N] / penalty, omega - h @ psi[:N] / penalty, [e.sum() / penalty, h.sum() / penalty]]
        )

    slopes = gradient(omega, nu, b1, b2)
    np.testing.assert_allclose(slopes if bias else slopes[:-2], 0, atol=CLOSED_FORM)
    assert bias or not np.any(machine.biases)
    first, second = machine.outputs(kernel[N:, :N], kernel[:N, N:], np.ones(M))
    np.testing.assert_allclose(first[0, :, 0], 1 + phi[N:] @ omega + b1, atol=CLOSED_FORM)
    np.testing.assert_allclose(second[0, :, 0], 1 + psi[N:] @ nu + b2, atol=CLOSED_FORM)


def test_on_signs_it_solves_the_published_equations():
    phi, psi = feature_maps(3)
    kernel, share = phi @ psi.T, 0.2
    inverse_gamma = share * np.linalg.norm(kernel, 2)
    labelled, y, zero = SIGNS[:, None] * kernel * SIGNS[None], SIGNS[:, None], np.zeros((N, 1))
    system = np.block(
        [
            [np.zeros((1, 2)), y.T, zero.T],
            [np.zeros((1, 2)), zero.T, y.T],
            [y, zero, inverse_gamma * np.eye(N), labelled],
            [zero, y, labelled.T, inverse_gamma * np.eye(N)],
        ]
    )
    b1, b2, *multipliers = np.linalg.solve(system, np.concatenate([[0, 0], np.ones(2 * N)]))
    alpha, beta = np.reshape(multipliers, (2, N))
    machine = asymmetric_machine(Record(kernel, "scalar"), SIGNS, shares=[share], bias=True)
    np.testing.assert_allclose(machine.rows[0, :, 0], alpha * SIGNS, atol=CLOSED_FORM)
    np.testing.assert_allclose(machine.columns[0, :, 0], beta * SIGNS, atol=CLOSED_FORM)
    np.testing.assert_allclose(machine.biases[0, :, 0], [b1, b2], atol=CLOSED_FORM)


@pytest.mark.parametrize("bias", [True, False])
def test_a_symmetric_kernel_gives_the_ordinary_machine(bias):
    kernel, share = min_kernel(N), 0.03
    machine = asymmetric_machine(kernel, Y, shares=[share], bias=bias)
    ones = np.ones((N, int(bias)))
    system = np.block(
        [[kernel + share * np.linalg.norm(kernel, 2) * np.eye(N), ones], [ones.T, np.zeros((int(bias),) * 2)]]
    )
    expected = np.linalg.solve(system, np.concatenate([Y, np.zeros((int(bias), 3))]))
    for dual in (machine.rows[0], machine.columns[0]):
        np.testing.assert_allclose(dual, expected[:N], atol=CLOSED_FORM)
    if bias:
        np.testing.assert_allclose(machine.biases[0], np.tile(expected[N:], (2, 1)), atol=CLOSED_FORM)
    else:
        np.testing.assert_allclose(
            machine.rows, ridge_regression(kernel, Y, shares=[share]), atol=CLOSED_FORM
        )  # fmt: skip


def test_the_best_share_is_the_first_of_the_most_accurate():
    outputs = np.array([[-1.0, 1, 1], [1, 1, -1], [2, 3, -4]])[:, :, None]
    assert best_share(outputs, np.array([[1.0], [1], [-1]])) == 1
    with pytest.raises(InputError, match="targets are no classes"):
        best_share(outputs, np.array([[0.3], [1], [-1]]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ridge_regression(min_kernel(N), Y, shares=[]), "got no shares"),
        (lambda: ridge_regression(min_kernel(N), Y, shares=[-0.1]), "share is -0.1; wanted a finite number, zero or"),
        (
            lambda: logistic_regression(min_kernel(N), SIGNS, F[:, :1], loss="logistic", shares=[0, 0.1]),
            "share 0; separable examples have no finite solution",
        ),
        (
            lambda: asymmetric_machine(min_kernel(N)[:5], SIGNS, shares=[0.1], bias=True),
            r"kernel has shape \[5, 10\]; wanted \[n, n\]",
        ),
        (
            lambda: asymmetric_machine(feature_maps(4)[0] @ feature_maps(4)[1].T, SIGNS, shares=[1], bias=False),
            "at share 1 the system is singular",
        ),
    ],
)
def test_bad_input_is_refused_with_what_was_wanted(call, message):
    with pytest.raises(InputError, match=message):
        call()
