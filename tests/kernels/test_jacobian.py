"""Invariants of the sliced Jacobian: how it is cut, grouped, padded and ordered changes nothing."""

from functools import partial

import jax
import numpy as np
import pytest

import ntkft
from ntkft import InputError
from ntkft._tree import leaf_paths, take_examples
from ntkft.kernels.memory import budget_bytes
from ntkft.kernels.slices import TALL, partition
from tests.cases import CASES, T
from tests.references import dense_kernel, flat_jacobian
from tests.tolerances import INVARIANCE_F32, KERNEL_F64, kernel_error

GROUPS = {"qkv": "qkv", "norm": "blocks/./(scale|bias)$", "rest": "token|position|out$|up$|down$|head"}


jacobian_ntk = partial(ntkft.empirical_ntk, method="jacobian")


def _float32(case):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), case.params)


@pytest.mark.parametrize("outputs", ["full", "trace"])
@pytest.mark.parametrize("rectangular", [False, True])
def test_a_small_budget_cuts_slices_and_changes_nothing(outputs, rectangular):
    case = CASES["fused_decoder"]()
    x1, x2 = (case.inputs, None) if not rectangular else (case.inputs, take_examples(case.inputs, slice(1, 6)))
    whole = jacobian_ntk(case.apply_fn, case.params, x1, x2, outputs=outputs, groups=GROUPS, memory="1GB")
    cut = jacobian_ntk(case.apply_fn, case.params, x1, x2, outputs=outputs, groups=GROUPS, memory="70kB")
    assert whole.plan.pieces == 1
    assert cut.plan.pieces >= 3
    assert kernel_error(cut.total, whole.total) <= KERNEL_F64
    for name in GROUPS:
        np.testing.assert_allclose(cut.groups[name], whole.groups[name], rtol=0, atol=1e-10)


def test_groups_are_the_kernels_of_their_parameters_and_sum_to_the_total():
    case = CASES["fused_decoder"]()
    kernel = jacobian_ntk(case.apply_fn, _float32(case), case.inputs, outputs="full", groups=GROUPS)
    assert kernel_error(sum(kernel.groups.values()), kernel.total) <= INVARIANCE_F32
    params = jax.tree.map(jax.numpy.asarray, case.params)

    def of_projections(projections, inputs):
        blocks = [
            block | {"qkv": w, "qkv_bias": b} for block, (w, b) in zip(params["blocks"], projections, strict=True)
        ]
        return case.apply_fn(params | {"blocks": blocks}, inputs)

    projections = [(block["qkv"], block["qkv_bias"]) for block in params["blocks"]]
    alone = dense_kernel(of_projections, projections, case.inputs, None, "full")
    assert kernel_error(kernel.groups["qkv"], alone) <= 5e-6


def test_a_square_kernel_is_exactly_symmetric_and_positive_semidefinite():
    case = CASES["bert"]()
    kernel = jacobian_ntk(case.apply_fn, _float32(case), case.inputs, outputs="full").total
    flat = kernel.reshape(14, 14)
    assert np.array_equal(flat, flat.T)
    eigenvalues = np.linalg.eigvalsh(flat.astype(np.float64))
    assert eigenvalues[0] >= -1e-6 * eigenvalues[-1]


def test_trace_is_the_sum_over_equal_outputs_of_full():
    case = CASES["gpt2"]()
    full = jacobian_ntk(case.apply_fn, case.params, case.inputs, outputs="full").total
    trace = jacobian_ntk(case.apply_fn, case.params, case.inputs, outputs="trace").total
    assert kernel_error(trace, np.einsum("iaja->ij", full)) <= KERNEL_F64


def test_permuting_examples_permutes_the_kernel():
    case = CASES["bert"]()
    params, order = _float32(case), np.array([3, 0, 6, 1, 5, 2, 4])
    straight = jacobian_ntk(case.apply_fn, params, case.inputs, outputs="trace").total
    permuted = jacobian_ntk(case.apply_fn, params, take_examples(case.inputs, order), outputs="trace").total
    assert kernel_error(permuted, straight[np.ix_(order, order)]) <= INVARIANCE_F32


def test_the_square_kernel_is_the_rectangular_one_of_a_set_with_itself():
    case = CASES["gpt2"]()
    params = _float32(case)
    square = jacobian_ntk(case.apply_fn, params, case.inputs, outputs="full").total
    rectangle = jacobian_ntk(case.apply_fn, params, case.inputs, case.inputs, outputs="full").total
    assert kernel_error(rectangle, square) <= INVARIANCE_F32


def test_padding_changes_nothing():
    case = CASES["bert"]()
    params = _float32(case)
    short = {"input_ids": case.inputs["input_ids"][:, :4], "attention_mask": case.inputs["attention_mask"][:, :4]}
    longer = jax.tree.map(lambda leaf: np.pad(leaf, ((0, 0), (0, T - 4))), short)
    plain = jacobian_ntk(case.apply_fn, params, short, outputs="trace").total
    padded = jacobian_ntk(case.apply_fn, params, longer, outputs="trace").total
    assert kernel_error(padded, plain) <= INVARIANCE_F32


def test_rows_of_a_tall_table_that_no_example_touches_are_left_out():
    generator = np.random.default_rng(0)
    params = {"table": generator.normal(size=(TALL + 5, 4)), "out": generator.normal(size=(4, 2))}
    ids = generator.integers(0, TALL, (6, 3)).astype(np.int32)

    def apply_fn(params, ids):
        return jax.numpy.tanh(params["table"][ids]).mean(axis=1) @ params["out"]

    kernel = jacobian_ntk(apply_fn, params, ids, outputs="full", memory="400kB")
    assert kernel.plan.zeros == 4 * (TALL + 5 - len(np.unique(ids)))
    flat = flat_jacobian(apply_fn, params, ids, mode=jax.jacrev)  # of 16,412 parameters
    assert kernel_error(kernel.total, np.einsum("iap,jbp->iajb", flat, flat)) <= KERNEL_F64


def test_slices_cover_every_parameter_once():
    leaves = [np.zeros((10, 3)), np.zeros(7), np.zeros((4, 2, 2)), np.zeros((50, 2))]
    touched = {3: np.array([1, 4, 30])}
    slices = partition(leaves, ["a"] * 4, touched, columns=9)
    assert all(sum(piece.columns for piece in pieces) <= 9 for pieces in slices)
    covered = {index: [] for index in range(4)}
    for piece in (piece for pieces in slices for piece in pieces):
        covered[piece.leaf] += [-1] if piece.rows is None else list(piece.rows)
    assert covered == {0: list(range(10)), 1: [-1], 2: list(range(4)), 3: [1, 4, 30]}


def test_progress_goes_slice_by_slice_to_pairs_of_examples_times_parameters():
    case = CASES["mlp"]()
    seen = []
    kernel = jacobian_ntk(
        case.apply_fn, case.params, case.inputs, outputs="full", memory="12kB",
        progress=lambda *pair: seen.append(pair),
    )  # fmt: skip
    size = sum(leaf.size for leaf in leaf_paths(case.params).values())
    total = 7 * 8 // 2 * size
    assert seen == sorted(set(seen))
    assert kernel.plan.pieces > 1
    assert len(seen) == 1 + kernel.plan.pieces
    assert seen[0] == (0, total)
    assert seen[-1] == (total, total)


def test_memory_budgets_are_read_in_bytes():
    assert budget_bytes("4GB") == 4 * 10**9
    assert budget_bytes("0.5 GiB") == 2**29
    assert budget_bytes(1234) == 1234
    with pytest.raises(InputError, match="wanted bytes or a size such as '4GB'"):
        budget_bytes("lots")
    with pytest.raises(InputError, match="positive number of bytes"):
        budget_bytes(-1)


@pytest.mark.parametrize(
    ("memory", "message"), [(800, "does not hold the kernel itself twice"), ("5kB", "fewer than one row of the widest")]
)
def test_a_budget_too_small_says_what_would_do(memory, message):
    case = CASES["fused_decoder"]()
    with pytest.raises(InputError, match=message):
        jacobian_ntk(case.apply_fn, case.params, case.inputs, outputs="trace", memory=memory)
