"""Rotary positions as configs write them: `rope_parameters` today, `rope_theta` with `rope_scaling` before."""

from collections.abc import Mapping
from typing import Any

from ntkft.models.families.family import Reader
from ntkft.models.rotary import LinearScaling, Llama3Scaling, Rotary

_SCALINGS = ("default", "linear", "llama3")
_LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
_KNOWN = {"default": (), "linear": ("factor",), "llama3": _LLAMA3}


def _parameters(value: Any) -> dict[str, Any] | None:
    """`rope_parameters` or `rope_scaling`, with the type under one name; None when absent."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise ValueError("supported: an object with rope_type")
    found = dict(value)
    kind = found.pop("type", None)
    kind = found.pop("rope_type", kind) or "default"
    if kind not in _SCALINGS:
        raise ValueError(f"supported: rope_type {', '.join(_SCALINGS)}")
    unknown = found.keys() - set(_KNOWN[kind]) - {"rope_theta", "partial_rotary_factor"}
    absent = [name for name in _KNOWN[kind] if name not in found]
    bad = [name for name, number in found.items() if type(number) not in (int, float) or not number > 0]
    if unknown or absent or bad:
        raise ValueError(
            f"supported: for rope_type {kind!r} positive numbers {', '.join((*_KNOWN[kind], 'rope_theta'))}"
            + f"; unknown: {', '.join(sorted(unknown))}" * bool(unknown)
            + f"; missing: {', '.join(absent)}" * bool(absent)
        )
    return found | {"rope_type": kind}


def _share(value: Any) -> float | None:
    if value is not None and (type(value) not in (int, float) or not 0 < value <= 1):
        raise ValueError("supported: a number above 0, up to 1")
    return value


def _positive(value: Any) -> float | None:
    if value is not None and (type(value) not in (int, float) or not value > 0):
        raise ValueError("supported: a positive number")
    return value


ROPE: dict[str, tuple[Any, Reader]] = {
    "rope_parameters": (None, _parameters),
    "rope_scaling": (None, _parameters),
    "rope_theta": (None, _positive),
}
"""Attributes of the Llama-like families."""
PARTIAL_ROPE: dict[str, tuple[Any, Reader]] = {
    "rope_parameters": (None, _parameters),
    "rope_scaling": (None, _parameters),
    "rotary_emb_base": (None, _positive),
    "rotary_pct": (None, _share),
}
"""Attributes of GPT-NeoX."""


def rotary(values: dict[str, Any], head_width: int) -> Rotary:
    """The rotary positions of a Llama-like model; raises `ValueError` where old and new attributes disagree."""
    return _rotary(values, head_width, values["rope_theta"], None, share=1.0)


def partial_rotary(values: dict[str, Any], head_width: int) -> Rotary:
    """The rotary positions of GPT-NeoX, which turns a share of the features."""
    return _rotary(values, head_width, values["rotary_emb_base"], values["rotary_pct"], share=0.25)


def _rotary(
    values: dict[str, Any], head_width: int, theta: float | None, factor: float | None, *, share: float
) -> Rotary:
    now, before = values["rope_parameters"] or {}, values["rope_scaling"] or {}
    if now and before and {**before, **now} != now:
        raise ValueError(f"rope_scaling {before} is not what rope_parameters {now} say")
    for name, old in (("rope_theta", theta), ("partial_rotary_factor", factor)):
        if old is not None and now.get(name, old) != old:
            raise ValueError(f"{name} is {old}, rope_parameters say {now[name]}")
    found = before | now
    turning = found.get("partial_rotary_factor", share if factor is None else factor)
    if turning > 1 or (share == 1.0 and turning != 1):
        allowed = "1" if share == 1.0 else "above 0, up to 1"
        raise ValueError(f"rope_parameters: partial_rotary_factor is {turning}; supported: {allowed}")
    scaling = None
    if found.get("rope_type") == "linear":
        scaling = LinearScaling(float(found["factor"]))
    elif found.get("rope_type") == "llama3":
        squeeze, low, high, length = (found[name] for name in _LLAMA3)
        scaling = Llama3Scaling(float(squeeze), float(low), float(high), int(length))
    base = found.get("rope_theta", theta)
    return Rotary(int(head_width * turning), 10000.0 if base is None else float(base), scaling)
