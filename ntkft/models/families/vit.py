"""ViT: an encoder of image patches."""

from typing import Any

from ntkft.models import conversion as kind
from ntkft.models.config import Classifier, Patches, TransformerConfig
from ntkft.models.conversion import NameTable
from ntkft.models.families.family import IGNORED, LABELS, REQUIRED, Family, activation, labels, transformer


def _vit(values: dict[str, Any]) -> TransformerConfig:
    width = values["hidden_size"]
    if values["pooler_output_size"] not in (None, width):
        raise ValueError(
            f"pooler_output_size is {values['pooler_output_size']}, hidden_size is {width}; supported: the same"
        )
    return transformer(
        Patches(values["image_size"], values["patch_size"], values["num_channels"]),
        width=width,
        layers=values["num_hidden_layers"],
        heads=values["num_attention_heads"],
        mlp_width=values["intermediate_size"],
        activation=values["hidden_act"],
        norm_epsilon=values["layer_norm_eps"],
        causal=False,
        qkv_bias=values["qkv_bias"],
        pooler=True,
        lm_head=None,
        classifier=Classifier(labels(values), state="first", dense=False, bias=True),
    )


def _sides(value: Any) -> tuple[int, int]:
    sides = (value, value) if isinstance(value, int) else value
    if (
        not isinstance(sides, list | tuple)
        or len(sides) != 2
        or any(type(side) is not int or side < 1 for side in sides)
    ):
        raise ValueError("supported: a positive integer, or two of them")
    return sides[0], sides[1]


VIT = Family(
    sizes={
        "hidden_size": REQUIRED,
        "num_hidden_layers": REQUIRED,
        "num_attention_heads": REQUIRED,
        "intermediate_size": REQUIRED,
        "num_channels": 3,
        "pooler_output_size": None,
    },
    numbers={"layer_norm_eps": 1e-12},
    choices={
        "hidden_act": activation("gelu"),
        "qkv_bias": (True, False),
        "pooler_act": ("tanh",),
        "is_encoder_decoder": (False,),
    },
    structures=LABELS | {"image_size": (224, _sides), "patch_size": (16, _sides)},
    # encoder_stride belongs to the head that paints masked patches
    ignored=IGNORED | {"hidden_dropout_prob", "attention_probs_dropout_prob", "encoder_stride"},
    configure=_vit,
    names=NameTable(
        prefix="vit.",
        modules=(
            ("embeddings.cls_token", "embeddings/first", kind.BATCHED_TABLE),
            ("embeddings.position_embeddings", "embeddings/position", kind.BATCHED_TABLE),
            ("embeddings.patch_embeddings.projection", "embeddings/patch", kind.PATCH),
            ("encoder.layer.#.layernorm_before", "layers/#/attention_norm", kind.NORM),
            ("encoder.layer.#.attention.attention.query", "layers/#/attention/query", kind.LINEAR),
            ("encoder.layer.#.attention.attention.key", "layers/#/attention/key", kind.LINEAR),
            ("encoder.layer.#.attention.attention.value", "layers/#/attention/value", kind.LINEAR),
            ("encoder.layer.#.attention.output.dense", "layers/#/attention/output", kind.LINEAR),
            ("encoder.layer.#.layernorm_after", "layers/#/mlp_norm", kind.NORM),
            ("encoder.layer.#.intermediate.dense", "layers/#/mlp/up", kind.LINEAR),
            ("encoder.layer.#.output.dense", "layers/#/mlp/down", kind.LINEAR),
            ("layernorm", "final_norm", kind.NORM),
            ("pooler.dense", "pooler", kind.LINEAR),
            ("classifier", "classifier/output", kind.LINEAR),
        ),
        tied={},
        buffers=(),
        other_heads=(r"embeddings\.mask_token", r"decoder\..*"),
    ),
)
