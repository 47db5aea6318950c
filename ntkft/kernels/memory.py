"""Memory budgets: what the user asked for, or a stated share of what is free."""

import ctypes
import os
import re

import jax

from ntkft._errors import InputError

_UNITS = {
    "": 1,
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "t": 10**12,
    "ki": 2**10,
    "mi": 2**20,
    "gi": 2**30,
    "ti": 2**40,
}
_SHARE = 0.5


def budget_bytes(memory: int | float | str | None) -> int:
    """Bytes of `memory`: a number, a string such as "4GB" or "512 MiB", or half of the free device memory for None.

    Raises `InputError` on anything else.
    """
    if memory is None:
        return int(_SHARE * _free_bytes())
    if isinstance(memory, str):
        match = re.fullmatch(r"\s*([0-9.]+)\s*([kmgt]?i?)b?\s*", memory.lower())
        if not match or match[2] not in _UNITS or match[1].count(".") > 1:
            raise InputError(f"memory: got {memory!r}; wanted bytes or a size such as '4GB' or '512MiB'")
        memory = float(match[1]) * _UNITS[match[2]]
    if memory <= 0:
        raise InputError(f"memory: got {memory}; wanted a positive number of bytes")
    return int(memory)


def return_freed_memory() -> None:
    """Give freed host memory back to the system, where the C library (glibc) would keep it; elsewhere nothing.

    A compiler leaves some 100 MB behind, a step some 100 more, in pieces which arrays do not all fit into. Cost:
    milliseconds, and touching the memory again.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _free_bytes() -> int:
    device = jax.local_devices()[0]
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
