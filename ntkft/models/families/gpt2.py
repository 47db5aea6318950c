"""GPT-2 and GPT-Neo: decoders with learned positions and norms before attention and MLP."""

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


def _gpt2(values: dict[str, Any]) -> TransformerConfig:
    width, layers, heads = (values[name] for name in ("n_embd", "n_layer", "n_head"))
    scale = (width / heads) ** -0.5 if values["scale_attn_weights"] else 1.0
    by_layer = values["scale_attn_by_inverse_layer_idx"]
    return transformer(
        Tokens(
            vocab_size=values["vocab_size"],
            width=width,
            max_positions=values["n_positions"],
            position_offset=0,
            token_types=0,
            norm=False,
        ),
        width=width,
        layers=layers,
        heads=heads,
        mlp_width=values["n_inner"] or 4 * width,
        activation=values["activation_function"],
        norm_epsilon=values["layer_norm_epsilon"],
        attention_scale=tuple(scale / (layer + 1 if by_layer else 1) for layer in range(layers)),
        **decoder_heads(values),
    )


def _gpt_neo(values: dict[str, Any]) -> TransformerConfig:
    """As GPT-2, but scores are not scaled, queries, keys and values have no bias, and some layers see a window only."""
    layers, kinds = values["num_layers"], values["attention_types"]
    if len(kinds) != layers:
        raise ValueError(f"attention_types name {len(kinds)} layers, num_layers is {layers}")
    if values["attention_layers"] not in (None, list(kinds)):
        raise ValueError("attention_layers is not what attention_types say")
    config = _gpt2(
        values
        | {"n_embd": values["hidden_size"], "n_layer": layers, "n_head": values["num_heads"]}
        | {"n_positions": values["max_position_embeddings"], "n_inner": values["intermediate_size"]}
        | {"scale_attn_weights": False, "scale_attn_by_inverse_layer_idx": False}
    )
    windows = tuple(values["window_size"] if each == "local" else None for each in kinds)
    return replace(config, windows=windows, qkv_bias=False)


def _attention_types(value: Any) -> tuple[str, ...]:
    """[[["global", "local"], 12]] and the like: patterns, and how often each is repeated."""
    try:
        names = tuple(name for pattern, times in value for _ in range(times) for name in pattern)
    except (TypeError, ValueError) as error:
        raise ValueError("supported: a list of [[kinds of layers], repetitions]") from error
    if not names or set(names) - {"global", "local"}:
        raise ValueError("supported: 'global' and 'local'")
    return names


def _attention_layers(value: Any) -> Any:
    if value is not None and not (isinstance(value, list) and set(value) <= {"global", "local"}):
        raise ValueError("supported: a list of 'global' and 'local', one per layer")
    return value


GPT2 = Family(
    sizes={
        "vocab_size": REQUIRED,
        "n_positions": REQUIRED,
        "n_embd": REQUIRED,
        "n_layer": REQUIRED,
        "n_head": REQUIRED,
        "n_inner": None,
    },
    numbers={"layer_norm_epsilon": 1e-5},
    choices=CHOICES
    | {
        "activation_function": activation("gelu_new"),
        "scale_attn_weights": (True, False),
        "scale_attn_by_inverse_layer_idx": (False, True),
        "reorder_and_upcast_attn": (False,),
        "tie_word_embeddings": (True, False),
    },
    structures=LABELS,
    ignored=IGNORED
    | {"resid_pdrop", "embd_pdrop", "attn_pdrop"}
    # the pooled head of the double-heads model, which no readout uses
    | {"summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels", "summary_first_dropout"}
    # written by early releases, never read by the reference implementation: n_ctx repeats n_positions
    | {"n_ctx", "predict_special_tokens"},
    configure=_gpt2,
    names=NameTable(
        prefix="transformer.",
        modules=(
            ("wte", "embeddings/token", kind.TABLE),
            ("wpe", "embeddings/position", kind.TABLE),
            ("h.#.ln_1", "layers/#/attention_norm", kind.NORM),
            ("h.#.attn.c_attn", "layers/#/attention", kind.FUSED_CONV1D),
            ("h.#.attn.c_proj", "layers/#/attention/output", kind.CONV1D),
            ("h.#.ln_2", "layers/#/mlp_norm", kind.NORM),
            ("h.#.mlp.c_fc", "layers/#/mlp/up", kind.CONV1D),
            ("h.#.mlp.c_proj", "layers/#/mlp/down", kind.CONV1D),
            ("ln_f", "final_norm", kind.NORM),
            ("lm_head", "lm_head", kind.DECODER),
            ("score", "classifier/output", kind.DECODER),
        ),
        tied={"lm_head.weight": "wte.weight"},
        buffers=(r"h\.\d+\.attn\.(bias|masked_bias)",),
        other_heads=(r"classifier\..*", r"qa_outputs\..*", r"multiple_choice_head\..*"),
    ),
)

GPT_NEO = Family(
    sizes={
        "vocab_size": REQUIRED,
        "max_position_embeddings": REQUIRED,
        "hidden_size": REQUIRED,
        "num_layers": REQUIRED,
        "num_heads": REQUIRED,
        "intermediate_size": None,
        "window_size": 256,
    },
    numbers={"layer_norm_epsilon": 1e-5},
    choices=CHOICES | {"activation_function": activation("gelu_new"), "tie_word_embeddings": (True, False)},
    structures=LABELS
    | {
        "attention_types": ([[["global", "local"], 12]], _attention_types),
        "attention_layers": (None, _attention_layers),
    },
    ignored=IGNORED
    | {"resid_dropout", "embed_dropout"}
    # the pooled head of the double-heads model, which no readout uses
    | {"summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels", "summary_first_dropout"},
    configure=_gpt_neo,
    names=NameTable(
        prefix="transformer.",
        modules=(
            ("wte", "embeddings/token", kind.TABLE),
            ("wpe", "embeddings/position", kind.TABLE),
            ("h.#.ln_1", "layers/#/attention_norm", kind.NORM),
            ("h.#.attn.attention.q_proj", "layers/#/attention/query", kind.LINEAR),
            ("h.#.attn.attention.k_proj", "layers/#/attention/key", kind.LINEAR),
            ("h.#.attn.attention.v_proj", "layers/#/attention/value", kind.LINEAR),
            ("h.#.attn.attention.out_proj", "layers/#/attention/output", kind.LINEAR),
            ("h.#.ln_2", "layers/#/mlp_norm", kind.NORM),
            ("h.#.mlp.c_fc", "layers/#/mlp/up", kind.LINEAR),
            ("h.#.mlp.c_proj", "layers/#/mlp/down", kind.LINEAR),
            ("ln_f", "final_norm", kind.NORM),
            ("lm_head", "lm_head", kind.DECODER),
            ("score", "classifier/output", kind.DECODER),
        ),
        tied={"lm_head.weight": "wte.weight"},
        buffers=(r"h\.\d+\.attn\.attention\.(bias|masked_bias)",),
        other_heads=(r"classifier\..*", r"qa_outputs\..*"),
    ),
)
