"""Row-sampled kernels: exact where they must be, and never further from the exact kernel than they say."""

import jax
import numpy as np
import pytest

import ntkft
from ntkft import InputError
from ntkft._tree import take_examples
from ntkft.kernels.nystrom import Nystrom, kernel_diagonal, kernel_entries, nystrom, nystrom_error, sample_rows
from tests.cases import CASES
from tests.references import dense_kernel
from tests.tolerances import KERNEL_F32, KERNEL_F64, kernel_error

FORMS = ("full", "trace", "scalar")


def _setting(name: str, outputs: str):
    case = CASES[name]()
    apply_fn = case.one_output() if outputs == "scalar" else case.apply_fn
    return apply_fn, case.params, case.inputs


def _approximate(apply_fn, params, x, rows, outputs) -> Nystrom:
    chosen = take_examples(x, rows)
    return nystrom(
        ntkft.empirical_ntk(apply_fn, params, x, chosen, outputs=outputs),
        ntkft.empirical_ntk(apply_fn, params, chosen, outputs=outputs),
    )


def _dense(apply_fn, params, x, outputs) -> np.ndarray:
    kernel = dense_kernel(apply_fn, params, x, None, outputs)
    order = int(np.prod(kernel.shape[: kernel.ndim // 2]))
    return kernel.reshape(order, order)


@pytest.mark.parametrize("outputs", FORMS)
@pytest.mark.parametrize("name", ["mlp", "bert", "gpt2"])
def test_all_rows_give_the_exact_kernel_and_no_error(name, outputs):
    setting = _setting(name, outputs)
    approximation = _approximate(*setting, np.arange(7), outputs)
    expected = _dense(*setting, outputs)
    assert kernel_error(approximation.matrix(), expected) <= KERNEL_F64
    error = nystrom_error(approximation, *setting, entries=10, seed=0)
    assert abs(error.relative_trace) <= KERNEL_F64
    assert error.relative_frobenius <= KERNEL_F64


@pytest.mark.parametrize("outputs", FORMS)
def test_some_rows_are_reproduced_and_the_rest_is_positive_semidefinite(outputs):
    apply_fn, params, x = _setting("bert", outputs)
    rows = np.array([0, 2, 5])
    approximation, exact = _approximate(apply_fn, params, x, rows, outputs), _dense(apply_fn, params, x, outputs)
    block = len(exact) // 7
    flat = (rows[:, None] * block + np.arange(block)[None]).reshape(-1)
    missing = exact - approximation.matrix()
    assert approximation.rank == len(flat)
    np.testing.assert_allclose(missing[flat], 0, atol=1e-10 * np.abs(exact).max())
    assert np.linalg.eigvalsh(missing)[0] >= -1e-10 * np.abs(exact).max()


@pytest.mark.parametrize("outputs", FORMS)
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_the_stated_error_is_the_distance_from_the_dense_kernel(name, outputs):
    setting = _setting(name, outputs)
    approximation = _approximate(*setting, np.array([1, 4]), outputs)
    exact = _dense(*setting, outputs)
    missing = exact - approximation.matrix()
    error = nystrom_error(approximation, *setting, entries=400, seed=0)
    np.testing.assert_allclose(error.trace, np.trace(missing), rtol=1e-9)
    np.testing.assert_allclose(error.relative_trace, np.trace(missing) / np.trace(exact), rtol=1e-9)
    assert error.standard_error < 0.2 * error.frobenius
    assert abs(error.frobenius - np.linalg.norm(missing)) <= 5 * error.standard_error
    assert error.relative_frobenius >= (error.frobenius - 1e-12) / np.linalg.norm(exact)
    assert np.linalg.norm(missing) <= error.trace


def test_the_stated_standard_error_is_the_spread_over_seeds():
    setting = _setting("mlp", "full")
    approximation = _approximate(*setting, np.array([1, 4]), "full")
    errors = [nystrom_error(approximation, *setting, entries=100, seed=seed) for seed in range(40)]
    spread = np.std([error.frobenius for error in errors], ddof=1)
    # Forty draws know their spread to 1/√78, so five standard errors are 57 %.
    assert 0.43 <= spread / np.mean([error.standard_error for error in errors]) <= 1.57


@pytest.mark.parametrize("outputs", FORMS)
def test_eigenvalues_are_those_of_the_matrix_over_n(outputs):
    setting = _setting("gpt2", outputs)
    approximation = _approximate(*setting, np.array([0, 3]), outputs)
    expected = np.linalg.eigvalsh(approximation.matrix() / 7)[::-1]
    np.testing.assert_allclose(approximation.eigenvalues(), expected, atol=1e-12 * expected[0])
    assert np.count_nonzero(approximation.eigenvalues()) == approximation.rank


def test_repeated_landmarks_are_dropped_at_the_floor_of_the_precision():
    apply_fn, params, x = _setting("bert", "scalar")
    low = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), params)
    approximation = _approximate(apply_fn, low, x, np.array([0, 0, 2, 2, 5]), "scalar")
    once = _approximate(apply_fn, params, x, np.array([0, 2, 5]), "scalar")
    assert approximation.rank == 3
    values = np.linalg.eigvalsh(_dense(apply_fn, params, take_examples(x, np.array([0, 0, 2, 2, 5])), "scalar"))
    np.testing.assert_allclose(approximation.floor, np.finfo(np.float32).eps * values[-1] * np.sqrt(5), rtol=1e-5)
    assert kernel_error(approximation.matrix(), once.matrix()) <= KERNEL_F32


@pytest.mark.parametrize("name", ["mlp", "bert", "gpt2"])
def test_the_diagonal_and_single_entries_are_those_of_the_dense_kernel(name):
    for outputs in FORMS:
        setting = _setting(name, outputs)
        exact = _dense(*setting, outputs)
        diagonal = kernel_diagonal(*setting, outputs=outputs)
        assert diagonal.shape == ((7, 2) if outputs == "full" else (7,))
        np.testing.assert_allclose(diagonal.reshape(-1), np.diag(exact), rtol=KERNEL_F64)
        rows, columns = np.random.default_rng(0).integers(0, len(exact), (2, 9))
        entries = kernel_entries(*setting, rows, columns, outputs=outputs)
        np.testing.assert_allclose(entries, exact[rows, columns], atol=KERNEL_F64 * np.abs(exact).max())


def test_a_small_budget_changes_nothing():
    setting = _setting("gpt2", "full")
    whole = kernel_diagonal(*setting, outputs="full")
    np.testing.assert_allclose(kernel_diagonal(*setting, outputs="full", memory="60kB"), whole, rtol=KERNEL_F64)
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
    square, rectangle = (
        ntkft.empirical_ntk(*setting, x2, outputs="trace") for x2 in (None, take_examples(x, slice(3)))
    )
    with pytest.raises(InputError, match=r"cross is \[7, 3\] and landmarks \[7, 7\]"):
        nystrom(rectangle, square)
    full = ntkft.empirical_ntk(*setting, outputs="full")
    with pytest.raises(InputError, match=r"2 problems\n.*cross has outputs='trace', landmarks 'full'"):
        nystrom(square, full)
    still = ntkft.empirical_ntk(lambda p, x: 0 * apply_fn(p, x), params, x, outputs="trace")
    with pytest.raises(InputError, match="the kernel of the landmarks is zero"):
        nystrom(square, still)
    approximation = nystrom(square, square)
    with pytest.raises(InputError, match="got entries=1; wanted two or more"):
        nystrom_error(approximation, *setting, entries=1, seed=0)
    with pytest.raises(InputError, match="got 3 examples, the approximation is of 7"):
        nystrom_error(approximation, apply_fn, params, take_examples(x, slice(3)), entries=5, seed=0)
    with pytest.raises(InputError, match="indices outside 0 … 6"):
        kernel_entries(*setting, np.array([7]), np.array([0]), outputs="trace")
