"""Projected kernels: unbiased, with the variance of theory, exact where they must be, and as far off as they say."""

from functools import cache

import jax
import numpy as np
import pytest

import ntkft
from ntkft import InputError
from ntkft._tree import assign_groups, leaf_paths, take_examples
from ntkft.kernels.factors.probes import Prober
from ntkft.kernels.projection import Pilot, projected_ntk, projection_pilot
from tests.cases import CASES
from tests.references import contract, flat_jacobian
from tests.tolerances import KERNEL_F64, kernel_error

PROBES = 4096
# Matrices, biases, a gather; a table used twice, turned; a product with a batch axis; a weight used three times;
# convolutions, whose gradients are formed in full.
MODELS = ("mlp", "bert", "tied_decoder", "expert_batch", "matrix_thrice", "signal_convolutions")
GROUPS = {"kernels": "kernel", "biases": "bias"}


def _probes(apply_fn, params, inputs, count, outputs):
    """Probes `[n, k, r]` of each leaf, all of whose blocks are added."""
    k = jax.eval_shape(apply_fn, params, inputs).shape[1]
    own = {path: path for path in leaf_paths(params)}
    prober = Prober(apply_fn, params, inputs, group_of=own, k=k, seed=0)
    found: dict = {}
    probes = prober(inputs, [count] * len(prober.slots), outputs, stream=0, memory=10**9)
    for slot, array in zip(prober.slots, probes, strict=True):
        # Independent probes of two blocks: their sum has the mean of the sum, as inside a slot.
        found[slot.group] = found.get(slot.group, 0) + array
    return found


@cache
def _many(n: int):
    """The MLP, n examples and their exact kernel."""
    case = CASES["mlp"]()
    x = np.random.default_rng(0).normal(size=(n, 5))
    jacobian = flat_jacobian(case.apply_fn, case.params, x)
    return case.apply_fn, case.params, x, contract(jacobian, jacobian, "full")


@pytest.mark.parametrize("outputs", ["full", "trace"])
@pytest.mark.parametrize("name", MODELS)
def test_probes_of_every_leaf_are_unbiased(name, outputs):
    case = CASES[name]()
    jacobian = flat_jacobian(case.reference or case.apply_fn, case.params, case.inputs)
    leaves = leaf_paths(case.params)
    ends = np.cumsum([leaf.size for leaf in leaves.values()])[:-1]
    noise = 1e-14 * np.sum(jacobian**2)  # of gradients that are zero by an identity
    columns = dict(zip(leaves, np.split(np.arange(jacobian.shape[2]), ends), strict=True))
    for path, array in _probes(case.apply_fn, case.params, case.inputs, PROBES, outputs).items():
        part = jacobian[:, :, columns[path]]
        expected = contract(part, part, outputs)
        order = array.shape[0] * array.shape[1]
        flat = array.reshape(order, -1)
        products = flat[:, None] * flat[None]
        deviation = np.abs(products.mean(axis=2) - expected.reshape(order, order))
        standard_error = products.std(axis=2, ddof=1) / np.sqrt(PROBES)
        assert np.all(deviation <= 5 * standard_error + noise), path


def test_a_bias_of_two_per_cent_would_be_seen():
    case = CASES["mlp"]()
    count, path = 400_000, "0/kernel"
    energy = (_probes(case.apply_fn, case.params, case.inputs, count, "full")[path] ** 2).sum(axis=(0, 1))
    jacobian = flat_jacobian(case.apply_fn, case.params, case.inputs)
    start = list(leaf_paths(case.params)).index(path) * leaf_paths(case.params)["0/bias"].size
    expected = np.sum(jacobian[:, :, start : start + leaf_paths(case.params)[path].size] ** 2)
    standard_error = energy.std(ddof=1) / np.sqrt(count)
    assert abs(energy.mean() - expected) <= 5 * standard_error
    assert 5 * standard_error < 0.02 * expected


def test_the_variance_of_a_probe_is_that_of_theory():
    """E (uᵀGv)²(uᵀHv)² − ⟨G,H⟩² for random signs, from their moments E u_i u_j u_k u_l."""
    generator = np.random.default_rng(3)
    params = {"w": generator.normal(size=(5, 4))}
    tokens = generator.normal(size=(3, 6, 5))

    def apply_fn(params, x):
        return jax.numpy.tanh(x @ params["w"]).sum(axis=(1, 2))[:, None]

    count = 200_000
    probes = _probes(apply_fn, params, tokens, count, "full")["w"][:, 0]
    gradients = flat_jacobian(apply_fn, params, tokens).reshape(3, 5, 4)
    for g, h, f, e in ((gradients[i], gradients[j], probes[i], probes[j]) for i in range(3) for j in range(i + 1)):
        right, turn = g @ h.T, g.T @ h
        dense = np.sum(g**2) * np.sum(h**2) + np.sum(g * h) ** 2
        smooth = dense + 2 * np.sum(right**2) + 2 * np.sum(turn**2) + 2 * np.trace(turn @ turn)
        # Where two indices meet, E u⁴ = 1 instead of 3 for a normal variable.
        fourth = (
            2 * np.sum((g**2).sum(0) * (h**2).sum(0))
            + 2 * np.sum((g**2).sum(1) * (h**2).sum(1))
            + 4 * np.sum(np.diag(turn) ** 2)
            + 4 * np.sum(np.diag(right) ** 2)
            - 4 * np.sum(g**2 * h**2)
        )
        products = f * e
        squares = (products - products.mean()) ** 2
        assert abs(squares.mean() - (smooth - fourth)) <= 5 * squares.std() / np.sqrt(count)
        assert fourth > 0  # signs vary less than normal variables would


@pytest.mark.parametrize("landmarks", [0, 8])
@pytest.mark.parametrize("rank", [64, 4096])
def test_the_error_is_what_it_is_said_to_be(rank, landmarks):
    apply_fn, params, x, exact = _many(80)
    arguments = {"outputs": "full", "seed": 1, "landmarks": landmarks}
    projected = projected_ntk(apply_fn, params, x, rank=rank, check=False, **arguments)
    exact = exact.reshape(160, 160)
    error = np.linalg.norm(projected.matrix() - exact) / np.linalg.norm(exact)
    assert error <= 1.5 * projected.expected_error
    assert error <= 1.5 * projected.measured_error
    assert projected.measured_error <= 1.5 * projected.expected_error <= 2.25 * projected.measured_error
    pilot = projection_pilot(apply_fn, params, x, check=False, **arguments)
    assert pilot.expected_error(rank) == pytest.approx(projected.expected_error, rel=1e-6)
    assert pilot.expected_error(4 * 4096) == pytest.approx(pilot.expected_error(4096) / 2, rel=0.01)


def test_over_seeds_the_mean_is_the_kernel_and_the_measured_error_the_spread():
    apply_fn, params, x, exact = _many(12)
    exact = exact.reshape(24, 24)
    along, excess = [], []
    for seed in range(8):
        projected = projected_ntk(apply_fn, params, x, outputs="full", rank=200, seed=seed, landmarks=4, check=False)
        deviation = projected.matrix() - exact
        along.append(np.sum(deviation * exact))
        excess.append(np.sum(deviation**2) - (projected.measured_error * np.linalg.norm(projected.matrix())) ** 2)
    for values in (along, excess):
        assert abs(np.mean(values)) <= 5 * np.std(values, ddof=1) / np.sqrt(len(values))


@pytest.mark.parametrize("outputs", ["full", "trace"])
def test_rows_of_landmarks_are_exact_and_the_whole_is_a_gram_matrix(outputs):
    apply_fn, params, x, full = _many(12)
    exact = full if outputs == "full" else np.einsum("iaja->ij", full)
    arguments = {"outputs": outputs, "seed": 2, "landmarks": 4, "groups": GROUPS}
    projected = projected_ntk(apply_fn, params, x, rank=100, **arguments)
    landmarks = projection_pilot(apply_fn, params, x, **arguments).landmarks
    matrix = projected.matrix().reshape(exact.shape)
    assert kernel_error(matrix[landmarks], exact[landmarks]) <= KERNEL_F64
    assert kernel_error(matrix, exact) > 1e-3  # the others are not
    assert projected.symmetric
    assert np.linalg.eigvalsh(projected.matrix())[0] >= -1e-12
    alone = ntkft.empirical_ntk(apply_fn, params, x, outputs=outputs, groups=GROUPS, method="jacobian", check=False)
    for name in GROUPS:
        part = projected.matrix(name).reshape(exact.shape)
        assert kernel_error(part[landmarks], alone.groups[name][landmarks]) <= KERNEL_F64
    assert kernel_error(projected.matrix("kernels") + projected.matrix("biases"), projected.matrix()) <= KERNEL_F64


def test_a_rectangle_is_of_both_sets_of_examples():
    apply_fn, params, x, full = _many(80)
    x1, x2 = x[:50], x[50:]
    projected = projected_ntk(apply_fn, params, x1, x2, outputs="trace", rank=1000, seed=0, landmarks=8)
    exact = np.einsum("iaja->ij", full)[:50, 50:]
    assert projected.matrix().shape == (50, 30)
    assert not projected.symmetric
    error = np.linalg.norm(projected.matrix() - exact) / np.linalg.norm(exact)
    assert error <= 1.5 * projected.expected_error
    assert error <= 1.5 * projected.measured_error


def test_the_seed_decides_everything():
    apply_fn, params, x, _ = _many(12)
    first, again, other = (
        projected_ntk(apply_fn, params, x, outputs="full", rank=50, seed=seed, landmarks=2, check=False)
        for seed in (0, 0, 1)
    )
    assert np.array_equal(first.rows["all"], again.rows["all"])
    assert np.abs(first.matrix() - other.matrix()).max() > 0.01 * np.abs(first.matrix()).max()


def test_probes_do_not_depend_on_the_other_examples():
    case = CASES["bert"]()
    group_of, counts = assign_groups(case.params, None), None
    prober = Prober(case.apply_fn, case.params, case.inputs, group_of=group_of, k=2, seed=0)
    counts = [3] * len(prober.slots)
    whole = prober(case.inputs, counts, "full", stream=1, memory=10**9)
    part = prober(take_examples(case.inputs, slice(4, 6)), counts, "full", stream=1, memory=10**9)
    for all_rows, rows in zip(whole, part, strict=True):
        np.testing.assert_allclose(all_rows[4:6], rows, rtol=0, atol=1e-12)


def test_probes_go_where_the_variance_is():
    variances = np.array([[0.0, 16.0], [0.0, 1.0], [0.0, 0.0]])
    pilot = Pilot(variances, np.array([1.0, 1.0]), n=10, m=5, landmarks=np.arange(0))
    counts = pilot.counts(506)
    assert counts == [402, 102, 2]
    assert pilot.expected_error(506) == pytest.approx(np.sqrt(16 / 402 + 1 / 102))
    with pytest.raises(InputError, match="got rank=5; wanted 6 or more, two for each of the model's 3 weight matrices"):
        pilot.counts(5)


def test_bad_requests_say_what_would_do():
    apply_fn, params, x, _ = _many(12)
    with pytest.raises(InputError, match="got landmarks=11; wanted 0 to 10, which leaves two of the 12 examples"):
        projected_ntk(apply_fn, params, x, outputs="full", rank=100, seed=0, landmarks=11)
    with pytest.raises(InputError, match="probing the gradient of one example needs"):
        projection_pilot(apply_fn, params, x, outputs="full", seed=0, landmarks=0, memory=1000)
