"""Llama, Mistral, Qwen2 and Qwen3: decoders with rotary positions, RMS norms, grouped queries and a gated MLP."""

from dataclasses import replace
from typing import Any

from ntkft.models import conversion as kind
from ntkft.models.config import Tokens, TransformerConfig
from ntkft.models.conversion import NameTable
from ntkft.models.families.family import (
    CHOICES,
    IGNORED,
    LABELS,
    REQUIRED,
    Family,
    activation,
    decoder_heads,
    transformer,
)
from ntkft.models.families.rope import ROPE, rotary


def _llama(values: dict[str, Any]) -> TransformerConfig:
    width, heads = values["hidden_size"], values["num_attention_heads"]
    if not values["head_dim"] and width % heads:
        raise ValueError(
            f"hidden_size {width} is not a multiple of num_attention_heads {heads}, and head_dim is absent"
        )
    head_width = values["head_dim"] or width // heads
    shared = values["num_key_value_heads"] or heads
    if heads % shared:
        raise ValueError(f"num_key_value_heads is {shared}, num_attention_heads {heads}; the latter must be a multiple")
    if head_width % 2:
        raise ValueError(f"head_dim is {head_width}; rotary positions need an even one")
    return transformer(
        Tokens(
            vocab_size=values["vocab_size"],
            width=width,
            max_positions=values["max_position_embeddings"],
            position_offset=None,
            token_types=0,
            norm=False,
        ),
        width=width,
        layers=values["num_hidden_layers"],
        heads=heads,
        kv_heads=shared,
        head_width=head_width,
        mlp_width=values["intermediate_size"],
        activation=values["hidden_act"],
        gated=True,
        norm="rms",
        norm_epsilon=values["rms_norm_eps"],
        rotary=rotary(values, head_width),
        qkv_bias=values["attention_bias"],
        output_bias=values["attention_bias"],
        mlp_bias=values["mlp_bias"],
        **decoder_heads(values),
    )


def _mistral(values: dict[str, Any]) -> TransformerConfig:
    """No biases; every layer sees the same window."""
    config = _llama(values | {"attention_bias": False, "mlp_bias": False})
    return replace(config, windows=(values["sliding_window"],) * config.layers)


def _qwen2(values: dict[str, Any]) -> TransformerConfig:
    """Biases of queries, keys and values alone; the last layers may see a window."""
    config = _llama(values | {"head_dim": None, "attention_bias": False, "mlp_bias": False})
    return replace(config, qkv_bias=True, windows=_windows(values))


def _qwen3(values: dict[str, Any]) -> TransformerConfig:
    """Norms of queries and keys; the last layers may see a window."""
    return replace(_llama(values | {"mlp_bias": False}), qk_norm=True, windows=_windows(values))


def _windows(values: dict[str, Any]) -> tuple[int | None, ...]:
    window = values["sliding_window"] if values["use_sliding_window"] else None
    layers, kinds = values["num_hidden_layers"], values["layer_types"]
    if kinds is None:
        first = values["max_window_layers"]
        return tuple(window if layer >= first else None for layer in range(layers))
    if len(kinds) != layers:
        raise ValueError(f"layer_types names {len(kinds)} layers, num_hidden_layers is {layers}")
    if "sliding_attention" in kinds and window is None:
        raise ValueError("layer_types names sliding_attention, but there is no sliding_window in use")
    return tuple(window if each == "sliding_attention" else None for each in kinds)


def _window(value: Any) -> int | None:
    if value is not None and (type(value) is not int or value < 1):
        raise ValueError("supported: null or a positive integer")
    return value


def _layer_types(value: Any) -> Any:
    if value is not None and not (isinstance(value, list) and set(value) <= {"full_attention", "sliding_attention"}):
        raise ValueError("supported: null or a list of 'full_attention' and 'sliding_attention', one per layer")
    return value


_SIZES = {
    "vocab_size": REQUIRED,
    "hidden_size": REQUIRED,
    "intermediate_size": REQUIRED,
    "num_hidden_layers": REQUIRED,
    "num_attention_heads": REQUIRED,
    "num_key_value_heads": None,
    "max_position_embeddings": REQUIRED,
}
_HEAD = {"head_dim": None}
_PLAIN = CHOICES | {"hidden_act": activation("silu"), "tie_word_embeddings": (False, True)}
_WINDOW = {"sliding_window": (None, _window)}

LLAMA = Family(
    sizes=_SIZES | _HEAD,
    numbers={"rms_norm_eps": 1e-6},
    choices=_PLAIN | {"attention_bias": (False, True), "mlp_bias": (False, True), "pretraining_tp": (1,)},
    structures=LABELS | ROPE,
    ignored=IGNORED,
    configure=_llama,
    names=NameTable(
        prefix="model.",
        modules=(
            ("embed_tokens", "embeddings/token", kind.TABLE),
            ("layers.#.input_layernorm", "layers/#/attention_norm", kind.NORM),
            ("layers.#.self_attn.q_proj", "layers/#/attention/query", kind.LINEAR),
            ("layers.#.self_attn.k_proj", "layers/#/attention/key", kind.LINEAR),
            ("layers.#.self_attn.v_proj", "layers/#/attention/value", kind.LINEAR),
            ("layers.#.self_attn.o_proj", "layers/#/attention/output", kind.LINEAR),
            ("layers.#.self_attn.q_norm", "layers/#/attention/query_norm", kind.NORM),
            ("layers.#.self_attn.k_norm", "layers/#/attention/key_norm", kind.NORM),
            ("layers.#.post_attention_layernorm", "layers/#/mlp_norm", kind.NORM),
            ("layers.#.mlp.gate_proj", "layers/#/mlp/gate", kind.LINEAR),
            ("layers.#.mlp.up_proj", "layers/#/mlp/up", kind.LINEAR),
            ("layers.#.mlp.down_proj", "layers/#/mlp/down", kind.LINEAR),
            ("norm", "final_norm", kind.NORM),
            ("lm_head", "lm_head", kind.DECODER),
            ("score", "classifier/output", kind.DECODER),
        ),
        tied={"lm_head.weight": "embed_tokens.weight"},
        buffers=(r"layers\.\d+\.self_attn\.rotary_emb\.inv_freq", r"rotary_emb\.inv_freq"),
        other_heads=(r"classifier\..*", r"qa_outputs\..*"),
    ),
)
MISTRAL = replace(LLAMA, choices=_PLAIN, structures=LABELS | ROPE | _WINDOW, configure=_mistral)
QWEN2 = replace(
    LLAMA,
    sizes=_SIZES | {"max_window_layers": 28},
    choices=_PLAIN | {"use_sliding_window": (False, True)},
    structures=LABELS | ROPE | _WINDOW | {"layer_types": (None, _layer_types)},
    configure=_qwen2,
)
QWEN3 = replace(
    QWEN2,
    sizes=QWEN2.sizes | _HEAD,
    choices=QWEN2.choices | {"attention_bias": (False, True)},
    configure=_qwen3,
)
