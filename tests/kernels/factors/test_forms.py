"""Each form contracts factors to the kernel of the gradients that they stand for."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ntkft.kernels.factors import blas, calibration
from ntkft.kernels.factors.forms import Extent, form_flops
from tests.tolerances import KERNEL_F64

T, ROWS, WIDTH, BATCH = 3, 5, 7, 2


def _parts(extent, *, swapped=False, batch=1, seed=0, padding=2):
    """A site's factors in two chunks, padded, and its gradients `[examples, k, batch, rows, width]`."""
    generator = np.random.default_rng(seed)
    rows, width = (WIDTH, ROWS) if swapped else (ROWS, WIDTH)
    a = generator.normal(size=(extent.count + padding, batch, T, rows))
    b = generator.normal(size=(extent.count + padding, extent.k, batch, T, width))
    gradients = np.einsum("nBtr,nkBtw->nkBrw", a, b)
    half = extent.count // 2
    part = blas.Part("matmul", swapped, [a[:half], a[half:]], [b[:half], b[half:]])
    return part, (gradients.swapaxes(-1, -2) if swapped else gradients)[: extent.count]


def _expected(gradients, extent):
    flat = gradients.reshape(extent.count, extent.k, -1)
    left, right = flat[: extent.n], flat[extent.n :] if extent.m else flat[: extent.n]
    if extent.outputs == "full":
        return np.einsum("iap,jbp->iajb", left, right).reshape(extent.shape)
    return np.einsum("iap,jap->ij", left, right)


def _contract(form, parts, sizes, extent, **options):
    kernel = np.zeros(extent.shape)
    with blas.Workers(2) as workers:
        blas.contract(form, parts, sizes, extent, kernel, workers, **options)
    return np.tril(kernel) + np.tril(kernel, -1).T if not extent.m else kernel


EXTENTS = [
    Extent(9, 0, 1, "scalar"),
    Extent(6, 5, 1, "scalar"),
    Extent(7, 0, 3, "full"),
    Extent(5, 4, 3, "full"),
    Extent(6, 3, 2, "trace"),
]


@pytest.mark.parametrize("extent", EXTENTS, ids=str)
@pytest.mark.parametrize("batch", [1, BATCH])
@pytest.mark.parametrize("form", ["materialise", "pairs"])
def test_both_forms_give_the_product_of_gradients(form, batch, extent, monkeypatch):
    monkeypatch.setattr(blas, "PAIR_ROWS", 2 * T)  # tiles of two examples, so that several meet
    part, gradients = _parts(extent, batch=batch)
    found = _contract(form, [part], (batch, ROWS, WIDTH), extent, columns=2 * WIDTH * extent.k)
    expected = _expected(gradients, extent)
    assert np.abs(found - expected).max() <= KERNEL_F64 * np.abs(expected).max()


@pytest.mark.parametrize("extent", EXTENTS, ids=str)
def test_several_sites_of_one_weight_add_up_before_they_are_multiplied(extent):
    straight, first = _parts(extent, seed=1)
    turned, second = _parts(extent, swapped=True, seed=2)
    generator = np.random.default_rng(3)
    ids = generator.integers(0, ROWS, (extent.count + 2, T))
    values = generator.normal(size=(extent.count + 2, extent.k, T, WIDTH))
    gathered = blas.Part("rows", False, [ids[:2], ids[2:]], [values[:2], values[2:]])
    third = np.zeros((extent.count, extent.k, 1, ROWS, WIDTH))
    for i in range(extent.count):
        for t in range(T):
            third[i, :, 0, ids[i, t]] += values[i, :, t]
    for order in ([straight, turned, gathered], [gathered, straight, turned]):
        found = _contract("materialise", order, (1, ROWS, WIDTH), extent, columns=2 * WIDTH)
        expected = _expected(first + second + third, extent)
        assert np.abs(found - expected).max() <= KERNEL_F64 * np.abs(expected).max()


@pytest.mark.parametrize("extent", EXTENTS, ids=str)
def test_a_table_meets_itself_where_tokens_are_shared(extent):
    generator = np.random.default_rng(4)
    vocabulary = 6
    ids = generator.integers(-1, vocabulary + 2, (extent.count, T))  # some read beyond the table
    values = generator.normal(size=(extent.count, extent.k, T, WIDTH))
    table = np.zeros((extent.count, extent.k, vocabulary, WIDTH))
    for i in range(extent.count):
        for t in range(T):
            if 0 <= ids[i, t] < vocabulary:
                table[i, :, ids[i, t]] += values[i, :, t]
    part = blas.Part("rows", False, [ids[:3], ids[3:]], [values[:3], values[3:]])
    found = _contract("rows", [part], (1, vocabulary, WIDTH), extent)
    expected = _expected(table, extent)
    assert np.abs(found - expected).max() <= KERNEL_F64 * np.abs(expected).max()


def test_the_choice_is_by_operations_when_they_are_clear(tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "cache_file", lambda: tmp_path / "forms.json")
    monkeypatch.setattr(calibration, "measure", lambda *_: pytest.fail("nothing to measure"))
    extent = Extent(512, 0, 1, "scalar")
    choose = lambda tokens: calibration.faster_form(  # noqa: E731
        ("materialise", "pairs"), (1, 384, 384), tokens, extent, np.dtype(np.float32), 2
    )
    assert choose(1) == "pairs"
    assert choose(256) == "materialise"


def test_a_measurement_decides_the_rest_and_is_remembered(tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "cache_file", lambda: tmp_path / "forms.json")
    calls = []

    def measured(*arguments):
        calls.append(arguments)
        return {"materialise": 2.0, "pairs": 1.0}

    monkeypatch.setattr(calibration, "measure", measured)
    extent, sizes = Extent(512, 0, 1, "scalar"), (1, 384, 384)
    for _ in range(2):
        chosen = calibration.faster_form(("materialise", "pairs"), sizes, 20, extent, np.dtype(np.float32), 2)
        assert chosen == "pairs"
    assert len(calls) == 1


def test_a_measurement_is_in_proportion_to_the_whole():
    extent, sizes = Extent(64, 0, 1, "scalar"), (1, 96, 64)
    seconds = calibration.measure(sizes, 4, extent, np.dtype(np.float32), 2)
    assert set(seconds) == {"materialise", "pairs"}
    assert all(0 < value < 10 for value in seconds.values())


def test_token_pairs_are_estimated_by_the_tiles_of_the_busiest_worker(monkeypatch):
    clock, tokens, extent = [0.0], 16, Extent(256, 0, 1, "scalar")

    def contract(form, parts, sizes, piece, kernel, workers):
        tiles = len(blas.pair_tiles(piece, tokens)[1])
        clock[0] += -(-tiles // workers.count) if form == "pairs" else 1

    monkeypatch.setattr(blas, "contract", contract)
    monkeypatch.setattr(calibration.time, "perf_counter", lambda: clock[0])
    seconds = calibration.measure((1, 96, 64), tokens, extent, np.dtype(np.float32), 2)
    assert len(blas.pair_tiles(extent, tokens)[1]) == 10
    assert seconds["pairs"] == pytest.approx(5)


def test_operations_of_both_forms_cross_where_the_formula_says():
    # A square weight of width d, one output, many examples: pairs win while t² < d/2 (forming left out).
    extent, sizes = Extent(10_000, 0, 1, "scalar"), (1, 384, 384)
    cheaper = [form_flops("pairs", sizes, extent, t) < form_flops("materialise", sizes, extent, t) for t in (13, 15)]
    assert cheaper == [True, False]


def test_workers_whose_work_one_thread_does_keep_their_sums_apart():
    workers = blas.Workers(3)
    workers._pool = ThreadPoolExecutor(1)

    def work(accumulator, items, scratch):
        product = scratch.take("product", accumulator.shape, accumulator.dtype)
        for item in items:
            product[...] = item
            accumulator += product

    total = np.zeros((2, 2))
    for size in (7, 2, 0):
        workers.share(work, range(size), total)
    assert np.array_equal(total, np.full((2, 2), sum(range(7)) + 1))
