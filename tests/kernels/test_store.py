"""Kernels on disk: what was written comes back, an interrupted run goes on, another run is kept out."""

import jax
import numpy as np
import pytest

import ntkft
from ntkft import InputError
from ntkft.kernels.kernel import Kernel
from tests.cases import CASES

CASE = CASES["fused_decoder"]()
GROUPS = {"qkv": "qkv", "rest": "^((?!qkv).)*$"}


def _kernel(store, **options) -> Kernel:
    options = {"outputs": "full", "groups": GROUPS, "memory": "110kB"} | options
    return ntkft.empirical_ntk(CASE.apply_fn, CASE.params, CASE.inputs, store=store, **options)


class _Interrupt:
    """Raises KeyboardInterrupt after a number of slices, as Ctrl-C would."""

    def __init__(self, after: int):
        self.after = after

    def __call__(self, done, total):
        self.after -= 1
        if self.after == 0:
            raise KeyboardInterrupt


def test_a_kernel_survives_the_disk_bit_by_bit(tmp_path):
    written = _kernel(tmp_path / "K.zarr")
    for kernel in (ntkft.read_kernel(tmp_path / "K.zarr"), _kernel(tmp_path / "K.zarr")):
        assert np.array_equal(kernel.total, written.total)
        assert {name: array.tobytes() for name, array in kernel.groups.items()} == {
            name: array.tobytes() for name, array in written.groups.items()
        }
        assert (kernel.outputs, kernel.precision, kernel.symmetric) == ("full", "float64", True)
        assert kernel.plan == written.plan


@pytest.mark.parametrize("after", [1, 2])
def test_an_interrupted_run_resumes_to_identical_bytes(tmp_path, after):
    whole = _kernel(None)
    with pytest.raises(KeyboardInterrupt):
        _kernel(tmp_path / "K.zarr", progress=_Interrupt(after))
    with pytest.raises(InputError, match="unfinished"):
        ntkft.read_kernel(tmp_path / "K.zarr")
    seen = []
    resumed = _kernel(tmp_path / "K.zarr", memory="90kB", progress=lambda *pair: seen.append(pair))
    assert len(seen) == whole.plan.passes - after
    assert resumed.total.tobytes() == whole.total.tobytes()


def test_a_store_of_another_run_is_refused_and_left_alone(tmp_path):
    store = tmp_path / "K.zarr"
    _kernel(store)
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    other = jax.tree.map(lambda leaf: leaf + 1e-3, CASE.params)
    with pytest.raises(InputError, match=r"different run \(other parameters\)"):
        ntkft.empirical_ntk(CASE.apply_fn, other, CASE.inputs, outputs="full", groups=GROUPS, store=store)
    with pytest.raises(InputError, match=r"different run \(other outputs\)"):
        _kernel(store, outputs="trace")
    with pytest.raises(InputError, match=r"different run \(other function\)"):
        ntkft.empirical_ntk(
            lambda p, x: 2 * CASE.apply_fn(p, x), CASE.params, CASE.inputs, outputs="full", groups=GROUPS, store=store
        )
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before


def test_folders_that_are_not_stores_are_refused(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(InputError, match="is not a kernel store"):
        _kernel(tmp_path / "notes")
    with pytest.raises(InputError, match="is not a kernel store; make one"):
        ntkft.read_kernel(tmp_path / "absent")


def test_a_corrupted_chunk_is_detected(tmp_path):
    _kernel(tmp_path / "K.zarr")
    chunk = next(
        path for path in (tmp_path / "K.zarr" / "total").rglob("*") if path.is_file() and path.name != "zarr.json"
    )
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(InputError, match="corrupted"):
        ntkft.read_kernel(tmp_path / "K.zarr")
