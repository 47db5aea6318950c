"""What a checkpoint is, read from its config alone: no weight is fetched or loaded."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from os import PathLike
from typing import Any

import numpy as np

from ntkft.models.checkpoint import read_config_file
from ntkft.models.config import Patches, TransformerConfig
from ntkft.models.conversion import leaf_shapes
from ntkft.models.families import read_config
from ntkft.models.loading import GROUPS, architecture

PARAMETER_BYTES = {"float32": 4, "bfloat16": 2}
"""Bytes of one parameter in the dtypes in which people load."""


@dataclass(frozen=True)
class Summary:
    """A checkpoint's architecture and size.

    parameters: group → parameters, every optional part of the architecture included
    """

    name: str
    model_type: str
    config: TransformerConfig
    parameters: Mapping[str, int]

    @property
    def total(self) -> int:
        """Parameters of all groups."""
        return sum(self.parameters.values())

    @property
    def bytes(self) -> dict[str, int]:
        """Memory of the parameters of all groups, by dtype."""
        return {dtype: size * self.total for dtype, size in PARAMETER_BYTES.items()}

    def inputs(self, n: int, tokens: int) -> dict[str, np.ndarray]:
        """Inputs of n examples, of which only shape and type mean something; an image is as large as it is."""
        front = self.config.front
        if isinstance(front, Patches):
            return {"pixel_values": np.zeros((n, front.channels, *front.image), np.float32)}
        ids = np.zeros((n, tokens), np.int32)
        return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def summarize(source: str | PathLike[str], *, revision: str | None = None, token: str | None = None) -> Summary:
    """The summary of a source as `load` takes it; of a Hub id only `config.json` is fetched.

    Raises `InputError` for a source that is not there and a config that is not understood.
    """
    attributes: dict[str, Any] = read_config_file(source, revision=revision, token=token)
    config = read_config(attributes)
    counts = dict.fromkeys(GROUPS, 0)
    for path, shape in leaf_shapes(architecture(config)).items():
        (group,) = (name for name, regex in GROUPS.items() if re.search(regex, path))
        counts[group] += prod(shape)
    return Summary(str(source), attributes["model_type"], config, {name: n for name, n in counts.items() if n})
