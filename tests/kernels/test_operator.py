"""Matrix-free products are products with the dense kernel, however they are grouped, stacked and streamed."""

import itertools
from functools import cache
from typing import Any

import jax
import numpy as np
import pytest

from ntkft import InputError
from ntkft._tree import take_examples
from ntkft.kernels.operator import KernelOperator, dense_or_matrix_free
from tests.cases import CASES
from tests.references import contract, dense_kernel, flat_jacobian
from tests.tolerances import CLOSED_FORM, INVARIANCE_F32, KERNEL_F32, KERNEL_F64, kernel_error

FORMS = ("full", "trace", "scalar")
GROUPS = {"mlp": ("^0/", "^(?!0/)"), "gpt2": ("attention", "^(?!.*attention)")}


def _setting(name: str, outputs: str = "full", x2: bool = False):
    case = CASES[name]()
    apply_fn = case.one_output() if outputs == "scalar" else case.apply_fn
    columns = take_examples(case.inputs, slice(4, 7)) if x2 else None
    return apply_fn, case.params, take_examples(case.inputs, slice(0, 5)), columns


@cache
def _jacobian(name: str) -> np.ndarray:
    case = CASES[name]()
    return flat_jacobian(case.apply_fn, case.params, case.inputs)


def _dense(name: str, outputs: str = "full", x2: bool = False) -> np.ndarray:
    jacobian = _jacobian(name)
    if outputs == "scalar":
        jacobian = jacobian[:, :1] - jacobian[:, 1:2]
    kernel = contract(jacobian[:5], jacobian[4:7] if x2 else jacobian[:5], outputs)
    return kernel.reshape(-1, int(np.prod(kernel.shape[kernel.ndim // 2 :])))


def _operator(setting, outputs: Any = "full", **options: Any) -> KernelOperator:
    apply_fn, params, x1, x2 = setting
    return KernelOperator(apply_fn, params, x1, x2, outputs=outputs, check=False, **options)


@cache
def _compiled(name: str, outputs: str, x2: bool) -> KernelOperator:
    """One operator for all tests that only multiply with it, since compiling it is most of their time."""
    return _operator(_setting(name, outputs, x2), outputs)


def _formed(operator: KernelOperator) -> np.ndarray:
    return operator(np.eye(operator.shape[1]))


def _vectors(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize(
    ("name", "outputs", "x2"),
    [
        *itertools.product(["mlp"], FORMS, [False, True]),
        *zip(["bert"] * 3, FORMS, [False, True, True], strict=True),
        *zip(["gpt2"] * 3, FORMS, [True, False, True], strict=True),
    ],
)
def test_products_with_unit_vectors_are_the_dense_kernel(name, outputs, x2):
    expected = _dense(name, outputs, x2)
    operator = _compiled(name, outputs, x2)
    assert operator.shape == expected.shape
    assert kernel_error(_formed(operator), expected) <= KERNEL_F64


@pytest.mark.parametrize(("name", "outputs"), [*itertools.product(["mlp"], FORMS), ("gpt2", "full")])
def test_adjoint_products_with_unit_vectors_are_the_dense_transpose(name, outputs):
    operator = _compiled(name, outputs, True)
    adjoint = operator.adjoint(np.eye(operator.shape[0]))
    assert kernel_error(adjoint, _dense(name, outputs, True).T) <= KERNEL_F64


@pytest.mark.parametrize("name", ["mlp", "bert"])
def test_float32_is_within_rounding_of_float64(name):
    apply_fn, params, x1, _ = _setting(name)
    low = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), params)
    operator = _operator((apply_fn, low, x1, None))
    formed = _formed(operator)
    assert operator.precision == "float32"
    assert formed.dtype == np.float32
    assert kernel_error(formed, _dense(name)) <= KERNEL_F32


def test_bfloat16_is_summed_over_micro_batches_in_float32():
    # Above 256 bfloat16 has even numbers only: 256 + 1 + 1 + 1 + 1, one in each micro-batch, would stay 256.
    ones = jax.numpy.ones((160, 1), jax.numpy.bfloat16)
    operator = _operator((lambda params, x: x @ params, ones[:1], ones, None), "scalar")
    vector = np.zeros(160)
    vector[[0, 32, 64, 96, 128]] = 256, 1, 1, 1, 1
    assert operator.precision == "bfloat16"
    np.testing.assert_array_equal(operator(vector), np.full(160, 260, np.float32), strict=True)
    assert operator.micro_batch == 32


@pytest.mark.parametrize("name", ["mlp", "bert"])
def test_the_square_map_is_linear_symmetric_and_positive_semidefinite(name):
    operator = _compiled(name, "full", False)
    u, v, formed = _vectors(10, 10), _vectors(10, 10, seed=1), _formed(operator)
    ku, kv = operator(u), operator(v)
    scale = float(np.linalg.norm(ku))
    np.testing.assert_allclose(operator(2 * u - 3 * v), 2 * ku - 3 * kv, rtol=0, atol=1e-12 * scale)
    np.testing.assert_allclose(v.T @ ku, kv.T @ u, rtol=0, atol=1e-12 * scale)
    np.testing.assert_allclose(ku, formed @ u, rtol=0, atol=1e-12 * scale)
    values = np.linalg.eigvalsh((formed + formed.T) / 2)
    assert values[0] >= -1e-12 * values[-1]


def test_a_small_budget_narrows_batches_and_stacks_and_changes_nothing():
    apply_fn, params, x1, x2 = _setting("gpt2", x2=True)
    low = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), params)
    wide, narrow = (_operator((apply_fn, low, x1, x2), memory=memory) for memory in ("1GB", "70kB"))
    vectors = _vectors(6, 5)  # at 70 kB three at a time, so the last chunk is not full
    assert kernel_error(narrow(vectors), wide(vectors)) <= INVARIANCE_F32
    assert wide.micro_batch == 5
    assert narrow.micro_batch < 5


@pytest.mark.parametrize("name", GROUPS)
def test_groups_sum_to_the_whole_and_are_the_kernels_of_their_parameters(name):
    setting = _setting(name, "trace")
    first, second = (_operator(setting, "trace", group=group) for group in GROUPS[name])
    parts = [_formed(first), _formed(second)]
    assert kernel_error(sum(parts), _formed(_compiled(name, "trace", False))) <= KERNEL_F64
    if name == "mlp":
        apply_fn, params, x1, _ = setting
        alone = dense_kernel(lambda layer, x: apply_fn([layer, *params[1:]], x), params[0], x1, None, "trace")
        assert kernel_error(parts[0], alone) <= KERNEL_F64


def test_a_vector_goes_in_and_comes_out_in_any_of_its_shapes():
    operator = _compiled("mlp", "full", True)
    flat, stack = _vectors(6), _vectors(6, 4)
    assert operator(flat).shape == (10,)
    np.testing.assert_allclose(operator(flat.reshape(3, 2)), operator(flat).reshape(5, 2), atol=1e-12)
    assert operator.adjoint(_vectors(5, 2)).shape == (3, 2)
    np.testing.assert_allclose(operator(stack), np.stack([operator(v) for v in stack.T], axis=1), atol=1e-12)


def test_products_are_counted_k_times_for_the_trace():
    full, trace = _operator(_setting("mlp")), _operator(_setting("mlp"), "trace")
    for operator in (full, trace):
        operator(_vectors(operator.shape[1], 3))
        operator(_vectors(operator.shape[1]))
    assert (full.products, trace.products) == (4, 8)


@pytest.mark.parametrize("outputs", ["full", "trace"])
def test_scipy_sees_a_map_and_its_adjoint(outputs):
    operator = _compiled("mlp", outputs, True)
    linear = operator.scipy()
    u, v = _vectors(operator.shape[0]), _vectors(operator.shape[1], seed=1)
    assert linear.shape == operator.shape
    np.testing.assert_allclose(u @ linear.matvec(v), linear.rmatvec(u) @ v, rtol=1e-12)
    np.testing.assert_allclose(linear.matmat(np.stack([v, -v], axis=1))[:, 1], -linear.matvec(v), rtol=1e-12)
    np.testing.assert_allclose(linear.H @ u, operator.adjoint(u), rtol=1e-12)


def test_the_model_is_compiled_once_for_each_number_of_vectors():
    traces = []
    apply_fn, params, x1, _ = _setting("mlp")

    def counted(params, inputs):
        traces.append(inputs.shape)
        return apply_fn(params, inputs)

    operator = _operator((counted, params, x1, None))
    operator(_vectors(10))
    before = len(traces)
    operator(_vectors(10, seed=1))
    assert len(traces) == before


def test_a_model_whose_rows_depend_on_one_another_is_refused():
    def centred(params, x):
        return (x - x.mean(axis=0, keepdims=True)) @ params["w"]

    with pytest.raises(InputError, match="row i must depend on example i only"):
        KernelOperator(centred, {"w": _vectors(3, 2)}, _vectors(6, 3), outputs="full")


@pytest.mark.parametrize(
    ("options", "vectors", "message"),
    [
        ({}, (7,), r"shape \[7\]; wanted \[10\] or \[10, b\], or one vector as \[5, 2\]"),
        ({}, (10, 0), r"shape \[10, 0\]"),
        ({"outputs": "trace"}, (5, 2, 1), r"shape \[5, 2, 1\]; wanted \[5\] or \[5, b\]$"),
        ({"outputs": "scalar"}, (5,), "wants a model with one output, this one has 2"),
        ({"group": "query"}, (10,), "group 'query' matches no parameter; the first of 6 paths is '0/bias'"),
        ({"memory": 100}, (10,), "one example's forward and backward pass beside the sum of gradients needs"),
    ],
)
def test_unusable_arguments_are_refused(options, vectors, message):
    with pytest.raises(InputError, match=message):
        _operator(_setting("mlp"), **options)(_vectors(*vectors))


@pytest.mark.parametrize(("n", "k", "tokens", "products"), [(100, 3, 7, 4), (1000, 2, 16, 9), (64, 1, 64, 1)])
def test_the_chooser_changes_sides_where_the_closed_form_says(n, k, tokens, products):
    choice = dense_or_matrix_free(n, k, tokens, 1000, products, memory="4GB")
    difference = (10 * products - 4 * k - 2) * tokens - n * k**2
    np.testing.assert_allclose(choice.flops_matrix_free - choice.flops_dense, n * 1000 * difference, rtol=CLOSED_FORM)
    assert choice.choice == ("dense" if difference >= 0 else "matrix_free")
    assert choice.fits


def test_the_chooser_says_what_is_cheaper_by_how_much_and_whether_it_fits():
    # Dense: 6·n·T·P + n²P = 512·P·(6·64 + 512); ten products: 100·n·T·P.
    sentence = dense_or_matrix_free(512, 1, 64, 10**7, 10, memory="1GB").sentence
    assert f"the dense kernel: 4.6e+12 FLOPs, {6400 / 896:.3g} times fewer than 10 matrix-free products" in sentence
    assert "K, held twice, is 0.0021 GB and fits the budget of 1 GB" in sentence
    large = dense_or_matrix_free(100_000, 1, 512, 10**9, 10**4, memory="64GB")
    assert large.flops_dense < large.flops_matrix_free
    assert (large.choice, large.fits, large.kernel_bytes) == ("matrix_free", False, 80 * 10**9)
    assert "does not fit the budget of 64 GB, which leaves the matrix-free products" in large.sentence
    with pytest.raises(InputError, match=r"2 problems\n.*n is 0; wanted a number above zero\n.*products is -1"):
        dense_or_matrix_free(0, 1, 64, 10, -1)
