"""DistilBERT: BERT without token types and pooler, under names of its own."""

from dataclasses import replace
from typing import Any

from ntkft.models import conversion as kind
from ntkft.models.config import TransformerConfig
from ntkft.models.conversion import NameTable
from ntkft.models.families.bert import configure_bert
from ntkft.models.families.family import CHOICES, IGNORED, REQUIRED, Family, activation

_BERT_NAMES = {
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
    "hidden_act": "activation",
}


def _distilbert(values: dict[str, Any]) -> TransformerConfig:
    renamed = {name: values[ours] for name, ours in _BERT_NAMES.items()}
    config = configure_bert(values | renamed | {"type_vocab_size": 0, "layer_norm_eps": 1e-12, "id2label": None})
    # The classifier of DistilBERT has a ReLU, which `Classifier` does not know.
    return replace(config, pooler=False, classifier=None)


DISTILBERT = Family(
    sizes=dict.fromkeys(
        ("vocab_size", "dim", "n_layers", "n_heads", "hidden_dim", "max_position_embeddings"), REQUIRED
    ),
    numbers={},
    choices=CHOICES
    | {"activation": activation("gelu"), "sinusoidal_pos_embds": (False,), "tie_word_embeddings": (True,)},
    structures={},
    ignored=IGNORED | {"id2label", "dropout", "qa_dropout", "seq_classif_dropout", "tie_weights_"},
    configure=_distilbert,
    names=NameTable(
        prefix="distilbert.",
        modules=(
            ("embeddings.word_embeddings", "embeddings/token", kind.TABLE),
            ("embeddings.position_embeddings", "embeddings/position", kind.TABLE),
            ("embeddings.LayerNorm", "embeddings/norm", kind.NORM),
            ("transformer.layer.#.attention.q_lin", "layers/#/attention/query", kind.LINEAR),
            ("transformer.layer.#.attention.k_lin", "layers/#/attention/key", kind.LINEAR),
            ("transformer.layer.#.attention.v_lin", "layers/#/attention/value", kind.LINEAR),
            ("transformer.layer.#.attention.out_lin", "layers/#/attention/output", kind.LINEAR),
            ("transformer.layer.#.sa_layer_norm", "layers/#/attention_norm", kind.NORM),
            ("transformer.layer.#.ffn.lin1", "layers/#/mlp/up", kind.LINEAR),
            ("transformer.layer.#.ffn.lin2", "layers/#/mlp/down", kind.LINEAR),
            ("transformer.layer.#.output_layer_norm", "layers/#/mlp_norm", kind.NORM),
            ("vocab_transform", "lm_head/dense", kind.LINEAR),
            ("vocab_layer_norm", "lm_head/norm", kind.NORM),
            ("vocab_projector", "lm_head", kind.BIAS),
        ),
        tied={"vocab_projector.weight": "embeddings.word_embeddings.weight"},
        buffers=(r"embeddings\.position_ids",),
        other_heads=(r"(pre_)?classifier\..*", r"qa_outputs\..*"),
    ),
)
