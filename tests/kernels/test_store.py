"""Kernels on disk: what was written comes back, a killed run goes on to the same bytes, another run is kept out."""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import zarr

import ntkft
from ntkft import InputError
from ntkft.kernels.kernel import Kernel, LeafPlan, Plan
from ntkft.kernels.store import KernelStore
from ntkft.kernels.tiles import Processes, tiled_kernel
from tests.cases import CASES

CASE = CASES["mlp"]()
GROUPS = {"weights": "kernel", "biases": "bias"}
LEAVES = (LeafPlan("a", ("matmul", "embedding"), "pairs", 1.5e9, 7), LeafPlan("b", (), "explicit", 0.0, 0))

# Kills itself when the progress of a run comes to a share of the whole, as a preempted machine would.
KILLED = """
import os, signal, sys
import tests.conftest  # the same numbers as here
from tests.kernels.test_store import kernel_of_case

def die(done, total):
    if done > 0.5 * total:
        os.kill(os.getpid(), signal.SIGKILL)

kernel_of_case(sys.argv[1], progress=die)
"""


def kernel_of_case(store, **options) -> Kernel:
    """The kernel of seven examples in three tiles: 4 × 4, 3 × 4 and 3 × 3."""
    options = {"outputs": "full", "groups": GROUPS, "memory": "1MB", "tile": 4} | options
    return ntkft.empirical_ntk(CASE.apply_fn, CASE.params, CASE.inputs, store=store, **options)


class Gram:
    """A block method without a model, which counts its calls: rows are Jacobians `[n, k, p]`, in two groups."""

    def __init__(self):
        self.calls = []

    def __call__(self, rows, columns, /, *, progress):
        others = rows if columns is None else columns
        self.calls.append((len(rows), len(others)))
        groups = {name: np.einsum("iap,jbp->iajb", rows[..., s], others[..., s]) for name, s in PARTS.items()}
        plan = Plan("gram", rows.shape[2], 0, 1, 1, 0, leaves=LEAVES)
        return Kernel(groups["first"] + groups["rest"], groups, "full", "float64", columns is None, plan)


PARTS = {"first": slice(0, 1), "rest": slice(1, None)}
REQUEST = {"x2": None, "precision": "float64", "outputs": "full", "groups": dict.fromkeys(PARTS, "")}
X = np.random.default_rng(0).normal(size=(5, 2, 4))


def gram_kernel(folder, method=None, x=X, check=True) -> Kernel:
    """The kernel of five examples in three tiles: 3 × 3, 2 × 3 and 2 × 2."""
    store = KernelStore(folder, REQUEST, shape=(5, 2, 5, 2), tile=3, memory=0)
    return tiled_kernel(
        method or Gram(), x, None, tile=3, parameters=4, check=check, store=store, processes=Processes(), progress=None
    )


def files(folder: Path) -> dict[str, bytes]:
    """Everything in a folder, byte by byte."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_kernel_survives_the_disk_bit_by_bit(tmp_path):
    written = kernel_of_case(tmp_path / "K.zarr")
    for kernel in (ntkft.read_kernel(tmp_path / "K.zarr"), kernel_of_case(tmp_path / "K.zarr")):
        assert np.array_equal(kernel.total, written.total)
        assert {name: array.tobytes() for name, array in kernel.groups.items()} == {
            name: array.tobytes() for name, array in written.groups.items()
        }
        assert (kernel.outputs, kernel.precision, kernel.symmetric) == ("full", "float64", True)
        assert kernel.plan == written.plan


def test_plans_survive_the_disk_leaf_by_leaf(tmp_path):
    kernel = gram_kernel(tmp_path / "K.zarr")
    assert kernel.plan == Plan("gram", 4, 0, 1, 1, 0, tiles=3, leaves=LEAVES)


def test_the_store_says_where_its_numbers_come_from(tmp_path):
    kernel_of_case(tmp_path / "K.zarr")
    root = zarr.open_group(tmp_path / "K.zarr", mode="r")
    request: Any = root.attrs["request"]
    assert request["versions"] == {"ntkft": ntkft.__version__, "jax": jax.__version__, "numpy": np.__version__}
    assert all(len(request[name]) == 64 for name in ("function", "parameters", "x1"))
    assert (request["outputs"], request["precision"]) == ("full", "float64")
    assert root.attrs["device"] == jax.devices()[0].device_kind
    # Another reader needs no knowledge of tiles: both triangles are there, and the groups sum to the total.
    total = np.asarray(root["total"])
    assert np.array_equal(total, np.transpose(total, (2, 3, 0, 1)))
    np.testing.assert_allclose(sum(np.asarray(root[f"groups/{name}"]) for name in GROUPS), total, rtol=1e-12)


def test_a_run_that_is_killed_resumes_to_identical_bytes(tmp_path):
    killed = [sys.executable, "-c", KILLED, str(tmp_path / "K.zarr")]
    result = subprocess.run(killed, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert result.returncode == -signal.SIGKILL, result.stderr
    with pytest.raises(InputError, match="unfinished"):
        ntkft.read_kernel(tmp_path / "K.zarr")
    seen = []
    kernel_of_case(tmp_path / "K.zarr", progress=lambda *pair: seen.append(pair))
    pairs = {"all": 7 * 8 // 2, "first": 4 * 5 // 2}
    assert seen[0][0] / seen[0][1] == pairs["first"] / pairs["all"]
    kernel_of_case(tmp_path / "whole.zarr")
    assert files(tmp_path / "K.zarr") == files(tmp_path / "whole.zarr")


class _Killed(BaseException):
    """What no `except Exception` sees: nothing is tidied up, as after SIGKILL."""


def test_a_kill_between_any_two_writes_resumes_to_identical_bytes(tmp_path, monkeypatch):
    """Zarr finishes each write with a rename; the run dies before the first, the second, ... and is started again."""
    gram_kernel(tmp_path / "whole.zarr")
    rename, left = os.replace, 0

    def mortal(*arguments, **options):
        nonlocal left
        left -= 1
        if left < 0:
            raise _Killed
        return rename(*arguments, **options)

    deaths = 0
    while True:
        left = deaths
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", mortal)
            try:
                gram_kernel(tmp_path / "K.zarr")
                break
            except _Killed:
                deaths += 1
        if (tmp_path / "K.zarr" / "zarr.json").is_file():
            with pytest.raises(InputError, match="unfinished"):
                ntkft.read_kernel(tmp_path / "K.zarr")
        gram_kernel(tmp_path / "K.zarr")
        assert files(tmp_path / "K.zarr") == files(tmp_path / "whole.zarr")
        shutil.rmtree(tmp_path / "K.zarr")
    assert deaths >= 17  # four chunks and the description of three arrays, two groups


def test_a_resumed_run_takes_the_store_s_tile_and_refuses_another(tmp_path):
    kernel_of_case(tmp_path / "K.zarr")
    assert kernel_of_case(tmp_path / "K.zarr", tile=None).plan.tiles == 3
    before = files(tmp_path / "K.zarr")
    with pytest.raises(InputError, match=r"cut into tiles of 4 examples, got tile=2; leave tile out"):
        kernel_of_case(tmp_path / "K.zarr", tile=2)
    assert files(tmp_path / "K.zarr") == before


def test_a_resumed_run_works_within_the_memory_of_the_first(tmp_path):
    kernel_of_case(tmp_path / "whole.zarr", memory="9kB", method="jacobian")
    shutil.copytree(tmp_path / "whole.zarr", tmp_path / "K.zarr")
    _chunk(tmp_path / "K.zarr", "total", 1, 0).unlink()
    resumed = kernel_of_case(tmp_path / "K.zarr", memory=None, method="jacobian")
    assert resumed.plan.pieces > 1
    assert files(tmp_path / "K.zarr") == files(tmp_path / "whole.zarr")


def test_a_store_of_another_run_is_refused_and_left_alone(tmp_path):
    store = tmp_path / "K.zarr"
    kernel_of_case(store)
    before = files(store)
    other = jax.tree.map(lambda leaf: leaf + 1e-3, CASE.params)
    with pytest.raises(InputError, match=r"different run \(other parameters\)"):
        ntkft.empirical_ntk(CASE.apply_fn, other, CASE.inputs, outputs="full", groups=GROUPS, store=store)
    with pytest.raises(InputError, match=r"different run \(other outputs\)"):
        kernel_of_case(store, outputs="trace")
    with pytest.raises(InputError, match=r"different run \(other function\)"):
        ntkft.empirical_ntk(
            lambda p, x: 2 * CASE.apply_fn(p, x), CASE.params, CASE.inputs, outputs="full", groups=GROUPS, store=store
        )
    assert files(store) == before


def test_folders_that_are_not_stores_are_refused(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(InputError, match="is not a kernel store; choose another folder"):
        kernel_of_case(tmp_path / "notes")
    with pytest.raises(InputError, match="is not a kernel store; make one"):
        ntkft.read_kernel(tmp_path / "absent")
    (tmp_path / "notes" / "zarr.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        ntkft.read_kernel(tmp_path / "notes")


def _chunk(folder: Path, name: str, i: int, j: int) -> Path:
    return folder / name / "c" / str(i) / "0" / str(j) / "0"


def _flip(chunk: Path) -> None:
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)


def _truncate(chunk: Path) -> None:
    chunk.write_bytes(chunk.read_bytes()[:-8])


def _empty(chunk: Path) -> None:
    chunk.write_bytes(b"")


@pytest.mark.parametrize("damage", [_flip, _truncate, _empty])
@pytest.mark.parametrize("place", [("total", 0, 0), ("groups/rest", 1, 0), ("groups/first", 0, 1), ("total", 1, 1)])
def test_a_damaged_chunk_is_detected_and_only_its_tile_computed_again(tmp_path, damage, place):
    gram_kernel(tmp_path / "K.zarr")
    before = files(tmp_path / "K.zarr")
    damage(_chunk(tmp_path / "K.zarr", *place))
    with pytest.raises(InputError, match=r"corrupted tile .*; run the command that made it again"):
        ntkft.read_kernel(tmp_path / "K.zarr")
    method = Gram()
    gram_kernel(tmp_path / "K.zarr", method)
    assert method.calls == [{0: (3, 3), 1: (2, 3), 2: (2, 2)}[place[1] + place[2]]]
    assert files(tmp_path / "K.zarr") == before


def test_a_finished_kernel_is_read_and_not_computed(tmp_path):
    gram_kernel(tmp_path / "K.zarr")
    method = Gram()
    gram_kernel(tmp_path / "K.zarr", method)
    assert method.calls == []


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_tiles_of_one_value_are_finished_like_any_other(tmp_path, value):
    """Zarr leaves chunks of the fill value out unless told otherwise: they would be computed for ever."""
    kernel = gram_kernel(tmp_path / "K.zarr", x=np.full_like(X, value), check=False)
    np.testing.assert_array_equal(kernel.total, np.full((5, 2, 5, 2), value))
    again = replace(gram_kernel(tmp_path / "K.zarr"), groups={})  # read, not computed
    np.testing.assert_array_equal(again.total, kernel.total)
