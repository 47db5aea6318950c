"""Inputs: what a transformer accepts, checked before any work is done.

Those of a language model are a mapping of `input_ids`, `attention_mask` (1: real token, 0: padding) and optionally
`token_type_ids`, each `[n, t]` integers; that of a vision model is `pixel_values`, `[n, channels, height, width]`
floating, scaled and normalised as its image processor does. Layout is known while tracing; values only outside `jit`.
"""

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from jaxtyping import Num

from ntkft._errors import refuse
from ntkft._types import Array
from ntkft.models.config import Patches, Tokens, TransformerConfig

Inputs: TypeAlias = Mapping[str, Num[Array, "n ..."]]

REQUIRED = ("input_ids", "attention_mask")
OPTIONAL = ("token_type_ids",)
PIXELS = "pixel_values"


def check_layout(config: TransformerConfig, inputs: Mapping[str, Array]) -> None:
    """Raise `InputError` listing missing and unknown arrays, shapes that do not fit, and sequences too long."""
    if isinstance(config.front, Patches):
        refuse("inputs", _image_problems(config.front, inputs))
    else:
        refuse("inputs", _token_problems(config.front, inputs))


def _image_problems(front: Patches, inputs: Mapping[str, Array]) -> list[str]:
    unknown = [f"{name} is unknown; this model reads images, give {PIXELS}" for name in inputs if name != PIXELS]
    if PIXELS not in inputs:
        return [*unknown, f"{PIXELS} is missing"]
    pixels, wanted = inputs[PIXELS], (front.channels, *front.image)
    if np.shape(pixels)[1:] != wanted or not np.issubdtype(pixels.dtype, np.floating):
        got = f"{pixels.dtype} {list(np.shape(pixels))}"
        unknown.append(f"{PIXELS} is {got}; wanted floating [n, {', '.join(map(str, wanted))}], so resize the images")
    return unknown


def _token_problems(front: Tokens, inputs: Mapping[str, Array]) -> list[str]:
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
    elif shapes and (tokens := next(iter(shapes.values()))[1]) > front.max_positions:
        problems.append(
            f"sequences have {tokens} tokens, the model {front.max_positions} positions; truncate them to that length"
        )
    return problems


def check_inputs(config: TransformerConfig, mask_token: int | None, inputs: Mapping[str, Array]) -> None:
    """Raise `InputError` for what `check_layout` refuses, and naming the examples whose values cannot be used.

    These are pixels that are NaN or infinite, ids outside the vocabulary or the token types, masks that are not 0 or
    1, examples without a real token, and, when outputs are read at the mask token, examples that do not hold it
    exactly once.
    """
    check_layout(config, inputs)
    if isinstance(config.front, Patches):
        pixels = np.asarray(inputs[PIXELS])
        _refuse_rows({"pixels that are NaN or infinite": ~np.isfinite(pixels).reshape(len(pixels), -1)})
        return
    front = config.front
    ids, mask = np.asarray(inputs["input_ids"]), np.asarray(inputs["attention_mask"])
    types = np.asarray(inputs.get("token_type_ids", np.zeros_like(ids)))
    rules = {
        f"input_ids outside 0..{front.vocab_size - 1}": (ids < 0) | (ids >= front.vocab_size),
        "attention_mask values other than 0 and 1": (mask != 0) & (mask != 1),
        "no real token (attention_mask is all 0)": ~(mask != 0).any(axis=1, keepdims=True),
    }
    if front.token_types:
        rules[f"token_type_ids outside 0..{front.token_types - 1}"] = (types < 0) | (types >= front.token_types)
    if mask_token is not None:
        count = ((ids == mask_token) & (mask != 0)).sum(axis=1, keepdims=True)
        rules[f"not exactly one mask token (id {mask_token})"] = count != 1
    _refuse_rows(rules)


def _refuse_rows(rules: Mapping[str, np.ndarray]) -> None:
    """Raise `InputError` naming the first examples that break each rule: `[n, …]`, true where it is broken."""
    bad = {rule: np.flatnonzero(wrong.any(axis=1)) for rule, wrong in rules.items()}
    refuse(
        "inputs",
        [
            f"{len(rows)} of {len(rules[rule])} examples have {rule}: rows {', '.join(map(str, rows[:5]))}"
            + (", …" if len(rows) > 5 else "")
            for rule, rows in bad.items()
            if len(rows)
        ],
    )
