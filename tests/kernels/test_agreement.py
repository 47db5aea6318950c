"""Every exact method computes the same kernel: forms × shapes × models, against a forward-mode flat Jacobian."""

from functools import cache

import jax
import numpy as np
import pytest

import ntkft
from ntkft._tree import take_examples
from ntkft.kernels.empirical import Method
from tests.cases import CASES, FIRST_SIX
from tests.references import contract, flat_jacobian
from tests.tolerances import KERNEL_F32, kernel_error

FIRST = tuple(case.__name__ for case in FIRST_SIX)
# Our own methods take any model. neural-tangents is the reference on the models that it can differentiate.
METHODS: dict[Method, tuple[str, ...]] = {
    "factors": tuple(CASES),
    "factors:pairs": FIRST,
    "jacobian": tuple(CASES),
    "neural_tangents:1": FIRST,
    "neural_tangents:2": FIRST,
    "neural_tangents:3": FIRST,
}

# For the first models our own methods see every pair of a form and a shape. The others are about how a model is
# written, which the form of the kernel comes after: two of the pairs tell.
DIAGONAL = {"full": "square", "trace": "rectangular", "scalar": "square"}
SETTINGS = [
    (name, outputs, shape)
    for name in CASES
    for outputs in (DIAGONAL if name in FIRST else ("full", "trace"))
    for shape in (["square", "rectangular"] if name in FIRST else [DIAGONAL[outputs]])
]


def _is_float64(name) -> bool:
    return all(leaf.dtype == np.float64 for leaf in jax.tree.leaves(CASES[name]().params))


def _float32(leaf):
    return np.asarray(leaf, np.float32) if leaf.dtype == np.float64 else leaf


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
        if name not in names or (method.startswith("neural_tangents") and DIAGONAL[outputs] != shape):
            continue
        if method == "jacobian" and name not in FIRST and outputs != "full":
            continue
        check = method == "jacobian" and outputs == "full"  # of the model, so once is enough
        kernel = ntkft.empirical_ntk(apply_fn, params, x1, x2, outputs=outputs, method=method, check=check)
        assert kernel.total.shape == expected.shape, method
        assert kernel_error(kernel.total, expected) <= CASES[name]().tolerance, method


@pytest.mark.parametrize("name", [name for name in CASES if _is_float64(name)])
def test_float32_is_within_rounding_of_float64(name):
    apply_fn, params, x1, _ = _setting(name, "full", "square")
    expected = contract(_flat_jacobian(name)[:4], _flat_jacobian(name)[:4], "full")
    low, rows = jax.tree.map(_float32, (params, x1))
    kernel = ntkft.empirical_ntk(apply_fn, low, rows, outputs="full", check=False)
    assert kernel_error(kernel.total, expected) <= KERNEL_F32
    assert np.array_equal(kernel.matrix(), kernel.matrix().T)
