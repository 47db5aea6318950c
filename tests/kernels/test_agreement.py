"""Every exact method computes the same kernel: forms × shapes × models, against a forward-mode flat Jacobian."""

from functools import cache

import jax
import numpy as np
import pytest

import ntkft
from ntkft._tree import take_examples
from ntkft.kernels.empirical import Method
from tests.cases import CASES, FIRST_SIX
from tests.references import contract, dense_kernel, flat_jacobian
from tests.tolerances import KERNEL_F32, kernel_error

FIRST = tuple(case.__name__ for case in FIRST_SIX)
# Our own methods take any model. neural-tangents is the reference on the models that it can differentiate.
METHODS: dict[Method, tuple[str, ...]] = {
    "jacobian": tuple(CASES),
    "neural_tangents:1": FIRST,
    "neural_tangents:2": FIRST,
    "neural_tangents:3": FIRST,
}

# All forms and shapes for the first models, each form and each shape once for the others.
SETTINGS = [
    (name, outputs, shape)
    for name in CASES
    for outputs, own_shape in (("full", "square"), ("trace", "rectangular"), ("scalar", "square"))
    for shape in (["square", "rectangular"] if name in FIRST else [own_shape])
]


@cache
def _flat_jacobian(name) -> np.ndarray:
    """J `[7, k, p]` of all examples; rows depend on their own example only, so any two sets are slices of it."""
    case = CASES[name]()
    return flat_jacobian(case.reference or case.apply_fn, case.params, case.inputs)


def _setting(name, outputs, shape):
    case = CASES[name]()
    apply_fn = case.one_output() if outputs == "scalar" else case.apply_fn
    x1 = take_examples(case.inputs, slice(0, 4))
    x2 = take_examples(case.inputs, slice(4, 7)) if shape == "rectangular" else None
    return apply_fn, case.params, x1, x2


@pytest.mark.parametrize(("name", "outputs", "shape"), SETTINGS)
def test_every_method_equals_the_flat_jacobian(name, outputs, shape):
    apply_fn, params, x1, x2 = _setting(name, outputs, shape)
    jacobian = _flat_jacobian(name)
    if outputs == "scalar":
        jacobian = jacobian[:, :1] - jacobian[:, 1:2]
    expected = contract(jacobian[:4], jacobian[:4] if x2 is None else jacobian[4:], outputs)
    for method, names in METHODS.items():
        if name not in names:
            continue
        check = method == "jacobian" and outputs == "full"  # of the model, so once is enough
        kernel = ntkft.empirical_ntk(apply_fn, params, x1, x2, outputs=outputs, method=method, check=check)
        assert kernel.total.shape == expected.shape, method
        assert kernel_error(kernel.total, expected) <= CASES[name]().tolerance, method


@pytest.mark.parametrize("name", ["fused_decoder", "bert"])
def test_float32_is_within_rounding_of_float64(name):
    apply_fn, params, x1, _ = _setting(name, "trace", "square")
    expected = dense_kernel(apply_fn, params, x1, None, "trace")
    low = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), params)
    kernel = ntkft.empirical_ntk(apply_fn, low, x1, outputs="trace")
    assert kernel.precision == "float32"
    assert kernel.total.dtype == np.float32
    assert kernel_error(kernel.total, expected) <= KERNEL_F32
