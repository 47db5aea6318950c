import numpy as np
import pytest
import scipy.linalg

from ntkft._errors import InputError
from ntkft.taskvectors import geometry, interference, principal_angles
from tests.tolerances import CLOSED_FORM

SHAPES = {"a": (4, 2), "b": (3, 2), "c": (5, 1)}


@pytest.fixture
def tasks():
    """Jacobians `[n, k, p]` and dual coefficients of three tasks."""
    generator = np.random.default_rng(0)
    jacobians = {name: generator.standard_normal((*shape, 40)) for name, shape in SHAPES.items()}
    return jacobians, {name: generator.standard_normal(shape) for name, shape in SHAPES.items()}


def kernel(first, second):
    return np.einsum("iap,jbp->iajb", first, second)


def test_lengths_and_angles_are_those_of_the_vectors(tasks):
    jacobians, duals = tasks
    # One pair is given the other way round.
    pairs = [("a", "a"), ("b", "b"), ("c", "c"), ("a", "b"), ("c", "a"), ("b", "c")]
    found = geometry({(i, j): kernel(jacobians[i], jacobians[j]) for i, j in pairs}, duals)
    vectors = np.stack([np.einsum("iap,ia->p", jacobians[name], duals[name]) for name in SHAPES])
    np.testing.assert_allclose(found.inner, vectors @ vectors.T, atol=CLOSED_FORM)
    np.testing.assert_allclose(found.norm, np.linalg.norm(vectors, axis=1), atol=CLOSED_FORM)
    unit = vectors / found.norm[:, None]
    np.testing.assert_allclose(found.cosine, unit @ unit.T, atol=CLOSED_FORM)
    assert found.tasks == tuple(SHAPES)
    np.testing.assert_array_equal(np.diag(found.interference), 1)
    own = {name: np.linalg.norm(kernel(j, j)) for name, j in jacobians.items()}
    expected = np.linalg.norm(kernel(jacobians["a"], jacobians["c"])) / np.sqrt(own["a"] * own["c"])
    assert found.interference[0, 2] == found.interference[2, 0] == pytest.approx(expected)


def test_a_kernel_of_examples_acts_on_every_output_alike(tasks):
    _, duals = tasks
    features = {name: np.random.default_rng(1).standard_normal((SHAPES[name][0], 9)) for name in "ab"}
    two = {name: duals[name] for name in "ab"}
    small = {(i, j): features[i] @ features[j].T for i, j in ("aa", "ab", "bb")}
    large = {pair: np.einsum("ij,ab->iajb", block, np.eye(2)) for pair, block in small.items()}
    np.testing.assert_allclose(geometry(small, two).inner, geometry(large, two).inner, atol=CLOSED_FORM)


def test_interference_is_zero_for_tasks_that_share_nothing_and_one_for_a_task_and_itself(tasks):
    jacobians, _ = tasks
    first, second = jacobians["a"].copy(), jacobians["b"].copy()
    assert interference(kernel(first, first), kernel(first, first), kernel(first, first)) == pytest.approx(1)
    first[..., 20:], second[..., :20] = 0, 0
    blocks = [kernel(*pair) for pair in ((first, second), (first, first), (second, second))]
    assert interference(*blocks) == 0
    np.testing.assert_allclose(principal_angles(*blocks, precision="float64"), np.pi / 2)


def test_principal_angles_are_those_of_the_gradients_spans(tasks):
    jacobians, _ = tasks
    first, second = jacobians["a"], jacobians["b"].copy()
    second[0, 0] = 2 * first[1, 1]  # a direction in common
    second[2, 1] = second[2, 0]  # and one that counts once
    found = principal_angles(kernel(first, second), kernel(first, first), kernel(second, second), precision="float64")
    expected = np.sort(scipy.linalg.subspace_angles(first.reshape(8, -1).T, second.reshape(6, -1).T))
    assert len(found) == 5
    assert found[0] < 1e-6
    np.testing.assert_allclose(found[1:], np.unique(np.round(expected, 9))[-4:], atol=1e-7)


def test_pairs_that_are_missing_or_do_not_fit_are_all_named(tasks):
    jacobians, duals = tasks
    blocks = {(i, i): kernel(jacobians[i], jacobians[i]) for i in SHAPES}
    blocks["a", "b"] = kernel(jacobians["a"], jacobians["b"])[:3]
    with pytest.raises(InputError) as caught:
        geometry(blocks, duals)
    text = str(caught.value)
    assert "the kernel of 'a' and 'b' has shape [3, 2, 3, 2]; wanted [4, 2, 3, 2] or [4, 3]" in text
    assert "no kernel of 'a' and 'c'" in text
    assert "no kernel of 'b' and 'c'" in text
    with pytest.raises(InputError, match=r"cross kernel has shape \[4, 2, 2, 2\]"):
        principal_angles(
            kernel(jacobians["a"], jacobians["b"][:2]), blocks["a", "a"], blocks["b", "b"], precision="float64"
        )
