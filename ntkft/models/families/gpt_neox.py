"""GPT-NeoX and Pythia: a decoder with rotary positions for a share of the features and parallel residual sums."""

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
from ntkft.models.families.rope import PARTIAL_ROPE, partial_rotary


def _gpt_neox(values: dict[str, Any]) -> TransformerConfig:
    width, heads = values["hidden_size"], values["num_attention_heads"]
    turning = partial_rotary(values, width // heads)
    if turning.width % 2:
        raise ValueError(
            f"num_attention_heads is {heads}, so {turning.width} features of a head turn; wanted an even number"
        )
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
        mlp_width=values["intermediate_size"],
        activation=values["hidden_act"],
        norm_epsilon=values["layer_norm_eps"],
        block="parallel" if values["use_parallel_residual"] else "pre_norm",
        rotary=turning,
        qkv_bias=values["attention_bias"],
        output_bias=values["attention_bias"],
        **decoder_heads(values),
    )


GPT_NEOX = Family(
    sizes={
        "vocab_size": REQUIRED,
        "hidden_size": REQUIRED,
        "num_hidden_layers": REQUIRED,
        "num_attention_heads": REQUIRED,
        "intermediate_size": REQUIRED,
        "max_position_embeddings": REQUIRED,
    },
    numbers={"layer_norm_eps": 1e-5},
    choices=CHOICES
    | {
        "hidden_act": activation("gelu"),
        "use_parallel_residual": (True, False),
        "attention_bias": (True, False),
        "tie_word_embeddings": (False, True),
    },
    structures=LABELS | PARTIAL_ROPE,
    ignored=IGNORED | {"hidden_dropout"},
    configure=_gpt_neox,
    names=NameTable(
        prefix="gpt_neox.",
        modules=(
            ("embed_in", "embeddings/token", kind.TABLE),
            ("layers.#.input_layernorm", "layers/#/attention_norm", kind.NORM),
            ("layers.#.attention.query_key_value", "layers/#/attention", kind.FUSED_BY_HEAD),
            ("layers.#.attention.dense", "layers/#/attention/output", kind.LINEAR),
            ("layers.#.post_attention_layernorm", "layers/#/mlp_norm", kind.NORM),
            ("layers.#.mlp.dense_h_to_4h", "layers/#/mlp/up", kind.LINEAR),
            ("layers.#.mlp.dense_4h_to_h", "layers/#/mlp/down", kind.LINEAR),
            ("final_layer_norm", "final_norm", kind.NORM),
            ("embed_out", "lm_head", kind.DECODER),
            ("score", "classifier/output", kind.DECODER),
        ),
        tied={"embed_out.weight": "embed_in.weight"},
        buffers=(r"layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)",),
        other_heads=(r"classifier\..*", r"qa_outputs\..*"),
    ),
)
