"""SignGD kernels against their definition on a dense Jacobian, and the shapes and sums they must keep."""

from functools import cache

import jax
import numpy as np
import pytest

from ntkft import InputError
from ntkft._tree import leaf_paths, take_examples
from ntkft.kernels.signgd import signgd_ntk
from ntkft.kernels.slices import TALL
from tests.cases import CASES
from tests.references import contract, flat_jacobian
from tests.tolerances import KERNEL_F64, kernel_error

KINDS = ("symmetric", "asymmetric")
# Biases of attention keys, alone or fused with others: their gradient is zero by an identity, so its computed sign is
# rounding noise. Every other entry of these models has a sign that no rounding changes.
NOISE = {"mlp": None, "bert": "key/bias", "tied_decoder": "qkv_bias"}
GROUPS = {
    "mlp": {"kernels": "kernel", "biases": "bias"},
    "bert": {"attention": "attention", "rest": "^(?!.*attention)"},
    "tied_decoder": {"table": "token", "rest": "position|blocks"},
}
# All forms and shapes for the model that compiles at once, each form and each shape for the others.
SETTINGS = [("mlp", outputs, rectangular) for outputs in ("full", "trace", "scalar") for rectangular in (False, True)]
SETTINGS += [(name, *rest) for name in ("bert", "tied_decoder") for rest in (("full", True), ("trace", False))]


@cache
def _settled(name):
    """A case as a function of all leaves but the noisy ones, by path; and its dense Jacobian `[7, k, p]`."""
    case = CASES[name]()
    leaves, structure = leaf_paths(case.params), jax.tree.structure(case.params)
    chosen = {path: leaf for path, leaf in leaves.items() if NOISE[name] is None or NOISE[name] not in path}
    assert len(chosen) < len(leaves) or NOISE[name] is None

    def apply_chosen(chosen, inputs):
        return case.apply_fn(jax.tree.unflatten(structure, (leaves | chosen).values()), inputs)

    return apply_chosen, chosen, case.inputs, flat_jacobian(apply_chosen, chosen, case.inputs)


def _difference(apply_fn):
    """The first output minus the second."""
    return lambda params, inputs: apply_fn(params, inputs)[:, :1] - apply_fn(params, inputs)[:, 1:2]


def _reference(jacobian, rows, columns, outputs, kind):
    left = np.sign(jacobian) if kind == "symmetric" else jacobian
    return contract(left[rows], np.sign(jacobian)[columns], outputs)


@pytest.mark.parametrize(("name", "outputs", "rectangular"), SETTINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_product_of_signs_of_the_dense_jacobian(kind, name, outputs, rectangular):
    apply_fn, params, inputs, jacobian = _settled(name)
    if outputs == "scalar":
        apply_fn, jacobian = _difference(apply_fn), jacobian[:, :1] - jacobian[:, 1:2]
    rows = slice(0, 4)
    columns = slice(2, 7) if rectangular else rows
    x2 = take_examples(inputs, columns) if rectangular else None
    kernel = signgd_ntk(
        apply_fn, params, take_examples(inputs, rows), x2, outputs=outputs, kind=kind, groups=GROUPS[name], check=False
    )
    expected = _reference(jacobian, rows, columns, outputs, kind)
    assert kernel_error(kernel.total, expected) <= KERNEL_F64
    if kind == "symmetric":
        np.testing.assert_array_equal(kernel.total, expected)  # sums of ±1 and 0
    assert kernel_error(sum(kernel.groups.values()), kernel.total) <= KERNEL_F64
    assert kernel.symmetric == (kind == "symmetric" and not rectangular)
    assert kernel.plan.method == f"signgd:{kind}"


@pytest.mark.parametrize("kind", KINDS)
def test_groups_are_the_kernels_of_their_own_columns(kind):
    apply_fn, params, inputs, jacobian = _settled("tied_decoder")
    kernel = signgd_ntk(apply_fn, params, inputs, outputs="trace", kind=kind, groups=GROUPS["tied_decoder"])
    sizes = [leaf.size for leaf in params.values()]
    owner = np.repeat(["token" in path for path in params], sizes)
    for group, chosen in (("table", owner), ("rest", ~owner)):
        expected = _reference(jacobian[:, :, chosen], slice(None), slice(None), "trace", kind)
        assert kernel_error(kernel.groups[group], expected) <= KERNEL_F64


def test_the_asymmetric_square_is_not_symmetric_and_rows_are_the_outputs_that_change():
    apply_fn, params, inputs, jacobian = _settled("mlp")
    kernel = signgd_ntk(apply_fn, params, inputs, outputs="full", kind="asymmetric")
    assert not kernel.symmetric
    matrix = kernel.matrix()
    assert np.abs(matrix - matrix.T).max() > 0.1 * np.abs(matrix).max()
    # One small step along −sign ∇f_0(x'_3) moves f_1(x_5) by −ε Θ[5,1,3,0], up to the curvature, O(ε²).
    step, rate = np.sign(jacobian[3, 0]), 1e-6
    moved = _like(params, step)
    stepped = jax.tree.map(lambda leaf, direction: leaf - rate * direction, params, moved)
    change = np.asarray(apply_fn(stepped, inputs) - apply_fn(params, inputs))[5, 1]
    np.testing.assert_allclose(change / -rate, kernel.total[5, 1, 3, 0], rtol=1e-4)


def _like(params, flat):
    """The flat vector as a pytree like `params`."""
    leaves, structure = jax.tree.flatten(params)
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1]
    parts = [part.reshape(leaf.shape) for part, leaf in zip(np.split(flat, ends), leaves, strict=True)]
    return jax.tree.unflatten(structure, parts)


@pytest.mark.parametrize("kind", KINDS)
def test_a_small_budget_cuts_slices_and_changes_nothing(kind):
    apply_fn, params, inputs, _ = _settled("mlp")
    whole = signgd_ntk(apply_fn, params, inputs, outputs="full", kind=kind)
    cut = signgd_ntk(apply_fn, params, inputs, outputs="full", kind=kind, memory="12kB")
    assert whole.plan.pieces == 1
    assert cut.plan.pieces >= 2
    assert kernel_error(cut.total, whole.total) <= KERNEL_F64


def test_rows_of_a_table_that_no_example_touches_are_left_out():
    generator = np.random.default_rng(0)
    params = {"table": generator.normal(size=(TALL + 5, 4)), "out": generator.normal(size=(4, 2))}
    ids = generator.integers(0, TALL, (6, 3)).astype(np.int32)

    def apply_fn(params, ids):
        return jax.numpy.tanh(params["table"][ids]).mean(axis=1) @ params["out"]

    kernel = signgd_ntk(apply_fn, params, ids, outputs="full", kind="symmetric", memory="400kB")
    assert kernel.plan.zeros == 4 * (TALL + 5 - len(np.unique(ids)))
    touched = [4 * len(np.unique(row)) + 4 for row in ids]  # the table's rows, and one column of the head
    np.testing.assert_array_equal(np.einsum("iaia->ia", kernel.total), np.repeat(touched, 2).reshape(6, 2))


def test_the_kind_is_asked_for():
    case = CASES["mlp"]()
    with pytest.raises(InputError, match="got kind='adam'; wanted one of 'symmetric', 'asymmetric'"):
        signgd_ntk(case.apply_fn, case.params, case.inputs, outputs="full", kind="adam")  # pyright: ignore[reportArgumentType]
