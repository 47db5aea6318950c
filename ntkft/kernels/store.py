"""Kernels on disk: one Zarr group that holds a finished kernel, or what an interrupted run needs to go on.

    K.zarr/
      zarr.json            attributes: the request (what was asked, of which model and data); the plan, when finished
      total, groups/NAME   the arrays, checksummed (crc32c) chunk by chunk
      partial.npz          only while unfinished: finished slices and their sums, replaced atomically

A folder belongs to one request. Reading or resuming under another request is refused and touches nothing.
"""

import dataclasses
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

from ntkft._errors import InputError
from ntkft._tree import digest, take_examples
from ntkft._types import ApplyFn, PyTree
from ntkft.kernels.kernel import Kernel, Plan

_PARTIAL = "partial.npz"


@dataclass(frozen=True)
class Partial:
    """An unfinished run: slices done, how slices were cut, and the kernels summed so far."""

    done: int
    columns: int
    micro_batch: int
    kernels: Mapping[str, np.ndarray]


def kernel_request(
    apply_fn: ApplyFn,
    params: PyTree,
    x1: PyTree,
    x2: PyTree | None,
    *,
    outputs: str,
    groups: Mapping[str, str] | None,
    method: str,
) -> dict[str, Any]:
    """Everything that determines a kernel's numbers, as JSON: digests of model and data, the form, versions."""
    return {
        "function": _function_digest(apply_fn, params, x1),
        "parameters": digest(params),
        "x1": digest(x1),
        "x2": None if x2 is None else digest(x2),
        "outputs": outputs,
        "groups": None if groups is None else dict(groups),
        "method": method,
        "jax": jax.__version__,
    }


class KernelStore:
    """The folder `path` as the home of one requested kernel.

    Raises `InputError` when the folder holds something else: another request (naming what differs), a file, or a
    folder that is not a kernel store.
    """

    def __init__(self, path: str | Path, request: Mapping[str, Any]):
        self._path, self._request = Path(path), dict(request)
        if not self._path.exists():
            return
        if not (self._path / "zarr.json").is_file():
            if self._path.is_dir() and not any(self._path.iterdir()):
                return
            raise InputError(f"store: {self._path} exists and is not a kernel store; choose another folder")
        found = _attributes(self._path).get("request", {})
        differing = [name for name in self._request if found.get(name) != self._request[name]]
        if differing:
            raise InputError(
                f"store: {self._path} holds the kernel of a different run (other {', '.join(differing)}); nothing "
                "was changed. Choose another folder, or delete this one"
            )

    def read(self) -> Kernel | None:
        """The finished kernel, or None when there is none yet. Raises `InputError` on a corrupted chunk."""
        if not (self._path / "zarr.json").is_file() or "plan" not in _attributes(self._path):
            return None
        return read_kernel(self._path)

    def write(self, kernel: Kernel) -> None:
        """Store the finished kernel; the plan attribute, written last, is what marks it finished."""
        group = self._open()
        arrays = {"total": kernel.total} | {f"groups/{name}": array for name, array in kernel.groups.items()}
        for name, array in arrays.items():
            target = group.create_array(
                name, shape=array.shape, dtype=array.dtype, chunks="auto", compressors=(Crc32cCodec(),), overwrite=True
            )  # fmt: skip
            target[...] = np.asarray(array)
        group.attrs.update(
            plan=dataclasses.asdict(kernel.plan),
            precision=kernel.precision,
            outputs=kernel.outputs,
            symmetric=kernel.symmetric,
        )
        (self._path / _PARTIAL).unlink(missing_ok=True)

    def partial(self) -> Partial | None:
        """What an interrupted run left, or None."""
        file = self._path / _PARTIAL
        if not file.is_file():
            return None
        with np.load(file) as saved:
            kernels = {name[1:]: saved[name] for name in saved.files if name.startswith("/")}
            return Partial(int(saved["done"]), int(saved["columns"]), int(saved["micro_batch"]), kernels)

    def save(self, state: Partial) -> None:
        """Replace the unfinished state; a kill at any moment leaves the old state or the new one."""
        self._open()
        temporary = self._path / (_PARTIAL + ".new")
        with temporary.open("wb") as file:
            np.savez(
                file,
                allow_pickle=False,
                done=state.done,
                columns=state.columns,
                micro_batch=state.micro_batch,
                **{f"/{name}": array for name, array in state.kernels.items()},
            )
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path / _PARTIAL)

    def _open(self) -> zarr.Group:
        group = zarr.open_group(self._path, mode="a")
        if "request" not in group.attrs:
            group.attrs["request"] = self._request
        return group


def read_kernel(path: str | Path) -> Kernel:
    """The finished kernel in the folder `path`, whoever asked for it.

    Raises `InputError` when there is no kernel, it is unfinished, or a chunk fails its checksum.
    """
    folder = Path(path)
    if not (folder / "zarr.json").is_file():
        raise InputError(f"read_kernel: {folder} is not a kernel store; make one with `ntkft kernel --out {folder}`")
    attributes = _attributes(folder)
    if "plan" not in attributes:
        raise InputError(f"read_kernel: {folder} is unfinished; run the command that began it again to finish it")
    try:
        root = zarr.open_group(folder, mode="r")
        total = np.asarray(root["total"])
        groups = {name: np.asarray(array) for name, array in zarr.open_group(folder / "groups", mode="r").arrays()}
    except (ValueError, OSError, KeyError) as error:
        raise InputError(f"read_kernel: {folder} is corrupted ({error}); delete it and compute it again") from error
    return Kernel(
        total,
        groups,
        attributes["outputs"],
        attributes["precision"],
        attributes["symmetric"],
        Plan(**attributes["plan"]),
    )


def _attributes(path: Path) -> dict[str, Any]:
    return dict(zarr.open_group(path, mode="r").attrs)


def _function_digest(apply_fn: ApplyFn, params: PyTree, inputs: PyTree) -> str:
    """Digest of the traced program and its constants: two readouts of one model are two functions."""
    closed = jax.make_jaxpr(apply_fn)(params, jax.tree.map(np.asarray, take_examples(inputs, slice(0, 1))))
    program = re.sub(r"0x[0-9a-f]+", "", str(closed.jaxpr))  # addresses of Python objects
    constants = digest([np.asarray(constant) for constant in closed.consts])
    return hashlib.sha256((program + constants).encode()).hexdigest()
