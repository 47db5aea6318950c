"""BERT and RoBERTa: encoders with learned positions and norms after the residual sums."""

from dataclasses import replace
from typing import Any

from ntkft.models import conversion as kind
from ntkft.models.config import Classifier, LMHead, Tokens, TransformerConfig
from ntkft.models.conversion import NameTable
from ntkft.models.families.family import CHOICES, IGNORED, LABELS, REQUIRED, Family, activation, labels, transformer


def configure_bert(values: dict[str, Any]) -> TransformerConfig:
    """The config of a BERT with these attributes."""
    return transformer(
        Tokens(
            vocab_size=values["vocab_size"],
            width=values["hidden_size"],
            max_positions=values["max_position_embeddings"],
            position_offset=0,
            token_types=values["type_vocab_size"],
            norm=True,
        ),
        width=values["hidden_size"],
        layers=values["num_hidden_layers"],
        heads=values["num_attention_heads"],
        mlp_width=values["intermediate_size"],
        activation=values["hidden_act"],
        norm_epsilon=values["layer_norm_eps"],
        block="post_norm",
        final_norm=False,
        causal=False,
        pooler=True,
        lm_head=LMHead(transform=values["hidden_act"], bias=True, tied=True),
        classifier=Classifier(labels(values), state="pooler", dense=False, bias=True),
    )


def _roberta(values: dict[str, Any]) -> TransformerConfig:
    """As BERT, but positions start behind the padding id, and heads have layers of their own."""
    config = configure_bert(values)
    # The reference numbers real tokens from pad_token_id + 1, so that many rows of the position table are never read.
    offset = values["pad_token_id"] + 1
    tokens = config.tokens
    if offset >= tokens.max_positions:
        raise ValueError(f"pad_token_id {offset - 1} leaves no row of max_position_embeddings {tokens.max_positions}")
    return replace(
        config,
        front=replace(tokens, position_offset=offset, max_positions=tokens.max_positions - offset),
        lm_head=LMHead(transform="gelu", bias=True, tied=True),
        classifier=Classifier(labels(values), state="first", dense=True, bias=True),
    )


def _pad_token(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("supported: a token id")
    return value


_BACKBONE = (
    ("embeddings.word_embeddings", "embeddings/token", kind.TABLE),
    ("embeddings.position_embeddings", "embeddings/position", kind.TABLE),
    ("embeddings.token_type_embeddings", "embeddings/token_type", kind.TABLE),
    ("embeddings.LayerNorm", "embeddings/norm", kind.NORM),
    ("encoder.layer.#.attention.self.query", "layers/#/attention/query", kind.LINEAR),
    ("encoder.layer.#.attention.self.key", "layers/#/attention/key", kind.LINEAR),
    ("encoder.layer.#.attention.self.value", "layers/#/attention/value", kind.LINEAR),
    ("encoder.layer.#.attention.output.dense", "layers/#/attention/output", kind.LINEAR),
    ("encoder.layer.#.attention.output.LayerNorm", "layers/#/attention_norm", kind.NORM),
    ("encoder.layer.#.intermediate.dense", "layers/#/mlp/up", kind.LINEAR),
    ("encoder.layer.#.output.dense", "layers/#/mlp/down", kind.LINEAR),
    ("encoder.layer.#.output.LayerNorm", "layers/#/mlp_norm", kind.NORM),
    ("pooler.dense", "pooler", kind.LINEAR),
)

BERT = Family(
    sizes={
        "vocab_size": REQUIRED,
        "hidden_size": REQUIRED,
        "num_hidden_layers": REQUIRED,
        "num_attention_heads": REQUIRED,
        "intermediate_size": REQUIRED,
        "max_position_embeddings": REQUIRED,
        "type_vocab_size": 2,
    },
    numbers={"layer_norm_eps": 1e-12},
    choices=CHOICES
    | {
        "hidden_act": activation("gelu"),
        "position_embedding_type": ("absolute",),
        "tie_word_embeddings": (True,),
    },
    structures=LABELS,
    ignored=IGNORED
    | {"hidden_dropout_prob", "attention_probs_dropout_prob"}
    # written by the original TensorFlow release, never read by any implementation
    | {"directionality", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers"}
    | {"pooler_size_per_head", "pooler_type"},
    configure=configure_bert,
    names=NameTable(
        prefix="bert.",
        modules=(
            *_BACKBONE,
            ("cls.predictions.transform.dense", "lm_head/dense", kind.LINEAR),
            ("cls.predictions.transform.LayerNorm", "lm_head/norm", kind.NORM),
            ("cls.predictions", "lm_head", kind.BIAS),
            ("classifier", "classifier/output", kind.LINEAR),
        ),
        tied={
            "cls.predictions.decoder.weight": "embeddings.word_embeddings.weight",
            "cls.predictions.decoder.bias": "cls.predictions.bias",
        },
        buffers=(r"embeddings\.(position_ids|token_type_ids)",),
        other_heads=(r"cls\.seq_relationship\..*", r"qa_outputs\..*"),
    ),
)

ROBERTA = replace(
    BERT,
    structures=BERT.structures | {"pad_token_id": (1, _pad_token)},
    ignored=BERT.ignored - {"pad_token_id"},
    configure=_roberta,
    names=NameTable(
        prefix="roberta.",
        modules=(
            *_BACKBONE,
            ("lm_head.dense", "lm_head/dense", kind.LINEAR),
            ("lm_head.layer_norm", "lm_head/norm", kind.NORM),
            ("lm_head", "lm_head", kind.BIAS),
            ("classifier.dense", "classifier/dense", kind.LINEAR),
            ("classifier.out_proj", "classifier/output", kind.LINEAR),
        ),
        tied={
            "lm_head.decoder.weight": "embeddings.word_embeddings.weight",
            "lm_head.decoder.bias": "lm_head.bias",
        },
        buffers=(r"embeddings\.(position_ids|token_type_ids)",),
        other_heads=(r"qa_outputs\..*",),
    ),
)
