"""Models: pretrained checkpoints, or a user's own module, as `apply_fn(params, inputs)` and a dict of parameters."""

from ntkft.models.adapters import from_linen as from_linen
from ntkft.models.adapters import from_nnx as from_nnx
from ntkft.models.families import read_config as read_config
from ntkft.models.loading import GROUPS as GROUPS
from ntkft.models.loading import Model as Model
from ntkft.models.loading import load as load
from ntkft.models.loading import random_model as random_model
from ntkft.models.readouts import Readout as Readout
from ntkft.models.readouts import label_words as label_words
from ntkft.models.readouts import linear as linear
from ntkft.models.readouts import logit_difference as logit_difference
from ntkft.models.readouts import next_token as next_token
from ntkft.models.readouts import parse_readout as parse_readout
from ntkft.models.readouts import regression as regression
from ntkft.models.transformer import TransformerConfig as TransformerConfig
