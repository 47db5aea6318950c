"""Results as plain types, ready for JSON: what a figure shows can be drawn again from the file beside it.

JSON has no NaN and no infinity. NaN becomes null; ±infinity becomes the string "inf" or "-inf", which `float` reads
back. Arrays become nested lists, records become objects with the names of their fields, and keys become strings.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from os import PathLike, fspath
from typing import Any, SupportsFloat

import jax
import numpy as np
from jaxtyping import Int, Num

from ntkft._errors import InputError, refuse
from ntkft._types import Array
from ntkft.finetuning import FinetuneResult
from ntkft.report.prediction import Description, Prediction


def description_record(description: Description) -> dict[str, Any]:
    """Spectrum and decay of a kernel. Eigenvectors are left out: no figure needs them, and they are n times as large.

    spectrum: n, eigenvalues, those of every group, floor, count_above_floor, status, effective_rank
    decay:    fit (window, lines, preferred, aic_difference), interval, over_n
    """
    spectrum, fit = description.spectrum, description.fit
    return to_plain(
        {
            "spectrum": {
                "n": spectrum.n,
                "eigenvalues": spectrum.eigenvalues,
                "groups": spectrum.groups,
                "floor": spectrum.floor,
                "count_above_floor": spectrum.count_above_floor,
                "status": spectrum.status,
                "effective_rank": description.effective_rank,
            },
            "decay": {
                "fit": to_plain(fit) | {"preferred": fit.preferred, "aic_difference": fit.aic_difference},
                "interval": description.interval,
                "over_n": description.over_n,
            },
        }
    )


def prediction_record(prediction: Prediction) -> dict[str, Any]:
    """The description of the kernel and every other field of a prediction, by its name."""
    others = {f.name: getattr(prediction, f.name) for f in fields(prediction) if f.name != "description"}
    return description_record(prediction.description) | to_plain(others)


def finetune_record(result: FinetuneResult) -> dict[str, Any]:
    """Curves, drift and status of a run, by the names of `FinetuneResult`. Parameters and predictions are left out."""
    kept = {f.name: getattr(result, f.name) for f in fields(result) if f.name not in ("params", "curves")}
    curves = {
        name: {"epochs": curve.epochs, "loss": curve.loss, "mse": curve.mse, "accuracy": curve.accuracy}
        for name, curve in result.curves.items()
    }
    return to_plain(kept | {"status": result.status, "parameter_drift": result.parameter_drift, "curves": curves})


def parting(
    predicted_mse: Num[Array, "..."], real_mse: Num[Array, "..."], epochs: Int[Array, "..."], tolerance: SupportsFloat
) -> int | None:
    """First recorded epoch at which |predicted/real − 1| > tolerance; None if there is none.

    predicted_mse, real_mse: `[s]`, errors after the same `epochs` `[s]`, ascending; tolerance: relative, 0.01 for 1 %.
    The comparison is |predicted − real| ≤ tolerance·real, so two errors of zero agree, and NaN agrees with nothing.
    Between the epoch before and this one nothing is known, and later ones may agree again. Cost: negligible.
    Raises `InputError` for lists of different length, epochs that do not ascend, or a tolerance that is not a number
    of at least 0.
    """
    predicted, real, steps = np.asarray(predicted_mse), np.asarray(real_mse), np.asarray(epochs)
    bound, problems = float(tolerance), []
    if not predicted.shape == real.shape == steps.shape == (steps.size,):
        problems.append(
            f"got {list(predicted.shape)} predicted and {list(real.shape)} real errors for {list(steps.shape)} epochs; "
            "wanted one of each for every epoch that both have"
        )
    if np.any(np.diff(steps.ravel()) <= 0):
        problems.append(f"epochs are {steps.tolist()}; wanted them ascending")
    if not 0 <= bound < np.inf:
        problems.append(f"tolerance is {bound:g}; wanted a relative error of at least 0, such as 0.01")
    refuse("parting", problems)
    apart = ~(np.abs(predicted - real) <= bound * np.abs(real))
    return int(steps[np.argmax(apart)]) if apart.any() else None


def to_json(record: Mapping[str, Any]) -> str:
    """Strict JSON of a record, on one line: see the top of this file for NaN, infinity and arrays.

    Raises `InputError` naming the entry that has no plain form.
    """
    return json.dumps(to_plain(record), allow_nan=False, ensure_ascii=False)


def to_plain(value: Any, name: str = "record") -> Any:
    """`value` in dictionaries, lists, strings, numbers and None; `name` is what an error calls it.

    Takes those, dataclasses, mappings, sequences, NumPy and JAX arrays and scalars, and paths. A plain value comes back
    equal. Raises `InputError` for anything else.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return _plain_float(value)
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return _plain_array(np.asarray(value), name)
    if isinstance(value, PathLike):
        return fspath(value)
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(entry, f"{name}[{str(key)!r}]") for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [to_plain(entry, f"{name}[{position}]") for position, entry in enumerate(value)]
    raise InputError(f"to_json: {name} is of type {type(value).__name__}, which has no plain form; convert it first")


def _plain_float(value: float) -> float | str | None:
    if math.isnan(value):
        return None
    return str(float(value)) if math.isinf(value) else float(value)


def _plain_array(array: np.ndarray, name: str) -> Any:
    """Nested lists, with one check for the whole array where every number is finite."""
    if array.dtype.kind in "biuU":
        return array.tolist()
    if not jax.numpy.issubdtype(array.dtype, np.floating):
        raise InputError(f"to_json: {name} is an array of {array.dtype}, which has no plain form; convert it first")
    values = array.astype(np.float64)
    return values.tolist() if np.isfinite(values).all() else to_plain(values.tolist(), name)
