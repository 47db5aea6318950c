"""Families: what `config.json` and the tensor names of each `model_type` mean.

A checkpoint is loaded only when its config is understood completely: every attribute is a size that is read, a choice
whose value is implemented, or listed here as one that cannot change the outputs. Anything else is refused by name. A
new family is one more `Family` record.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ntkft._errors import InputError, refuse
from ntkft.models import conversion as kind
from ntkft.models.conversion import NameTable
from ntkft.models.transformer import ACTIVATIONS, TransformerConfig

REQUIRED = ...
"""In place of a default: the attribute must be there."""


@dataclass(frozen=True)
class Family:
    """One `model_type`: how its config and its tensors are read."""

    sizes: Mapping[str, Any]
    """Positive integers, with what an absent or null attribute means."""
    numbers: Mapping[str, float]
    """Numbers in [0, 1), with what an absent attribute means."""
    choices: Mapping[str, tuple[Any, ...]]
    """The values that are implemented; an absent attribute means the first."""
    ignored: frozenset[str]
    """Attributes that cannot change the outputs."""
    configure: Callable[[Mapping[str, Any]], TransformerConfig]
    """The config that complete, checked attributes describe."""
    names: NameTable


def family_of(attributes: Mapping[str, Any]) -> Family:
    """The family of a `config.json`; raises `InputError` listing the supported ones for any other `model_type`."""
    model_type = attributes.get("model_type")
    if model_type not in FAMILIES:
        raise InputError(f"config.json: model_type {model_type!r} is not supported; supported: {', '.join(FAMILIES)}")
    return FAMILIES[model_type]


def read_config(attributes: Mapping[str, Any]) -> TransformerConfig:
    """The transformer that the attributes of a `config.json` describe; what is absent has the family's default.

    Raises `InputError` for an unsupported `model_type`, and one that lists every attribute that is missing, unknown,
    or has a value that is not implemented.
    """
    family = family_of(attributes)
    given = {
        name: value
        for name, value in attributes.items()
        if name not in family.ignored | {"model_type"} and not (name in family.sizes and value is None)
    }
    values = {
        **family.sizes,
        **family.numbers,
        **{name: first for name, (first, *_) in family.choices.items()},
        **given,
    }
    problems = [f"{name} is missing" for name, value in values.items() if value is REQUIRED]
    problems += [fault for name, value in given.items() if (fault := _fault(family, name, value))]
    refuse(f"config.json of model_type {attributes['model_type']!r}", problems)
    return family.configure(values)


def _fault(family: Family, name: str, value: Any) -> str | None:
    if name in family.sizes:
        valid, supported = type(value) is int and value > 0, "a positive integer"
    elif name in family.numbers:
        valid, supported = type(value) in (int, float) and 0 <= value < 1, "a number in [0, 1)"
    elif name in family.choices:
        valid, supported = value in family.choices[name], ", ".join(map(repr, family.choices[name]))
    else:
        return f"{name} is {value!r}, but {name} is unknown here and may change the outputs; remove it if it does not"
    return None if valid else f"{name} is {value!r}; supported: {supported}"


# Attributes that any config.json may carry and that cannot change the outputs, by the reason why.
_IGNORED = frozenset(
    # where the checkpoint comes from
    {"_name_or_path", "architectures", "transformers_version", "finetuning_task", "task_specific_params", "language"}
    # what happens in training only
    | {"initializer_range", "gradient_checkpointing"}
    # how weights are stored: the dtype is an argument of `load`
    | {"dtype", "torch_dtype"}
    # how the reference implementation batches and returns its results
    | {"return_dict", "output_hidden_states", "output_attentions", "use_cache", "torchscript"}
    | {"chunk_size_feed_forward"}
    # heads of fine-tuned models, which no readout uses
    | {"id2label", "label2id", "num_labels", "problem_type"}
    # token ids that generation and tokenizers use; what is padding is said by the attention mask
    | {"pad_token_id", "bos_token_id", "eos_token_id", "tokenizer_class"}
)
_CHOICES = {
    "is_decoder": (False,),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (None,),
    "pruned_heads": ({},),
}


def _bert(values: Mapping[str, Any]) -> TransformerConfig:
    head_width = values["hidden_size"] // values["num_attention_heads"]
    return TransformerConfig(
        vocab_size=values["vocab_size"],
        width=values["hidden_size"],
        layers=values["num_hidden_layers"],
        heads=values["num_attention_heads"],
        mlp_width=values["intermediate_size"],
        max_positions=values["max_position_embeddings"],
        token_types=values["type_vocab_size"],
        activation=values["hidden_act"],
        norm_epsilon=float(values["layer_norm_eps"]),
        norm_first=False,
        embedding_norm=True,
        final_norm=False,
        causal=False,
        attention_scale=(max(head_width, 1) ** -0.5,) * values["num_hidden_layers"],
        pooler=True,
        lm_head_transform=True,
        lm_head_bias=True,
        lm_head_tied=True,
    )


_BERT = Family(
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
    choices=_CHOICES
    | {
        "hidden_act": ("gelu", *(name for name in ACTIVATIONS if name != "gelu")),
        "position_embedding_type": ("absolute",),
        "tie_word_embeddings": (True,),
    },
    ignored=_IGNORED
    | {"hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"}
    # written by the original TensorFlow release, never read by any implementation
    | {"directionality", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers"}
    | {"pooler_size_per_head", "pooler_type"},
    configure=_bert,
    names=NameTable(
        prefix="bert.",
        modules=(
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
            ("cls.predictions.transform.dense", "lm_head/dense", kind.LINEAR),
            ("cls.predictions.transform.LayerNorm", "lm_head/norm", kind.NORM),
            ("cls.predictions", "lm_head", kind.BIAS),
        ),
        tied={
            "cls.predictions.decoder.weight": "embeddings.word_embeddings.weight",
            "cls.predictions.decoder.bias": "cls.predictions.bias",
        },
        buffers=(r"embeddings\.(position_ids|token_type_ids)",),
        other_heads=(r"cls\.seq_relationship\..*", r"(classifier|qa_outputs)\..*"),
    ),
)


def _gpt2(values: Mapping[str, Any]) -> TransformerConfig:
    head_width = values["n_embd"] // values["n_head"]
    scale = max(head_width, 1) ** -0.5 if values["scale_attn_weights"] else 1.0
    by_layer = values["scale_attn_by_inverse_layer_idx"]
    return TransformerConfig(
        vocab_size=values["vocab_size"],
        width=values["n_embd"],
        layers=values["n_layer"],
        heads=values["n_head"],
        mlp_width=values["n_inner"] or 4 * values["n_embd"],
        max_positions=values["n_positions"],
        token_types=0,
        activation=values["activation_function"],
        norm_epsilon=float(values["layer_norm_epsilon"]),
        norm_first=True,
        embedding_norm=False,
        final_norm=True,
        causal=True,
        attention_scale=tuple(scale / (layer + 1 if by_layer else 1) for layer in range(values["n_layer"])),
        pooler=False,
        lm_head_transform=False,
        lm_head_bias=False,
        lm_head_tied=values["tie_word_embeddings"],
    )


_GPT2 = Family(
    sizes={
        "vocab_size": REQUIRED,
        "n_positions": REQUIRED,
        "n_embd": REQUIRED,
        "n_layer": REQUIRED,
        "n_head": REQUIRED,
        "n_inner": None,
    },
    numbers={"layer_norm_epsilon": 1e-5},
    choices=_CHOICES
    | {
        "activation_function": ("gelu_new", *(name for name in ACTIVATIONS if name != "gelu_new")),
        "scale_attn_weights": (True, False),
        "scale_attn_by_inverse_layer_idx": (False, True),
        "reorder_and_upcast_attn": (False,),
        "tie_word_embeddings": (True, False),
    },
    ignored=_IGNORED
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
        ),
        tied={"lm_head.weight": "wte.weight"},
        buffers=(r"h\.\d+\.attn\.(bias|masked_bias)",),
        other_heads=(r"score\.weight", r"classifier\..*", r"qa_outputs\..*", r"multiple_choice_head\..*"),
    ),
)

FAMILIES: dict[str, Family] = {"bert": _BERT, "gpt2": _GPT2}
"""Families by `model_type`."""
