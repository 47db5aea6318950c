"""Row-sampled kernels: exact where they must be, and never further from the exact kernel than they say."""

import itertools
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

import ntkft
from ntkft import InputError
from ntkft._tree import take_examples
from ntkft.kernels.kernel import Kernel, Plan
from ntkft.kernels.row_sampled import Nystrom, kernel_diagonal, kernel_entries, nystrom, nystrom_error, sample_rows
from tests.cases import CASES
from tests.references import contract, flat_jacobian
from tests.tolerances import KERNEL_F32, KERNEL_F64, kernel_error

FORMS = ("full", "trace", "scalar")
PLAN = Plan("dense", parameters=0, zeros=0, pieces=0, micro_batch=0, bytes=0)


def _setting(name: str, outputs: str):
    case = CASES[name]()
    apply_fn = case.one_output() if outputs == "scalar" else case.apply_fn
    return apply_fn, case.params, case.inputs


@cache
def _jacobian(name: str) -> np.ndarray:
    case = CASES[name]()
    return flat_jacobian(case.apply_fn, case.params, case.inputs)


def _kernel(name: str, outputs: Any, precision: str = "float64") -> Kernel:
    """The kernel of all seven examples, of which those with landmarks are parts."""
    jacobian = _jacobian(name).astype(precision)
    jacobian = jacobian[:, :1] - jacobian[:, 1:2] if outputs == "scalar" else jacobian
    return Kernel(contract(jacobian, jacobian, outputs), {}, outputs, precision, True, PLAN)


def _approximate(kernel: Kernel, rows) -> Nystrom:
    columns = kernel.total[:, rows] if kernel.total.ndim == 2 else kernel.total[:, :, rows]
    return nystrom(replace(kernel, total=columns, symmetric=False), replace(kernel, total=columns[rows]))


@pytest.mark.parametrize("outputs", FORMS)
@pytest.mark.parametrize("name", ["mlp", "bert", "gpt2"])
def test_all_rows_give_the_exact_kernel(name, outputs):
    kernel = _kernel(name, outputs)
    assert kernel_error(_approximate(kernel, np.arange(7)).matrix(), kernel.matrix()) <= KERNEL_F64


def test_all_rows_leave_no_error():
    apply_fn, params, x = setting = _setting("mlp", "full")
    cross = ntkft.empirical_ntk(apply_fn, params, x, x, outputs="full", method="jacobian")
    landmarks = ntkft.empirical_ntk(apply_fn, params, x, outputs="full", method="jacobian")
    error = nystrom_error(nystrom(cross, landmarks), *setting, entries=10, seed=0)
    assert abs(error.relative_trace) <= KERNEL_F64
    assert error.relative_frobenius <= KERNEL_F64


@pytest.mark.parametrize("outputs", FORMS)
def test_some_rows_are_reproduced_and_the_rest_is_positive_semidefinite(outputs):
    rows, exact = np.array([0, 2, 5]), _kernel("bert", outputs).matrix()
    approximation = _approximate(_kernel("bert", outputs), rows)
    block = len(exact) // 7
    flat = (rows[:, None] * block + np.arange(block)[None]).reshape(-1)
    missing = exact - approximation.matrix()
    assert approximation.rank == len(flat)
    np.testing.assert_allclose(missing[flat], 0, atol=1e-10 * np.abs(exact).max())
    assert np.linalg.eigvalsh(missing)[0] >= -1e-10 * np.abs(exact).max()


@pytest.mark.parametrize(("name", "outputs"), [("bert", "scalar"), ("gpt2", "full"), ("mlp", "trace")])
def test_the_stated_error_is_the_distance_from_the_dense_kernel(name, outputs):
    approximation, exact = _approximate(_kernel(name, outputs), np.array([1, 4])), _kernel(name, outputs).matrix()
    missing = exact - approximation.matrix()
    error = nystrom_error(approximation, *_setting(name, outputs), entries=400, seed=0)
    np.testing.assert_allclose(error.trace, np.trace(missing), rtol=1e-9)
    np.testing.assert_allclose(error.relative_trace, np.trace(missing) / np.trace(exact), rtol=1e-9)
    assert error.standard_error < 0.2 * error.frobenius
    assert abs(error.frobenius - np.linalg.norm(missing)) <= 5 * error.standard_error
    assert error.relative_frobenius >= (error.frobenius - 1e-12) / np.linalg.norm(exact)
    assert np.linalg.norm(missing) <= error.trace


def test_the_stated_standard_error_is_the_spread_over_seeds(monkeypatch):
    x = np.random.default_rng(0).normal(size=(12, 8))
    exact = x @ x.T
    # The kernel of a linear model, looked up: compiling it for every seed would take most of the time.
    monkeypatch.setattr("ntkft.kernels.row_sampled.kernel_diagonal", lambda *args, **options: np.diag(exact))
    monkeypatch.setattr("ntkft.kernels.row_sampled.kernel_entries", lambda *args, **options: exact[args[3], args[4]])
    approximation = _approximate(Kernel(exact, {}, "scalar", "float64", True, PLAN), np.arange(3))
    setting = lambda params, x: x @ params, np.ones((8, 1)), x
    errors = [nystrom_error(approximation, *setting, entries=100, seed=seed) for seed in range(200)]
    spread = np.std([error.frobenius for error in errors], ddof=1)
    # Two hundred draws know their spread to 1/√398, so five standard errors are 25 %.
    assert 0.75 <= spread / np.mean([error.standard_error for error in errors]) <= 1.25


@pytest.mark.parametrize("outputs", FORMS)
def test_eigenvalues_are_those_of_the_matrix_over_n(outputs):
    approximation = _approximate(_kernel("gpt2", outputs), np.array([0, 3]))
    expected = np.linalg.eigvalsh(approximation.matrix() / 7)[::-1]
    np.testing.assert_allclose(approximation.eigenvalues(), expected, atol=1e-12 * expected[0])
    assert np.count_nonzero(approximation.eigenvalues()) == approximation.rank


def test_repeated_landmarks_are_dropped_at_the_floor_of_the_precision():
    repeated, exact = np.array([0, 0, 2, 2, 5]), _kernel("bert", "scalar")
    approximation = _approximate(_kernel("bert", "scalar", "float32"), repeated)
    once = _approximate(exact, np.array([0, 2, 5]))
    assert approximation.rank == 3
    values = np.linalg.eigvalsh(exact.matrix()[np.ix_(repeated, repeated)])
    np.testing.assert_allclose(approximation.floor, np.finfo(np.float32).eps * values[-1] * np.sqrt(5), rtol=1e-5)
    assert kernel_error(approximation.matrix(), once.matrix()) <= KERNEL_F32


@pytest.mark.parametrize(("name", "outputs"), [*itertools.product(["mlp"], FORMS), ("bert", "full"), ("gpt2", "trace")])
def test_the_diagonal_and_single_entries_are_those_of_the_dense_kernel(name, outputs):
    setting, exact = _setting(name, outputs), _kernel(name, outputs).matrix()
    diagonal = kernel_diagonal(*setting, outputs=outputs)
    assert diagonal.shape == ((7, 2) if outputs == "full" else (7,))
    np.testing.assert_allclose(diagonal.reshape(-1), np.diag(exact), rtol=KERNEL_F64)
    rows, columns = np.random.default_rng(0).integers(0, len(exact), (2, 9))
    entries = kernel_entries(*setting, rows, columns, outputs=outputs)
    np.testing.assert_allclose(entries, exact[rows, columns], atol=KERNEL_F64 * np.abs(exact).max())


def test_a_small_budget_changes_nothing():
    setting = _setting("mlp", "full")
    exact = np.diag(_kernel("mlp", "full").matrix()).reshape(7, 2)
    np.testing.assert_allclose(kernel_diagonal(*setting, outputs="full", memory="6kB"), exact, rtol=KERNEL_F64)
    with pytest.raises(InputError, match="the gradients of one pair of examples needs"):
        kernel_diagonal(*setting, outputs="full", memory=1000)


def test_rows_are_drawn_by_their_weights_and_reproduced_by_the_seed():
    weights = np.array([0.0, 1.0, 3.0, 0.0, 4.0])
    first = np.array([sample_rows(5, 1, seed=seed, weights=weights)[0] for seed in range(2000)])
    share = np.bincount(first, minlength=5) / 2000
    # Five standard errors of a share p over 2000 draws.
    assert np.all(np.abs(share - weights / 8) <= 5 * np.sqrt(weights / 8 * (1 - weights / 8) / 2000))
    rows = sample_rows(50, 20, seed=3)
    assert np.array_equal(rows, sample_rows(50, 20, seed=3))
    assert len(np.unique(rows)) == 20
    assert np.array_equal(sample_rows(5, 3, seed=0, weights=np.stack([weights, weights], axis=1)), [1, 2, 4])


def test_unusable_arguments_are_refused():
    setting = apply_fn, params, x = _setting("mlp", "trace")
    with pytest.raises(InputError, match="got count=4; wanted 1 to 3"):
        sample_rows(5, 4, seed=0, weights=np.array([0.0, 1, 1, 1, 0]))
    with pytest.raises(InputError, match="weights hold negative"):
        sample_rows(2, 1, seed=0, weights=np.array([-1.0, 1]))
    square, full = _kernel("mlp", "trace"), _kernel("mlp", "full")
    rectangle = replace(square, total=square.total[:, :3], symmetric=False)
    with pytest.raises(InputError, match=r"cross is \[7, 3\] and landmarks \[7, 7\]"):
        nystrom(rectangle, square)
    with pytest.raises(InputError, match=r"2 problems\n.*cross has outputs='trace', landmarks 'full'"):
        nystrom(square, full)
    with pytest.raises(InputError, match="the kernel of the landmarks is zero"):
        nystrom(square, replace(square, total=0 * square.total))
    with pytest.raises(InputError, match="the kernels hold NaN"):
        nystrom(square, replace(square, total=np.nan * square.total))
    approximation = nystrom(square, square)
    with pytest.raises(InputError, match="got entries=1; wanted two or more"):
        nystrom_error(approximation, *setting, entries=1, seed=0)
    with pytest.raises(InputError, match="got 3 examples, the approximation is of 7"):
        nystrom_error(approximation, apply_fn, params, take_examples(x, slice(3)), entries=5, seed=0)
    with pytest.raises(InputError, match="indices outside 0 … 6"):
        kernel_entries(*setting, np.array([7]), np.array([0]), outputs="trace")
