"""OPT: a decoder with learned positions from row 2 on, ReLU, and in one size norms after the residual sums."""

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


def _opt(values: dict[str, Any]) -> TransformerConfig:
    before = values["do_layer_norm_before"]
    return transformer(
        Tokens(
            vocab_size=values["vocab_size"],
            width=values["word_embed_proj_dim"] or values["hidden_size"],
            max_positions=values["max_position_embeddings"],
            position_offset=2,
            token_types=0,
            norm=False,
        ),
        width=values["hidden_size"],
        layers=values["num_hidden_layers"],
        heads=values["num_attention_heads"],
        mlp_width=values["ffn_dim"],
        activation=values["activation_function"],
        norm_epsilon=1e-5,
        block="pre_norm" if before else "post_norm",
        final_norm=before and not values["_remove_final_layer_norm"],
        **dict.fromkeys(("qkv_bias", "output_bias", "mlp_bias"), values["enable_bias"]),
        **decoder_heads(values),
    )


OPT = Family(
    sizes={
        "vocab_size": REQUIRED,
        "hidden_size": REQUIRED,
        "num_hidden_layers": REQUIRED,
        "num_attention_heads": REQUIRED,
        "ffn_dim": REQUIRED,
        "max_position_embeddings": REQUIRED,
        "word_embed_proj_dim": None,
    },
    numbers={},
    choices=CHOICES
    | {
        "activation_function": activation("relu"),
        "do_layer_norm_before": (True, False),
        "_remove_final_layer_norm": (False, True),
        "enable_bias": (True, False),
        "layer_norm_elementwise_affine": (True,),
        "tie_word_embeddings": (True, False),
    },
    structures=LABELS,
    # `prefix` is what text generation puts before a prompt
    ignored=IGNORED | {"dropout", "layerdrop", "init_std", "activation_dropout", "prefix"},
    configure=_opt,
    names=NameTable(
        prefix="model.",
        modules=(
            ("decoder.embed_tokens", "embeddings/token", kind.TABLE),
            ("decoder.embed_positions", "embeddings/position", kind.TABLE),
            ("decoder.project_in", "embeddings/project", kind.LINEAR),
            ("decoder.layers.#.self_attn.q_proj", "layers/#/attention/query", kind.LINEAR),
            ("decoder.layers.#.self_attn.k_proj", "layers/#/attention/key", kind.LINEAR),
            ("decoder.layers.#.self_attn.v_proj", "layers/#/attention/value", kind.LINEAR),
            ("decoder.layers.#.self_attn.out_proj", "layers/#/attention/output", kind.LINEAR),
            ("decoder.layers.#.self_attn_layer_norm", "layers/#/attention_norm", kind.NORM),
            ("decoder.layers.#.fc1", "layers/#/mlp/up", kind.LINEAR),
            ("decoder.layers.#.fc2", "layers/#/mlp/down", kind.LINEAR),
            ("decoder.layers.#.final_layer_norm", "layers/#/mlp_norm", kind.NORM),
            ("decoder.final_layer_norm", "final_norm", kind.NORM),
            ("decoder.project_out", "project", kind.LINEAR),
            ("lm_head", "lm_head", kind.DECODER),
            ("score", "classifier/output", kind.DECODER),
        ),
        tied={"lm_head.weight": "decoder.embed_tokens.weight"},
        buffers=(),
        other_heads=(r"qa_outputs\..*",),
    ),
)
