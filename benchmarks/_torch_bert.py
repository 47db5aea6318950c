"""BERT with a linear head on the mean token, as a PyTorch function of weights under the paths of `ntkft.models`."""

import torch
from torch.nn.functional import gelu, layer_norm

from ntkft.models import TransformerConfig

Tensors = dict[str, torch.Tensor]


class Bert:
    """Outputs `[n, k]` of token ids `[n, t]` without padding, from the mean token.

    Called with some of the weights; the others keep the values given here.
    """

    def __init__(self, config: TransformerConfig, tensors: Tensors):
        assert config.block == "post_norm"
        assert config.activation == "gelu"
        self._config = config
        self._tensors = tensors

    def __call__(self, weights: Tensors, ids: torch.Tensor) -> torch.Tensor:
        leaves = self._tensors | weights
        tables = [leaves[f"embeddings/{name}"] for name in ("token", "position", "token_type")]
        hidden = tables[0][ids] + tables[1][: ids.shape[1]] + tables[2][0]
        hidden = self._norm(leaves, "embeddings/norm", hidden)
        for layer, scale in enumerate(self._config.attention_scale):
            at = f"layers/{layer}"
            mixed = self._attention(leaves, f"{at}/attention", hidden, scale)
            hidden = self._norm(leaves, f"{at}/attention_norm", hidden + mixed)
            wide = gelu(_linear(leaves, f"{at}/mlp/up", hidden))
            hidden = self._norm(leaves, f"{at}/mlp_norm", hidden + _linear(leaves, f"{at}/mlp/down", wide))
        return hidden.mean(1) @ leaves["head/kernel"]

    def _attention(self, leaves: Tensors, at: str, hidden: torch.Tensor, scale: float) -> torch.Tensor:
        n, t, d = hidden.shape
        heads = self._config.heads
        query, key, value = (
            _linear(leaves, f"{at}/{name}", hidden).reshape(n, t, heads, d // heads)
            for name in ("query", "key", "value")
        )
        weights = torch.softmax(scale * torch.einsum("nqhe,nkhe->nhqk", query, key), -1)
        return _linear(leaves, f"{at}/output", torch.einsum("nhqk,nkhe->nqhe", weights, value).reshape(n, t, d))

    def _norm(self, leaves: Tensors, at: str, hidden: torch.Tensor) -> torch.Tensor:
        epsilon = self._config.norm_epsilon
        return layer_norm(hidden, hidden.shape[-1:], leaves[f"{at}/scale"], leaves[f"{at}/bias"], epsilon)


def _linear(leaves: Tensors, at: str, hidden: torch.Tensor) -> torch.Tensor:
    return hidden @ leaves[f"{at}/kernel"] + leaves[f"{at}/bias"]
