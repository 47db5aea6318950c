"""Adapters in PEFT's files: a directory with `adapter_config.json` and `adapter_model.safetensors`.

There A and B are two torch linear layers, A [rank, in] and B [out, rank], under the names that the base model's modules
have in torch.
"""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ntkft._errors import InputError, refuse
from ntkft._tree import check_finite, leaf_paths
from ntkft._types import PyTree
from ntkft.models.checkpoint import Checkpoint
from ntkft.models.conversion import AS_IT_IS, TRANSPOSED, TensorRule, tensor_rules
from ntkft.models.export import HEAD
from ntkft.models.families import family_of
from ntkft.models.loading import LoRA, Model
from ntkft.models.lora import OF_READOUTS, adapted_model, factors_of, opened, refuse_adapted

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def export_lora(model: Model, directory: str | os.PathLike[str], *, params: PyTree | None = None) -> Path:
    """Write the adapters at `params` (None: the model's own) as a directory that PEFT and `load_lora` read.

    Modules are named as in the torch class that the checkpoint's `architectures` name: with the backbone's prefix, but
    for a bare backbone. A fresh head, which no torch class has, goes into a file of its own, `ntkft_head.safetensors`.

    Raises `InputError` for a model without adapters or not loaded from a checkpoint, a directory that is not empty, and
    one that lists every adapter that PEFT has no place for (parts of a fused tensor, convolutions) and every leaf
    trained beside the adapters that is not the fresh head's.
    """
    lora, params = opened("export_lora", model, params)
    checkpoint, directory = _checkpoint("export_lora", model), Path(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InputError(f"export_lora: {directory} exists and is not an empty directory; choose another, or remove it")
    rules, prefix = _rules(checkpoint, model), _prefix(checkpoint)
    head, problems = {}, []
    for path, leaf in leaf_paths(params).items():
        if path.startswith("head/"):
            head[path] = np.asarray(leaf)
        elif not path.startswith("lora/"):
            problems.append(
                f"{path} is trained too, and an adapter cannot hold it; merge (merge_lora) and export the model"
            )
    tensors = {}
    for layer, (a, b) in factors_of(params).items():
        rule = rules[layer]
        if fault := _fault(rule):
            problems.append(
                f"{layer} {fault}; merge the adapters (merge_lora) and export the model, or choose other targets"
            )
        outside = layer.startswith(("lm_head/", "classifier/"))
        module = ("" if outside else prefix) + rule.tensor.removesuffix(".weight")
        for part, leaf in (("A", a), ("B", b)):
            tensors[f"base_model.model.{module}.lora_{part}.weight"] = np.ascontiguousarray(np.asarray(leaf).T)
    refuse("export_lora", problems)
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": checkpoint.name,
        "revision": None,
        "task_type": None,
        "inference_mode": True,
        "r": lora.rank,
        "lora_alpha": int(lora.alpha) if lora.alpha.is_integer() else lora.alpha,
        "lora_dropout": 0.0,
        "target_modules": sorted({re.sub(r"^base_model\.model\.|\.lora_[AB]\.weight$", "", name) for name in tensors}),
        # Whether the base layers store [in, out]; how A and B are stored does not depend on it.
        "fan_in_fan_out": any(rules[layer].layout is AS_IT_IS for layer in factors_of(params)),
        "bias": "none",
        "modules_to_save": None,
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
    }
    directory.mkdir(parents=True, exist_ok=True)
    (directory / CONFIG).write_text(json.dumps(config, indent=2))
    save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})
    if head:
        save_file(head, directory / HEAD, metadata={"readout": model.readout})
    return directory


# Attributes of adapter_config.json that are read here, or cannot change the outputs in evaluation mode. Every other one
# switches a variant on, and must be off.
_READ = frozenset({"peft_type", "r", "lora_alpha", "init_lora_weights"})
_IGNORED = (
    # where the adapter comes from, and what trained it
    frozenset({"base_model_name_or_path", "revision", "task_type", "inference_mode", "auto_mapping", "peft_version"})
    | {"lora_dropout", "parent_library"}
    # which layers have one: the tensors say so themselves
    | {"target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"}
    # how base weights are stored, and settings of variants that other attributes switch on
    | {"fan_in_fan_out", "megatron_core", "qalora_group_size", "loftq_config", "eva_config", "corda_config"}
)
_INITIALISED = (True, False, "gaussian", "orthogonal", "eva")
"""Initialisations that leave the base weights as they are (others, such as PiSSA's, subtract the first A B)."""


def load_lora(model: Model, directory: str | os.PathLike[str]) -> Model:
    """A base model with the adapters of a directory that PEFT or `export_lora` wrote, cast to the model's dtype.

    Parameters and groups are as of `attach_lora`; a fresh head that was exported is loaded and trained, too. Raises
    `InputError` for a model that has adapters or was not loaded from a checkpoint, a file that cannot be read, and one
    that lists every attribute of a variant that is not implemented, and every tensor that is unknown, missing,
    misshapen or not finite.
    """
    refuse_adapted("load_lora", model)
    checkpoint, directory = _checkpoint("load_lora", model), Path(directory)
    config = _parsed(lambda path: json.loads(path.read_text()), directory / CONFIG)
    rank, alpha = _scaling(directory, config)
    held, prefix = leaf_paths(model.params), family_of(checkpoint.attributes).names.prefix
    modules = {rule.tensor: layer for layer, rule in _rules(checkpoint, model).items() if not _fault(rule)}
    factors, problems = {}, []
    for name, tensor in _parsed(load_file, directory / WEIGHTS).items():
        found = re.fullmatch(r"base_model\.model\.(.+)\.lora_([AB])\.weight", name)
        layer = modules.get(found[1].removeprefix(prefix) + ".weight") if found else None
        if found is None or layer is None or f"{layer}/kernel" not in held:
            problems.append(f"tensor {name!r} belongs to no linear layer of this model with readout {model.readout}")
            continue
        width, outputs = held[f"{layer}/kernel"].shape
        if tensor.shape != (wanted := (rank, width) if found[2] == "A" else (outputs, rank)):
            problems.append(f"tensor {name!r} has shape {tensor.shape}; rank and layer ask for {wanted}")
        factors[f"{layer}/{found[2].lower()}"] = tensor.T
    for path in sorted(factors):
        if (other := path[:-1] + "ba"["ab".index(path[-1])]) not in factors:
            problems.append(f"the tensor of {other} is missing, which belongs to {path}")
    if not factors and not problems:
        problems.append(f"{WEIGHTS} holds no tensors")
    head = _parsed(load_file, directory / HEAD) if (directory / HEAD).exists() else {}
    for path, leaf in head.items():
        if path not in held or held[path].shape != leaf.shape:
            problems.append(f"{HEAD} holds {path} {leaf.shape}; readout {model.readout} has no such head")
    refuse(f"adapter {directory}", problems)
    check_finite(f"adapter {directory}", factors | head)
    cast = {path: jnp.asarray(leaf, held[next(iter(held))].dtype) for path, leaf in (factors | head).items()}
    return adapted_model(
        LoRA(model, rank, alpha), {path: cast[path] for path in factors}, {path: cast[path] for path in head}
    )


def _checkpoint(call: str, model: Model) -> Checkpoint:
    if model.checkpoint is None:
        raise InputError(f"{call}: a random model has no names in torch; load a checkpoint, or write one and load it")
    return model.checkpoint


def _rules(checkpoint: Checkpoint, model: Model) -> dict[str, TensorRule]:
    """The rule of every layer's kernel."""
    rules = tensor_rules(family_of(checkpoint.attributes).names, model.config.layers)
    return {
        leaf.removesuffix("/kernel"): rule
        for rule in rules
        for leaf in rule.leaves
        if leaf.endswith("/kernel") and leaf not in OF_READOUTS
    }


def _fault(rule: TensorRule) -> str | None:
    """Why PEFT's format has no adapter for one layer alone of this tensor."""
    if len(rule.leaves) > 1:
        return f"is a part of the fused tensor {rule.tensor}, for which PEFT has one adapter"
    if rule.layout not in (TRANSPOSED, AS_IT_IS):
        return f"is the convolution {rule.tensor}, for which PEFT has an adapter of another form"
    return None


def _prefix(checkpoint: Checkpoint) -> str:
    """The backbone's prefix in the torch class that `architectures` names; without any, as the tensors have it."""
    prefix = family_of(checkpoint.attributes).names.prefix
    if architectures := checkpoint.attributes.get("architectures"):
        bare = re.search(r"(?<!Head)(?<!Heads)Model$", architectures[0])
    else:
        bare = not any(name.startswith(prefix) for name in checkpoint.tensors)
    return "" if bare else prefix


def _scaling(directory: Path, config: Any) -> tuple[int, float]:
    """Rank and alpha of an `adapter_config.json`; refuses every variant of LoRA that is switched on."""
    if not isinstance(config, dict):
        raise InputError(f"{directory / CONFIG}: got a JSON {type(config).__name__}; wanted an object")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    problems = (
        [] if config.get("peft_type") == "LORA" else [f"peft_type is {config.get('peft_type')!r}; supported: 'LORA'"]
    )
    if type(rank) is not int or rank < 1:
        problems.append(f"r is {rank!r}; supported: a positive integer")
    if not isinstance(alpha, int | float) or not 0 < alpha < np.inf:
        problems.append(f"lora_alpha is {alpha!r}; supported: a positive number")
    if (start := config.get("init_lora_weights", True)) not in _INITIALISED:
        problems.append(f"init_lora_weights is {start!r}, which changes the base weights; convert it to plain LoRA")
    problems += [
        f"{name} is {value!r}, a variant of LoRA that is not implemented"
        for name, value in config.items()
        if name not in _READ | _IGNORED and value not in (None, False, "none", [], {})
    ]
    refuse(f"{directory / CONFIG}", problems)
    return config["r"], float(config["lora_alpha"])


def _parsed(read: Callable[[Path], Any], path: Path) -> Any:
    try:
        return read(path)
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing; an adapter is a directory with {CONFIG} and {WEIGHTS}") from error
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read ({error}); fetch or export the adapter again") from error
