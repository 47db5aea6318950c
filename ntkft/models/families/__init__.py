"""Families: what `config.json` and the tensor names of each `model_type` mean; a new one is one more record."""

from collections.abc import Mapping
from typing import Any

from ntkft._errors import InputError
from ntkft.models.config import TransformerConfig
from ntkft.models.families.bert import BERT, ROBERTA
from ntkft.models.families.distilbert import DISTILBERT
from ntkft.models.families.family import Family, read_attributes
from ntkft.models.families.gpt2 import GPT2, GPT_NEO
from ntkft.models.families.gpt_neox import GPT_NEOX
from ntkft.models.families.llama import LLAMA, MISTRAL, QWEN2, QWEN3
from ntkft.models.families.opt import OPT
from ntkft.models.families.vit import VIT

FAMILIES: dict[str, Family] = {
    "bert": BERT,
    "roberta": ROBERTA,
    "distilbert": DISTILBERT,
    "gpt2": GPT2,
    "gpt_neo": GPT_NEO,
    "opt": OPT,
    "gpt_neox": GPT_NEOX,
    "llama": LLAMA,
    "mistral": MISTRAL,
    "qwen2": QWEN2,
    "qwen3": QWEN3,
    "vit": VIT,
}
"""Families by `model_type`."""


def family_of(attributes: Mapping[str, Any]) -> Family:
    """The family of a `config.json`; raises `InputError` listing the supported ones for any other `model_type`."""
    model_type = attributes.get("model_type")
    if model_type not in FAMILIES:
        raise InputError(f"config.json: model_type {model_type!r} is not supported; supported: {', '.join(FAMILIES)}")
    return FAMILIES[model_type]


def read_config(attributes: Mapping[str, Any]) -> TransformerConfig:
    """The transformer that the attributes of a `config.json` describe; what is absent has the family's default.

    Raises `InputError` for an unsupported `model_type`, and one that lists every attribute that is missing, unknown,
    or has a value that is not implemented.
    """
    return read_attributes(family_of(attributes), attributes)
