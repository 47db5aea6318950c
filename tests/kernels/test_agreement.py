"""Every exact method computes the same kernel: forms × shapes × models, against a forward-mode flat Jacobian."""

import jax
import numpy as np
import pytest

import ntkft
from ntkft._tree import take_examples
from tests.cases import CASES
from tests.references import dense_kernel
from tests.tolerances import KERNEL_F32, KERNEL_F64, kernel_error

METHODS = ("jacobian", "neural_tangents:1", "neural_tangents:2", "neural_tangents:3")


def _setting(name, outputs, shape):
    case = CASES[name]()
    apply_fn = case.one_output() if outputs == "scalar" else case.apply_fn
    x1 = take_examples(case.inputs, slice(0, 4))
    x2 = take_examples(case.inputs, slice(4, 7)) if shape == "rectangular" else None
    return apply_fn, case.params, x1, x2


@pytest.mark.parametrize("shape", ["square", "rectangular"])
@pytest.mark.parametrize("outputs", ["full", "trace", "scalar"])
@pytest.mark.parametrize("name", list(CASES))
def test_every_method_equals_the_flat_jacobian(name, outputs, shape):
    apply_fn, params, x1, x2 = _setting(name, outputs, shape)
    expected = dense_kernel(apply_fn, params, x1, x2, outputs)
    for method in METHODS:
        kernel = ntkft.empirical_ntk(apply_fn, params, x1, x2, outputs=outputs, method=method)
        assert kernel.total.shape == expected.shape, method
        assert kernel_error(kernel.total, expected) <= KERNEL_F64, method


@pytest.mark.parametrize("name", ["fused_decoder", "bert"])
def test_float32_is_within_rounding_of_float64(name):
    apply_fn, params, x1, _ = _setting(name, "trace", "square")
    expected = dense_kernel(apply_fn, params, x1, None, "trace")
    low = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), params)
    kernel = ntkft.empirical_ntk(apply_fn, low, x1, outputs="trace")
    assert kernel.precision == "float32"
    assert kernel.total.dtype == np.float32
    assert kernel_error(kernel.total, expected) <= KERNEL_F32
