"""Several devices compute what the host computes: same forms in XLA, same kernels, no program compiled twice."""

import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import ntkft
from ntkft import InputError
from ntkft._tree import take_examples
from ntkft.kernels.factors import xla
from ntkft.kernels.factors.forms import Extent
from tests.cases import CASES
from tests.tolerances import INVARIANCE_F32, KERNEL_F32, KERNEL_F64, kernel_error


def devices(count):
    """A mesh of the first devices, with the type of axis that `make_mesh` chooses."""
    return jax.make_mesh((count,), ("data",), devices=jax.devices()[:count])


def kernel_of(name, outputs: Any = "full", shape="square", dtype: Any = np.float64, **options):
    case = CASES[name]()
    apply_fn = case.one_output() if outputs == "scalar" else case.apply_fn
    params = options.pop("params", jax.tree.map(lambda leaf: np.asarray(leaf, dtype), case.params))
    x1, x2 = case.inputs, None
    if shape == "rectangular":
        x1, x2 = (take_examples(case.inputs, rows) for rows in (slice(0, 4), slice(4, 7)))
    return ntkft.empirical_ntk(apply_fn, params, x1, x2, outputs=outputs, check=False, **options)


@pytest.mark.parametrize(
    ("name", "outputs", "shape", "count"),
    [
        ("bert", "full", "square", 4),
        ("bert", "trace", "rectangular", 1),
        ("tied_decoder", "scalar", "rectangular", 4),
        ("fused_decoder", "trace", "square", 4),
        ("expert_batch", "full", "rectangular", 4),
        ("tied_label_words", "trace", "square", 1),
    ],
)
def test_devices_compute_the_kernel_of_the_host(name, outputs, shape, count):
    expected = kernel_of(name, outputs, shape)
    kernel = kernel_of(name, outputs, shape, mesh=devices(count))
    assert kernel_error(kernel.total, expected.total) <= KERNEL_F64
    assert kernel.symmetric == expected.symmetric
    if kernel.symmetric:
        assert np.array_equal(kernel.matrix(), kernel.matrix().T)


def test_the_number_of_devices_changes_float32_by_rounding_only():
    one, four = (kernel_of("fused_decoder", dtype=np.float32, mesh=devices(count)) for count in (1, 4))
    assert one.total.dtype == np.float32
    assert kernel_error(four.total, one.total) <= INVARIANCE_F32


def test_sharded_parameters_stay_where_they_are_and_change_nothing():
    mesh = jax.make_mesh((2, 2), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)

    def shard(leaf):
        axis = next((i for i, size in enumerate(leaf.shape) if size % 2 == 0), None)
        spec = ["fsdp" if i == axis else None for i in range(leaf.ndim)]
        return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(*spec)))

    params = jax.tree.map(shard, CASES["bert"]().params)
    assert any(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(params))
    groups = {"embeddings": "embed", "rest": "^(?!.*embed)"}
    kernel = kernel_of("bert", params=params, groups=groups, mesh=mesh)
    expected = kernel_of("bert", groups=groups)
    for group in groups:
        assert kernel_error(kernel.groups[group], expected.groups[group]) <= KERNEL_F64


def test_a_small_budget_takes_more_passes_to_the_same_kernel():
    whole = kernel_of("fused_decoder", mesh=devices(4))
    kernel = kernel_of("fused_decoder", mesh=devices(4), memory="100kB")
    assert kernel.plan.pieces > whole.plan.pieces
    assert kernel_error(kernel.total, whole.total) <= KERNEL_F64


def test_later_tiles_compile_nothing(caplog):
    """Not even where other tokens occur: a table has as many rows as a tile has ids."""
    case, parameters = CASES["bert"](), sum(leaf.size for leaf in jax.tree.leaves(CASES["bert"]().params))
    inputs = take_examples(case.inputs, slice(0, 6))
    assert len({len(np.unique(rows)) for rows in np.split(inputs["input_ids"], 3)}) > 1
    compiled = []

    def progress(done, total):
        if done == (3 + 4) * parameters:  # a tile on the diagonal and one beside it: all shapes there are
            compiled.append("Compiling" in caplog.text)
            caplog.clear()

    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        kernel = ntkft.empirical_ntk(
            case.apply_fn, case.params, inputs, outputs="full", tile=2, mesh=devices(4), check=False, progress=progress
        )
    assert kernel.plan.tiles == 6
    assert compiled == [True]
    assert "Compiling" not in caplog.text


def test_only_factors_take_a_mesh():
    with pytest.raises(InputError, match=r"method='jacobian' takes no mesh .*use method='factors' or leave"):
        kernel_of("mlp", method="jacobian", mesh=devices(4))


# Blocks by themselves: the gradient of each site is written out, so that the kernel is one product.

BATCH, TOKENS, ROWS, WIDTH = 2, 3, 5, 7
EXTENTS = [Extent(5, 0, 2, "full"), Extent(5, 0, 2, "trace"), Extent(3, 2, 2, "full"), Extent(3, 2, 2, "trace")]


def draw(*shape, dtype=np.float64):
    return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape), dtype)


def matmul(rows, width, swapped=False, batch=1, dtype=np.float64):
    """A site of a matrix `[batch, rows, width]`, which it sees transposed when `swapped`; six examples."""
    rows, width = (width, rows) if swapped else (rows, width)
    operand = draw(3, 2, batch, TOKENS, rows, dtype=dtype)
    return xla.Part("matmul", swapped, operand, draw(3, 2, 2, batch, TOKENS, width, dtype=dtype))


def gather(rows, width, swapped=False):
    """Token ids, of which one stands for no row and one lies beyond the table."""
    rows, width = (width, rows) if swapped else (rows, width)
    ids = np.random.default_rng(rows).integers(0, rows, (3, 2, TOKENS)).astype(np.int32)
    ids[0, 0, 0], ids[0, 1, 1] = -1, rows
    return xla.Part("rows", swapped, jnp.asarray(ids), draw(3, 2, 2, TOKENS, width))


def gradients(part, count) -> np.ndarray:
    """`[count, k, batch, rows, width]` in the block's own layout."""
    a, b = (np.asarray(x, np.float64).reshape(6, *x.shape[2:])[:count] for x in (part.operand, part.cotangent))
    if part.kind == "rows":
        length = ROWS if not part.swapped else WIDTH
        a, b = (a[:, None, :, None] == np.arange(length)).astype(float), b[:, :, None]
    return np.einsum("nxtr,nkxtw->nkxwr" if part.swapped else "nxtr,nkxtw->nkxrw", a, b)


def expected_kernel(whole: np.ndarray, extent: Extent) -> np.ndarray:
    flat = whole.reshape(extent.count * extent.rows_each, -1)
    split = extent.n * extent.rows_each
    return flat[:split] @ flat[split if extent.m else 0 :].T


def contracted(form, parts, sizes, extent, count, dtype: Any = np.float64) -> np.ndarray:
    """Started from ones on each device: a form adds."""
    mesh = Mesh(np.asarray(jax.devices()[:count]), ("examples",))
    kernel = xla.zeros(extent, np.dtype(dtype), mesh) + 1
    found = xla.contract(form, parts, sizes, extent, kernel, mesh, columns=12, tile=2, side=2)
    found = np.asarray(found, np.float64).sum(0) - count
    return found if extent.m else np.tril(found) + np.tril(found, -1).T


SITES: dict[str, tuple[str, Any]] = {
    "one product": ("materialise", lambda: [matmul(ROWS, WIDTH, batch=BATCH)]),
    "seen transposed": ("materialise", lambda: [matmul(ROWS, WIDTH, swapped=True, batch=BATCH)]),
    "product and its transpose": ("materialise", lambda: [matmul(ROWS, WIDTH), matmul(ROWS, WIDTH, swapped=True)]),
    "wide gather and product": ("materialise", lambda: [gather(ROWS, WIDTH), matmul(ROWS, WIDTH, swapped=True)]),
    "tall gather and product": (
        "materialise",
        lambda: [gather(ROWS, WIDTH, swapped=True), matmul(ROWS, WIDTH, swapped=True)],
    ),
    "two gathers": ("rows", lambda: [gather(ROWS, WIDTH), gather(ROWS, WIDTH)]),
    "token pairs": ("pairs", lambda: [matmul(ROWS, WIDTH, batch=BATCH)]),
}


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("sites", SITES)
def test_forms_equal_the_product_of_gradients(sites, count):
    form, make = SITES[sites]
    parts = make()
    batch = parts[0].cotangent.shape[3] if form != "rows" and parts[0].kind == "matmul" else 1
    for extent in EXTENTS if count == 1 else EXTENTS[::3]:
        whole = np.sum([gradients(part, extent.count) for part in parts], axis=0)
        whole = whole if extent.outputs == "full" else whole.reshape(extent.count, -1)
        found = contracted(form, parts, (batch, ROWS, WIDTH), extent, count)
        assert kernel_error(found, expected_kernel(whole, extent)) <= KERNEL_F64, extent


@pytest.mark.parametrize("extent", EXTENTS[::3])
def test_vectors_are_summed_over_their_sites(extent):
    parts = [xla.Part("affine", False, None, draw(3, 2, 2, 7)), xla.Part("affine", False, None, 2 * draw(3, 2, 2, 7))]
    whole = 3 * np.asarray(parts[0].cotangent).reshape(6, 2, 7)[: extent.count]
    found = contracted("reduced", parts, (1, 1, 7), extent, 4)
    assert kernel_error(found, expected_kernel(whole, extent)) <= KERNEL_F64


@pytest.mark.parametrize("form", ["materialise", "pairs"])
def test_bfloat16_factors_are_summed_in_float32(form):
    extent, part = EXTENTS[0], matmul(ROWS, WIDTH, dtype=jnp.bfloat16)
    found = contracted(form, [part], (1, ROWS, WIDTH), extent, 1, np.float32)
    assert kernel_error(found, expected_kernel(gradients(part, extent.count), extent)) <= KERNEL_F32
