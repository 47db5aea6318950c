"""Kernels on disk: one Zarr group whose chunks are the tiles of examples, each with its checksum.

    K.zarr/
      zarr.json             attributes: the request (what was asked, of which model and data), tile, memory budget,
                            device; the plan, as soon as the first tile is finished
      total, groups/NAME    the kernel and its parts, `[n, m]` or `[n, k, m, k]`, chunk by chunk with crc32c

A tile is finished when its chunks are there in every array and pass their checksums; nothing else says how far a run
has come. Zarr writes a chunk beside its place and renames it, so a kill leaves whole chunks, or a draft that the next
run removes. Chunks not yet there read as NaN. Both triangles of a symmetric kernel are written, for other readers.

A folder belongs to one request. Reading or resuming under another request is refused and touches nothing.
"""

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

from ntkft import __version__
from ntkft._errors import InputError
from ntkft._tree import ALL, digest, take_examples
from ntkft._types import ApplyFn, Array, PyTree
from ntkft.kernels.kernel import Kernel, LeafPlan, Plan

TILE = 1024
"""Examples a side of a tile when nobody says: a kill then loses minutes, and a float32 chunk is 4 MB."""

_DRAFTS = "*.partial"  # what Zarr's local store names a file that it has not yet renamed into place


def kernel_request(
    apply_fn: ApplyFn,
    params: PyTree,
    x1: PyTree,
    x2: PyTree | None,
    *,
    outputs: str,
    groups: Mapping[str, str] | None,
    method: str,
    precision: str = "full",
) -> dict[str, Any]:
    """Everything that determines a kernel's numbers, as JSON: digests of model and data, the form, versions."""
    return {
        "function": _function_digest(apply_fn, params, x1),
        "parameters": digest(params),
        "x1": digest(x1),
        "x2": None if x2 is None else digest(x2),
        "outputs": outputs,
        "precision": str(jnp.result_type(*jax.tree.leaves(params))),
        "rounding": precision,
        "groups": None if groups is None else dict(groups),
        "method": method,
        "versions": {"ntkft": __version__, "jax": jax.__version__, "numpy": np.__version__},
    }


@dataclasses.dataclass(frozen=True)
class Begun:
    """What a folder's run decided for all that resume it: examples a side of a tile, bytes to work in."""

    tile: int
    memory: int


def begun_with(path: str | Path) -> Begun | None:
    """The decisions of the kernel store at `path`, whoever's it is; None where there is none."""
    found = _attributes(Path(path))
    return Begun(int(found["tile"]), int(found["memory"])) if found and {"tile", "memory"} <= set(found) else None


class KernelStore:
    """The folder `path` as the home of one requested kernel, created where there is none.

    shape:  of the whole kernel, `[n, m]` or `[n, k, m, k]`
    tile:   examples a side of a tile
    memory: bytes to work in, kept for a resumed run to work alike: other slices would round differently

    Raises `InputError` when the folder holds something else: another request (naming what differs), other tiles, a
    file, or a folder that is not a kernel store.
    """

    def __init__(self, path: str | Path, request: Mapping[str, Any], *, shape: tuple[int, ...], tile: int, memory: int):
        self._path, self._symmetric = Path(path), request["x2"] is None
        longest = max(shape[0], shape[len(shape) // 2])
        found = _attributes(self._path)
        if found is None:
            self._refuse_folder_of_others()
            found = {
                "request": dict(request),
                "tile": min(tile, longest),
                "memory": memory,
                "device": jax.devices()[0].device_kind,
            }
            zarr.create_group(self._path, attributes=found)
        differing = [name for name in request if found.get("request", {}).get(name) != request[name]]
        if differing:
            raise InputError(
                f"store: {self._path} holds the kernel of a different run (other {', '.join(differing)}); nothing "
                "was changed. Choose another folder, or delete this one"
            )
        self.tile, self.memory = int(found["tile"]), int(found["memory"])
        if min(tile, longest) != self.tile:
            raise InputError(
                f"store: {self._path} is cut into tiles of {self.tile} examples, got tile={tile}; leave tile out to go "
                "on with it, or choose another folder"
            )
        self._root = zarr.open_group(self._path, mode="r+")
        precision = np.dtype(jnp.promote_types(request["precision"], jnp.float32))
        self._arrays = {name: self._array(name, shape, precision) for name in _names(request)}

    def holds(self, position: tuple[int, int]) -> bool:
        """Whether tile (i, j) is finished: all of its chunks are there and pass their checksums."""
        i, j = position
        corners = {(i, j), (j, i)} if self._symmetric else {(i, j)}
        return all(self._holds_chunk(name, *corner) for name in self._arrays for corner in corners)

    def write(self, position: tuple[int, int], block: Kernel) -> None:
        """Store tile (i, j). The first also brings the plan, before its chunks, so that no finished tile lacks it."""
        if position == (0, 0):
            self._root.attrs.update(plan=dataclasses.asdict(block.plan))
        values = arrays_of(block)
        for name, array in self._arrays.items():
            place(array, position, self.tile, values[name], symmetric=self._symmetric)

    def read(self) -> Kernel:
        """The kernel; see `read_kernel`."""
        return read_kernel(self._path)

    def tidy(self) -> None:
        """Remove the drafts of chunks that a killed run left, once nobody writes."""
        for draft in self._path.rglob(_DRAFTS):
            draft.unlink(missing_ok=True)

    def _refuse_folder_of_others(self) -> None:
        if not self._path.exists():
            return
        if not self._path.is_dir() or set(self._path.iterdir()) != set(self._path.glob(_DRAFTS)):
            raise InputError(f"store: {self._path} exists and is not a kernel store; choose another folder")

    def _array(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> zarr.Array:
        sides = {0, len(shape) // 2}
        # A chunk of nothing but the fill value must be written like any other, or it would look unfinished.
        with zarr.config.set({"array.write_empty_chunks": True}):
            if name in self._root:
                return zarr.open_array(self._path / name, mode="r+")
            return self._root.create_array(
                name,
                shape=shape,
                dtype=dtype,
                chunks=tuple(min(self.tile, size) if axis in sides else size for axis, size in enumerate(shape)),
                compressors=(Crc32cCodec(),),
                fill_value=np.nan,
            )

    def _holds_chunk(self, name: str, i: int, j: int) -> bool:
        array = self._arrays[name]
        chunk = (i, j) if array.ndim == 2 else (i, 0, j, 0)
        if not (self._path / name / array.metadata.encode_chunk_key(chunk)).is_file():
            return False
        try:
            array[_span((i, j), self.tile, array.ndim)]
        except (ValueError, OSError):
            return False
        return True


def read_kernel(path: str | Path) -> Kernel:
    """The finished kernel in the folder `path`, whoever asked for it.

    Raises `InputError` when there is no kernel, it is unfinished, or a chunk fails its checksum.
    """
    folder = Path(path)
    attributes = _attributes(folder)
    if attributes is None or "request" not in attributes:
        raise InputError(f"read_kernel: {folder} is not a kernel store; make one with `ntkft kernel --out {folder}`")
    root, names = zarr.open_group(folder, mode="r"), _names(attributes["request"])
    if "plan" not in attributes or not all(name in root and _is_full(root[name]) for name in names):
        raise InputError(f"read_kernel: {folder} is unfinished; run the command that began it again to finish it")
    try:
        total, *groups = (np.asarray(root[name]) for name in names)
    except (ValueError, OSError) as error:
        raise InputError(
            f"read_kernel: {folder} has a corrupted tile ({error}); run the command that made it again, which "
            "computes that tile anew"
        ) from error
    request = attributes["request"]
    return Kernel(
        total,
        dict(zip([name.removeprefix("groups/") for name in names[1:]], groups, strict=True)),
        request["outputs"],
        request["precision"],
        request["x2"] is None,
        _plan(attributes["plan"]),
    )


def arrays_of(kernel: Kernel) -> dict[str, Array]:
    """The kernel's arrays by the names that they have in a store."""
    return {"total": kernel.total} | {f"groups/{name}": array for name, array in kernel.groups.items()}


def place(array: Any, position: tuple[int, int], tile: int, values: Array, *, symmetric: bool) -> None:
    """Put tile (i, j) where it belongs in a NumPy or Zarr array, and its transpose too when that is symmetric."""
    (i, j), half = position, values.ndim // 2
    array[_span((i, j), tile, values.ndim)] = np.asarray(values)
    if symmetric and i != j:
        transposed = np.transpose(values, (*range(half, values.ndim), *range(half)))
        array[_span((j, i), tile, values.ndim)] = transposed


def _span(position: tuple[int, int], tile: int, ndim: int) -> tuple[slice, ...]:
    rows, columns = (slice(index * tile, (index + 1) * tile) for index in position)
    return (rows, columns) if ndim == 2 else (rows, slice(None), columns, slice(None))


def _names(request: Mapping[str, Any]) -> list[str]:
    """Names of the arrays: the total, then the groups in order of their names."""
    return ["total", *(f"groups/{name}" for name in sorted(request["groups"] or [ALL]))]


def _is_full(array: Any) -> bool:
    return array.nchunks_initialized == array.nchunks


def _plan(record: Mapping[str, Any]) -> Plan:
    fields = dict(record)
    fields["leaves"] = tuple(LeafPlan(**leaf | {"sites": tuple(leaf["sites"])}) for leaf in record["leaves"])
    return Plan(**fields)


def _attributes(path: Path) -> dict[str, Any] | None:
    """What the folder says of itself, or None when it is no Zarr group."""
    if not (path / "zarr.json").is_file():
        return None
    try:
        return dict(zarr.open_group(path, mode="r").attrs)
    except ValueError as error:
        raise InputError(f"store: {path / 'zarr.json'} cannot be read ({error}); delete the folder") from error


def _function_digest(apply_fn: ApplyFn, params: PyTree, inputs: PyTree) -> str:
    """Digest of the traced program and its constants: two readouts of one model are two functions."""
    closed = jax.make_jaxpr(apply_fn)(params, jax.tree.map(np.asarray, take_examples(inputs, slice(0, 1))))
    program = re.sub(r"0x[0-9a-f]+", "", str(closed.jaxpr))  # addresses of Python objects
    constants = digest([np.asarray(constant) for constant in closed.consts])
    return hashlib.sha256((program + constants).encode()).hexdigest()
