"""Models: pretrained checkpoints, or a user's own module, as `apply_fn(params, inputs)` and a dict of parameters."""

from ntkft.models.adapters import from_linen as from_linen, from_nnx as from_nnx
from ntkft.models.config import TransformerConfig as TransformerConfig
from ntkft.models.export import export as export, write_checkpoint as write_checkpoint
from ntkft.models.families import read_config as read_config
from ntkft.models.loading import GROUPS as GROUPS, Model as Model, load as load, random_model as random_model
from ntkft.models.lora import attach_lora as attach_lora, merge_lora as merge_lora
from ntkft.models.peft import export_lora as export_lora, load_lora as load_lora
from ntkft.models.readouts import (
    Readout as Readout,
    classifier as classifier,
    label_words as label_words,
    linear as linear,
    logit_difference as logit_difference,
    next_token as next_token,
    parse_readout as parse_readout,
    regression as regression,
)
