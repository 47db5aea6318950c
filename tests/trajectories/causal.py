"""Two tiny causal models of one vocabulary, a small and a large one."""

from ntkft.models import Model, next_token, random_model, read_config
from ntkft.models.readouts import Readout
from tests.models.tiny import GPT2

VOCABULARY = GPT2["vocab_size"]
SMALL = GPT2 | {"n_embd": 4, "n_layer": 1}


def model_of(attributes: dict, seed: int, readout: Readout | None = None, dtype: str = "float64") -> Model:
    """A random model; its logits are of order one, so that no token has all the probability."""
    return random_model(read_config(attributes), readout=readout or next_token(), seed=seed, dtype=dtype)
