"""What a family is, and how a `config.json` is read by it.

A checkpoint is loaded only when its config is understood completely: every attribute is a size that is read, a choice
whose value is implemented, or listed as one that cannot change the outputs. Anything else is refused by name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ntkft._errors import InputError, refuse
from ntkft.models.config import ACTIVATIONS, Classifier, LMHead, Patches, Tokens, TransformerConfig
from ntkft.models.conversion import NameTable

REQUIRED = ...
"""In place of a default: the attribute must be there."""

Reader = Callable[[Any], Any]
"""Reads an attribute that is no plain size, number or choice; raises `ValueError` saying what is supported."""


@dataclass(frozen=True)
class Family:
    """One `model_type`: how its config and its tensors are read."""

    sizes: dict[str, Any]
    """Positive integers, with what an absent or null attribute means."""
    numbers: dict[str, float]
    """Numbers in [0, 1), with what an absent attribute means."""
    choices: dict[str, tuple[Any, ...]]
    """The values that are implemented; an absent attribute means the first."""
    structures: dict[str, tuple[Any, Reader]]
    """Attributes with a form of their own: what an absent one means, and its reader."""
    ignored: frozenset[str]
    """Attributes that cannot change the outputs."""
    configure: Callable[[dict[str, Any]], TransformerConfig]
    """The config that complete, checked attributes describe; raises `ValueError` for those that contradict another."""
    names: NameTable


def read_attributes(family: Family, attributes: Mapping[str, Any]) -> TransformerConfig:
    """The transformer that the attributes of a `config.json` describe; what is absent has the family's default.

    Raises one `InputError` that lists every attribute that is missing, unknown, or has a value that is not implemented.
    """
    given = {
        name: value
        for name, value in attributes.items()
        if name not in family.ignored | {"model_type"} and not (name in family.sizes and value is None)
    }
    values = {
        **family.sizes,
        **family.numbers,
        **{name: first for name, (first, *_) in family.choices.items()},
        **{name: default for name, (default, _) in family.structures.items()},
        **given,
    }
    problems = [f"{name} is missing" for name, value in values.items() if value is REQUIRED]
    problems += [fault for name, value in given.items() if (fault := _fault(family, name, value))]
    what = f"config.json of model_type {attributes['model_type']!r}"
    refuse(what, problems)
    for name, (_, read) in family.structures.items():
        values[name] = read(values[name])
    try:
        return family.configure(values)
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{what}: {error}") from error


def _fault(family: Family, name: str, value: Any) -> str | None:
    if name in family.sizes:
        valid, supported = type(value) is int and value > 0, "a positive integer"
    elif name in family.numbers:
        valid, supported = type(value) in (int, float) and 0 <= value < 1, "a number in [0, 1)"
    elif name in family.choices:
        valid, supported = value in family.choices[name], ", ".join(map(repr, family.choices[name]))
    elif name in family.structures:
        try:
            family.structures[name][1](value)
        except ValueError as error:
            return f"{name} is {value!r}; {error}"
        return None
    else:
        return f"{name} is {value!r}, but {name} is unknown here and may change the outputs; remove it if it does not"
    return None if valid else f"{name} is {value!r}; supported: {supported}"


def transformer(
    front: Tokens | Patches,
    *,
    width: int,
    layers: int,
    heads: int,
    mlp_width: int,
    activation: str,
    norm_epsilon: float,
    head_width: int | None = None,
    **variant: Any,
) -> TransformerConfig:
    """The config of a GPT-2 of this shape; `variant` names the fields in which the family is different.

    Raises `ValueError` where heads do not share out the width and `head_width` does not say how wide they are.
    """
    if head_width is None and width % heads:
        raise ValueError(f"width {width} is not a multiple of heads {heads}")
    each = head_width or width // heads
    as_gpt2 = {
        "kv_heads": heads,
        "gated": False,
        "block": "pre_norm",
        "norm": "layer",
        "final_norm": True,
        "causal": True,
        "windows": (None,) * layers,
        "attention_scale": (each**-0.5,) * layers,
        "rotary": None,
        "qk_norm": False,
        "qkv_bias": True,
        "output_bias": True,
        "mlp_bias": True,
        "pooler": False,
    }
    return TransformerConfig(
        front=front,
        width=width,
        layers=layers,
        heads=heads,
        head_width=each,
        mlp_width=mlp_width,
        activation=activation,
        norm_epsilon=float(norm_epsilon),
        **as_gpt2 | variant,
    )


def decoder_heads(values: dict[str, Any]) -> dict[str, Any]:
    """The heads of causal models: a plain decoder, and a classifier of the last token without bias."""
    return {
        "lm_head": LMHead(transform=None, bias=False, tied=values["tie_word_embeddings"]),
        "classifier": Classifier(labels(values), state="last", dense=False, bias=False),
    }


def activation(default: str) -> tuple[str, ...]:
    """The implemented activations, the family's own first."""
    return (default, *(name for name in ACTIVATIONS if name != default))


def _labels(value: Any) -> int | None:
    if value is None:
        return None
    if not isinstance(value, Mapping) or not value:
        raise ValueError("supported: an object with one name per label")
    return len(value)


LABELS: dict[str, tuple[Any, Reader]] = {"id2label": (None, _labels)}
"""Names of the labels of a stored classification head; two when absent."""


def labels(values: dict[str, Any]) -> int:
    """How many labels a stored classification head has."""
    return values["id2label"] or 2


# Attributes that any config.json may carry and that cannot change the outputs, by the reason why.
IGNORED = frozenset(
    # where the checkpoint comes from
    {"_name_or_path", "architectures", "transformers_version", "finetuning_task", "task_specific_params", "language"}
    # what happens in training only
    | {"initializer_range", "gradient_checkpointing", "classifier_dropout", "attention_dropout"}
    # how weights are stored: the dtype is an argument of `load`
    | {"dtype", "torch_dtype"}
    # how the reference implementation batches and returns its results
    | {"return_dict", "output_hidden_states", "output_attentions", "use_cache", "torchscript"}
    | {"chunk_size_feed_forward"}
    # names of labels the other way round, repeated numbers of them, and the loss of the head
    | {"label2id", "num_labels", "problem_type"}
    # token ids that generation and tokenizers use; what is padding is said by the attention mask
    | {"pad_token_id", "bos_token_id", "eos_token_id", "tokenizer_class"}
)
CHOICES: dict[str, tuple[Any, ...]] = {
    "is_decoder": (False,),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (None,),
    "pruned_heads": ({},),
}
