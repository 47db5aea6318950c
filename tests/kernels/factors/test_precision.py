"""How numbers are rounded on the way: what it costs in accuracy, what it spares, and that the kernel says so."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntkft
from ntkft._errors import InputError
from ntkft.spectra import spectrum
from tests.cases import CASES
from tests.references import contract, flat_jacobian
from tests.tolerances import KERNEL_BF16_STORED, KERNEL_F32, kernel_error


def _single(name):
    case = CASES[name]()
    jacobian = flat_jacobian(case.apply_fn, case.params, case.inputs)
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), case.params)
    return case, params, contract(jacobian, jacobian, "trace")


def test_factors_kept_in_bfloat16_round_and_no_more():
    width = 64
    # Roundings average out over width and tokens: a model of eight dimensions would show 1e-3.
    generator = np.random.default_rng(0)
    params = {
        name: generator.normal(size=shape) / np.sqrt(shape[0])
        for name, shape in {"up": (width, 2 * width), "down": (2 * width, width), "head": (width, 2)}.items()
    }
    inputs = generator.normal(size=(6, 12, width))

    def apply_fn(params, x):
        return (jnp.tanh(x @ params["up"]) @ params["down"]).mean(axis=1) @ params["head"]

    jacobian = flat_jacobian(apply_fn, params, inputs, mode=jax.jacrev)
    low, rows = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), (params, inputs))
    kernel = ntkft.empirical_ntk(apply_fn, low, rows, outputs="trace", precision="bfloat16")
    assert KERNEL_F32 < kernel_error(kernel.total, contract(jacobian, jacobian, "trace")) <= KERNEL_BF16_STORED
    assert kernel.precision == "bfloat16"
    assert kernel.total.dtype == np.float32


def test_factors_kept_in_bfloat16_take_half_the_memory():
    case, params, _ = _single("bert")
    plans = [
        ntkft.empirical_ntk(case.apply_fn, params, case.inputs, outputs="trace", precision=precision).plan
        for precision in ("full", "bfloat16")
    ]
    held = [{leaf.path: leaf.bytes for leaf in plan.leaves if leaf.sites == ("matmul",)} for plan in plans]
    assert held[0]
    assert {path: 2 * size for path, size in held[1].items()} == held[0]


def test_tensorfloat32_is_float32_where_the_device_has_none():
    case, params, expected = _single("bert")
    kernel = ntkft.empirical_ntk(case.apply_fn, params, case.inputs, outputs="trace", precision="tensorfloat32")
    assert kernel.precision == "tensorfloat32"
    assert kernel_error(kernel.total, expected) <= KERNEL_F32


@pytest.mark.parametrize(
    ("precision", "epsilon"), [("full", 2.0**-23), ("tensorfloat32", 2.0**-10), ("bfloat16", 2.0**-7)]
)
def test_the_spectrum_carries_the_floor_of_the_rounding(precision, epsilon):
    case, params, _ = _single("bert")
    kernel = ntkft.empirical_ntk(case.apply_fn, params, case.inputs, outputs="trace", precision=precision)
    found = spectrum(kernel)
    n = len(kernel.total)
    assert found.floor == pytest.approx(epsilon * found.eigenvalues[0] * np.sqrt(n), rel=1e-6)


def test_parameters_in_bfloat16_are_accumulated_in_float32():
    case, params, _ = _single("gpt2")
    low = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), params)
    kernel = ntkft.empirical_ntk(case.apply_fn, low, case.inputs, outputs="trace", check=False)
    assert kernel.total.dtype == np.float32
    assert kernel.precision == "bfloat16"


def test_a_precision_that_nobody_knows_is_refused():
    case, params, _ = _single("mlp")
    with pytest.raises(InputError, match=r"precision: got 'half'; wanted one of full, tensorfloat32, bfloat16"):
        ntkft.empirical_ntk(case.apply_fn, params, case.inputs, outputs="trace", precision="half")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=r"method='jacobian' takes no mesh and no precision"):
        ntkft.empirical_ntk(
            case.apply_fn, params, case.inputs, outputs="trace", method="jacobian", precision="bfloat16"
        )
