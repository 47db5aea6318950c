"""Back to Hugging Face: parameters as a checkpoint directory, for transformers and for `load`.

A model knows the checkpoint that it was loaded from. Its parameters go back under the names, and in the layout, that
they came in; everything that its readout does not use (another head, files of the tokenizer) is copied as it is. So
loading and exporting without a change in between gives the same tensors.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from huggingface_hub import split_state_dict_into_shards_factory
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from ntkft._errors import InputError
from ntkft._tree import leaf_paths
from ntkft._types import PyTree
from ntkft.models.checkpoint import CONFIG, INDEX, TOKENIZER
from ntkft.models.config import TransformerConfig
from ntkft.models.conversion import NameTable, TensorRule, canonical_names, leaf_shapes, pack, tensor_rules
from ntkft.models.families import family_of, read_config
from ntkft.models.loading import Model, architecture

HEAD = "ntkft_head.safetensors"
"""A fresh head, which no class of transformers has, in a file of its own: `head/kernel`, perhaps `head/bias`."""

_COPIED = ("*.json", "*.txt", "*.model")
"""What a checkpoint directory holds beside weights: configs, vocabularies, merges, sentencepiece models."""


class _Tensor(NamedTuple):
    """A tensor to be written: its bytes, and how to get it."""

    size: int
    read: Callable[[], np.ndarray]


def export(
    model: Model, directory: str | os.PathLike[str], *, params: PyTree | None = None, shard_size: int | str = "5GB"
) -> Path:
    """Write a model's checkpoint anew with other parameters (None: its own): `config.json`, tokenizer and safetensors.

    Tensors that hold parameters have the dtype of the parameters, all others that of the checkpoint. Files are split
    at `shard_size` (bytes, or "500MB"). A fresh head goes into a file of its own, `ntkft_head.safetensors`. The
    directory appears in one rename.

    Cost: one pass over the checkpoint; host memory: one shard. Raises `InputError` for a model that was not loaded from
    a checkpoint, parameters of another structure or shape, and a directory that is not empty.
    """
    if model.checkpoint is None:
        raise InputError("export: a random model has no checkpoint to go back to; use write_checkpoint with attributes")
    if model.lora is not None:
        raise InputError("export: this model has adapters; export_lora writes them, or export its base at merge_lora's")
    params = model.params if params is None else params
    _refuse_others(params, model.params)
    checkpoint, leaves = model.checkpoint, leaf_paths(params)
    names = family_of(checkpoint.attributes).names
    stored, _ = canonical_names(checkpoint.tensors, names)
    rules = _rules(names, model.config, leaves)
    own = _rules(names, model.config, leaf_shapes(architecture(model.config)))
    tensors = {}
    for canonical, name in stored.items():
        # A copy that the config ties has no rule of its own, and follows its original.
        rule = rules.get(canonical if canonical in own else names.tied.get(canonical, canonical))
        tensors[name] = _packed(rule, model.config, leaves) if rule else _copied(checkpoint.tensors, name)

    def write(folder: Path) -> None:
        for path in {path for pattern in _COPIED for path in checkpoint.directory.glob(pattern)}:
            if path.name != INDEX:
                shutil.copy(path, folder / path.name)
        _write_tensors(folder, tensors, shard_size)
        if head := {path: np.asarray(leaf) for path, leaf in leaves.items() if path.startswith("head/")}:
            save_file(head, folder / HEAD, metadata={"readout": model.readout})

    return _in_one_rename(Path(directory), write)


def write_checkpoint(
    directory: str | os.PathLike[str],
    attributes: Mapping[str, Any],
    params: PyTree,
    tokenizer: Tokenizer | None,
    *,
    shard_size: int | str = "5GB",
) -> Path:
    """Write a checkpoint from its `config.json` attributes and parameters: of a model trained from scratch, say.

    `params` hold the backbone and any of the components that the family has (tied weights once). Otherwise as
    `export`. Raises `InputError` for attributes that are not understood, and for parameters that the architecture does
    not have or that it lacks.
    """
    config, names, leaves = read_config(attributes), family_of(attributes).names, leaf_paths(params)
    rules = _rules(names, config, leaves)
    written = {leaf for rule in rules.values() for leaf in rule.leaves}
    if unknown := sorted(leaves.keys() - written):
        raise InputError(f"write_checkpoint: model_type {attributes['model_type']!r} has no {', '.join(unknown)}")

    def write(folder: Path) -> None:
        (folder / CONFIG).write_text(json.dumps(dict(attributes), indent=2))
        if tokenizer is not None:
            tokenizer.save(str(folder / TOKENIZER))
        _write_tensors(folder, {rule.tensor: _packed(rule, config, leaves) for rule in rules.values()}, shard_size)

    return _in_one_rename(Path(directory), write)


def _rules(names: NameTable, config: TransformerConfig, leaves: Mapping[str, Any]) -> dict[str, TensorRule]:
    rules = tensor_rules(names, config.layers)
    return {rule.tensor: rule for rule in rules if all(leaf in leaves for leaf in rule.leaves)}


def _packed(rule: TensorRule, config: TransformerConfig, leaves: Mapping[str, Any]) -> _Tensor:
    size = sum(leaves[leaf].nbytes for leaf in rule.leaves)
    return _Tensor(size, lambda: np.ascontiguousarray(pack(rule, config, leaves)))


def _copied(tensors: Mapping[str, Any], name: str) -> _Tensor:
    return _Tensor(tensors[name].nbytes, lambda: tensors[name])


def _write_tensors(folder: Path, tensors: Mapping[str, _Tensor], shard_size: int | str) -> None:
    sizes = {name: tensor.size for name, tensor in tensors.items()}
    split = split_state_dict_into_shards_factory(
        sizes,
        get_storage_size=lambda size: size,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=shard_size,
    )
    for file, names in split.filename_to_tensors.items():
        # transformers reads files that say which framework's layout they have; ours is torch's.
        save_file({name: tensors[name].read() for name in names}, folder / file, metadata={"format": "pt"})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / INDEX).write_text(json.dumps(index, indent=2))


def _in_one_rename(directory: Path, write: Callable[[Path], None]) -> Path:
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InputError(f"export: {directory} exists and is not an empty directory; choose another, or remove it")
    draft = directory.with_name(f"{directory.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    write(draft)
    os.replace(draft, directory)
    return directory


def _refuse_others(params: PyTree, wanted: PyTree) -> None:
    got, want = ({path: leaf.shape for path, leaf in leaf_paths(tree).items()} for tree in (params, wanted))
    if other := sorted(path for path in got.keys() | want.keys() if got.get(path) != want.get(path)):
        shown = ", ".join(f"{path} ({got.get(path, 'absent')}, wanted {want.get(path, 'none')})" for path in other[:5])
        raise InputError(f"export: {len(other)} leaves are not those of the model: {shown}")
