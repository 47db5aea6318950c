"""Tiny models with adapters."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from ntkft.models import attach_lora, linear, random_model, read_config
from tests.models.tiny import BERT, batch

LINEAR = linear(2, pool="mean", scale=1, seed=0)
ONE_LAYER = BERT | {"num_hidden_layers": 1}
INPUTS = batch((5, 2, 4), vocab_size=13)
TARGETS = r"attention/(query|value|output)/kernel$|mlp/"
SCALE = 3 / 2


def base_of(attributes, readout=LINEAR, dtype="float64"):
    return random_model(read_config(attributes), readout=readout, seed=0, dtype=dtype)


def attached(model, targets=TARGETS, train=None):
    return attach_lora(model, targets=targets, rank=2, alpha=3, seed=0, train=train)


def moved(model, seed=1):
    """The model at random parameters: B is no longer zero."""
    rng = np.random.default_rng(seed)
    return replace(
        model, params=jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.5, leaf.shape), leaf.dtype), model.params)
    )
