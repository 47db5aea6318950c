"""Tiles of examples: they cover every pair once, change nothing, and several processes share them."""

import threading
from functools import partial

import jax
import numpy as np
import pytest

import ntkft
from ntkft import InputError
from ntkft._tree import take_examples
from ntkft.kernels.kernel import Kernel, Plan
from ntkft.kernels.store import KernelStore
from ntkft.kernels.tiles import Processes, default_tile, jax_processes, tile_grid, tiled_kernel
from tests.cases import CASES
from tests.tolerances import INVARIANCE_F32, kernel_error

GROUPS = {"weights": "kernel", "biases": "bias"}
# Tiles change the order of no sum over parameters, only the shapes of products: rounding of a few units.
SAME_F64 = 1e-12


def gram(rows, columns, *, progress):
    """A block method without a model: rows are Jacobians `[n, k, p]`, whose first column is a group of its own."""
    others = rows if columns is None else columns
    first, rest = (np.einsum("iap,jbp->iajb", rows[..., s], others[..., s]) for s in (slice(0, 1), slice(1, None)))
    for part in range(4):
        progress(part + 1, 4)
    plan = Plan("gram", rows.shape[2], 0, 1, 1, 0)
    return Kernel(first + rest, {"first": first, "rest": rest}, "full", "float64", columns is None, plan)


def jacobians(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 2, 5))


def tiled(x1, x2=None, *, tile, store=None, processes=None, progress=None, method=gram):
    return tiled_kernel(
        method,
        x1,
        x2,
        tile=tile,
        parameters=5,
        check=True,
        store=store,
        processes=processes or Processes(),
        progress=progress,
    )


@pytest.mark.parametrize("tile", [1, 2, 3, 7, 8])
@pytest.mark.parametrize("m", [None, 1, 4])
def test_the_grid_covers_every_pair_of_examples_once(tile, m):
    n = 7
    covered = np.zeros((n, n if m is None else m), int)
    for i, j in tile_grid(n, m, tile):
        covered[i * tile : (i + 1) * tile, j * tile : (j + 1) * tile] += 1
        if m is None and i != j:
            covered[j * tile : (j + 1) * tile, i * tile : (i + 1) * tile] += 1
    assert np.all(covered == 1)


@pytest.mark.parametrize("tile", [1, 3, 7])
@pytest.mark.parametrize("rectangular", [False, True])
def test_tiles_assemble_to_the_whole(tile, rectangular):
    x1, x2 = jacobians(7), jacobians(4, seed=1) if rectangular else None
    kernel = tiled(x1, x2, tile=tile)
    whole = gram(x1, x2, progress=lambda *_: None)
    assert kernel.symmetric is not rectangular
    assert kernel.plan.tiles == len(tile_grid(7, 4 if rectangular else None, tile))
    np.testing.assert_allclose(kernel.total, whole.total, rtol=0, atol=1e-13)
    for name in ("first", "rest"):
        np.testing.assert_allclose(kernel.groups[name], whole.groups[name], rtol=0, atol=1e-13)


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("rectangular", [False, True])
@pytest.mark.parametrize("outputs", ["full", "trace", "scalar"])
def test_a_tiled_kernel_is_the_untiled_one(outputs, rectangular, stored, tmp_path):
    case = CASES["mlp"]()
    apply_fn = case.one_output() if outputs == "scalar" else case.apply_fn
    x2 = take_examples(case.inputs, slice(1, 5)) if rectangular else None
    compute = partial(
        ntkft.empirical_ntk, apply_fn, case.params, case.inputs, x2, outputs=outputs, groups=GROUPS, memory="1GB"
    )
    whole, cut = compute(), compute(tile=4, store=tmp_path / "K.zarr" if stored else None)
    assert (whole.plan.tiles, cut.plan.tiles) == (1, 2 if rectangular else 3)
    assert kernel_error(cut.total, whole.total) <= SAME_F64
    scale = float(np.abs(whole.total).max())
    for name in GROUPS:
        np.testing.assert_allclose(cut.groups[name], whole.groups[name], rtol=0, atol=SAME_F64 * scale)
    if not rectangular:
        for name in (None, *GROUPS):
            assert np.array_equal(cut.matrix(name), cut.matrix(name).T)


def test_tiles_change_nothing_in_float32():
    case = CASES["fused_decoder"]()
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), case.params)
    compute = partial(ntkft.empirical_ntk, case.apply_fn, params, case.inputs, outputs="trace")
    whole, cut = compute(), compute(tile=4)
    assert cut.total.dtype == np.float32
    assert kernel_error(cut.total, whole.total) <= INVARIANCE_F32


def test_another_library_s_method_is_tiled_alike():
    case = CASES["mlp"]()
    compute = partial(ntkft.empirical_ntk, case.apply_fn, case.params, case.inputs, outputs="full")
    cut = compute(method="neural_tangents:1", tile=4)
    assert cut.plan.tiles == 3
    assert kernel_error(cut.total, compute().total) <= SAME_F64


def test_all_examples_are_one_tile_up_to_a_size():
    assert default_tile(2048, 7, stored=False) == 2048
    assert default_tile(2048, 7, stored=True) == default_tile(7, 2049, stored=False) == 1024
    assert default_tile(9, 7, stored=True) == 9


def test_progress_grows_to_pairs_times_parameters_whatever_the_tile():
    for tile, rectangular in ((1, False), (3, False), (7, False), (3, True)):
        seen = []
        x2 = jacobians(4) if rectangular else None
        tiled(jacobians(7), x2, tile=tile, progress=lambda *pair: seen.append(pair))  # noqa: B023
        total = 5 * (7 * 4 if rectangular else 7 * 8 // 2)
        done = [pair[0] for pair in seen]
        assert done == sorted(done)
        assert (seen[0], seen[-1]) == ((0, total), (total, total))


def _store(path, n):
    request = {"x2": None, "precision": "float64", "outputs": "full", "groups": {"first": "", "rest": ""}}
    return KernelStore(path, request, shape=(n, 2, n, 2), tile=3, memory=0)


def test_processes_fill_one_store_and_each_reads_the_whole(tmp_path):
    x, count = jacobians(8), 2
    alone = tiled(x, tile=3, store=_store(tmp_path / "alone.zarr", 8))
    barrier, results, computed = threading.Barrier(count, timeout=30), {}, []

    def counted(rows, columns, *, progress):
        computed.append(1)
        return gram(rows, columns, progress=progress)

    def run(index):
        processes = Processes(index, count, lambda name: barrier.wait())
        store = processes.in_turn(lambda: _store(tmp_path / "shared.zarr", 8))
        results[index] = tiled(x, tile=3, store=store, processes=processes, method=counted)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(computed) == len(tile_grid(8, None, 3))
    for kernel in results.values():
        assert kernel.total.tobytes() == alone.total.tobytes()
        assert kernel.plan == alone.plan
    assert _files(tmp_path / "shared.zarr") == _files(tmp_path / "alone.zarr")


def test_a_process_that_comes_first_leaves_its_share_to_the_next(tmp_path):
    x = jacobians(8)
    with pytest.raises(InputError, match="unfinished"):
        tiled(x, tile=3, store=_store(tmp_path / "K.zarr", 8), processes=Processes(1, 2))
    second = tiled(x, tile=3, store=_store(tmp_path / "K.zarr", 8), processes=Processes(0, 2))
    np.testing.assert_array_equal(second.total, tiled(x, tile=3).total)


def test_when_the_first_process_is_refused_the_others_are_not_left_waiting():
    waits = []

    def refused():
        raise InputError("no")

    for index in (0, 1):
        with pytest.raises(InputError, match="no"):
            Processes(index, 2, waits.append).in_turn(refused)
    assert len(waits) == 2
    assert waits[0] == waits[1]


def test_several_processes_want_a_store():
    with pytest.raises(InputError, match=r"2 processes share a kernel through its store; pass store="):
        tiled(jacobians(4), tile=2, processes=Processes(0, 2))


def test_without_jax_distributed_this_process_is_alone():
    assert (jax_processes().index, jax_processes().count) == (0, 1)


def test_a_tile_must_hold_an_example():
    case = CASES["mlp"]()
    with pytest.raises(InputError, match="tile: got 0; wanted a positive number of examples"):
        ntkft.empirical_ntk(case.apply_fn, case.params, case.inputs, outputs="full", tile=0)


def _files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
