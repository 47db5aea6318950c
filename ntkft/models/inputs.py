"""Token inputs: what a transformer accepts, checked before any work is done.

Inputs are a mapping of `input_ids`, `attention_mask` (1: real token, 0: padding) and optionally `token_type_ids`,
each `[n, t]` integers. Layout is known while tracing; values are only known outside `jit`.
"""

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from jaxtyping import Int

from ntkft._errors import refuse
from ntkft._types import Array
from ntkft.models.transformer import TransformerConfig

Inputs: TypeAlias = Mapping[str, Int[Array, "n t"]]

REQUIRED = ("input_ids", "attention_mask")
OPTIONAL = ("token_type_ids",)


def check_layout(config: TransformerConfig, inputs: Mapping[str, Array]) -> None:
    """Raise `InputError` listing missing and unknown arrays, unequal shapes, and sequences that are too long."""
    problems = [f"{name} is missing" for name in REQUIRED if name not in inputs]
    problems += [
        f"{name} is unknown; give {', '.join(REQUIRED)} and if need be {', '.join(OPTIONAL)}"
        for name in inputs
        if name not in REQUIRED + OPTIONAL
    ]
    shapes = {name: np.shape(array) for name, array in inputs.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != 2 for shape in shapes.values()):
        got = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        problems.append(f"got shapes {got}; all must be the same [examples, tokens]")
    elif shapes and (tokens := next(iter(shapes.values()))[1]) > config.max_positions:
        problems.append(
            f"sequences have {tokens} tokens, the model {config.max_positions} positions; truncate them to that length"
        )
    refuse("inputs", problems)


def check_inputs(config: TransformerConfig, mask_token: int | None, inputs: Mapping[str, Array]) -> None:
    """Raise `InputError` for what `check_layout` refuses, and naming the examples whose values cannot be used.

    These are ids outside the vocabulary or the token types, masks that are not 0 or 1, examples without a real token,
    and, when outputs are read at the mask token, examples that do not hold it exactly once.
    """
    check_layout(config, inputs)
    ids, mask = np.asarray(inputs["input_ids"]), np.asarray(inputs["attention_mask"])
    types = np.asarray(inputs.get("token_type_ids", np.zeros_like(ids)))
    rules = {
        f"input_ids outside 0..{config.vocab_size - 1}": (ids < 0) | (ids >= config.vocab_size),
        "attention_mask values other than 0 and 1": (mask != 0) & (mask != 1),
        "no real token (attention_mask is all 0)": ~(mask != 0).any(axis=1, keepdims=True),
    }
    if config.token_types:
        rules[f"token_type_ids outside 0..{config.token_types - 1}"] = (types < 0) | (types >= config.token_types)
    if mask_token is not None:
        count = ((ids == mask_token) & (mask != 0)).sum(axis=1, keepdims=True)
        rules[f"not exactly one mask token (id {mask_token})"] = count != 1
    bad = {rule: np.flatnonzero(wrong.any(axis=1)) for rule, wrong in rules.items()}
    refuse(
        "inputs",
        [
            f"{len(rows)} of {len(ids)} examples have {rule}: rows {', '.join(map(str, rows[:5]))}"
            + (", …" if len(rows) > 5 else "")
            for rule, rows in bad.items()
            if len(rows)
        ],
    )
