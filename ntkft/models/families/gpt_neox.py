"""GPT-NeoX and Pythia: a decoder with rotary positions for a share of the features and parallel residual sums."""

from typing import Any

from ntkft.models import conversion as kind
from ntkft.models.config import Classifier, LMHead, Tokens, TransformerConfig
from ntkft.models.conversion import NameTable
from ntkft.models.families.family import CHOICES, IGNORED, LABELS, REQUIRED, Family, activation, head_width, labels
from ntkft.models.families.rope import PARTIAL_ROPE, partial_rotary


def _gpt_neox(values: dict[str, Any]) -> TransformerConfig:
    width, layers, heads = (values[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads"))
    each = head_width(values, "hidden_size", "num_attention_heads")
    turning = partial_rotary(values, each)
    if turning.width % 2:
        raise ValueError(
            f"num_attention_heads is {heads}, so {turning.width} features of a head turn; wanted an even number"
        )
    return TransformerConfig(
        front=Tokens(
            vocab_size=values["vocab_size"],
            width=width,
            max_positions=values["max_position_embeddings"],
            position_offset=None,
            token_types=0,
            norm=False,
        ),
        width=width,
        layers=layers,
        heads=heads,
        kv_heads=heads,
        head_width=each,
        mlp_width=values["intermediate_size"],
        activation=values["hidden_act"],
        gated=False,
        block="parallel" if values["use_parallel_residual"] else "pre_norm",
        norm="layer",
        norm_epsilon=float(values["layer_norm_eps"]),
        final_norm=True,
        causal=True,
        windows=(None,) * layers,
        attention_scale=(each**-0.5,) * layers,
        rotary=turning,
        qk_norm=False,
        qkv_bias=values["attention_bias"],
        output_bias=values["attention_bias"],
        mlp_bias=True,
        pooler=False,
        lm_head=LMHead(transform=None, bias=False, tied=values["tie_word_embeddings"]),
        classifier=Classifier(labels(values), state="last", dense=False, bias=False),
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
