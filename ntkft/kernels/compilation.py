"""Programs compiled for one use: nothing of them stays once they are dropped."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from ntkft.kernels.memory import return_freed_memory

_OPTIONS: dict[str, str | bool] = {"xla_cpu_use_fusion_emitters": False}
"""The plainer emitters compile a program in 60 % of the time, and it runs as fast (docs/design.md)."""

_QUICK: dict[str, str | bool] = {"xla_backend_optimization_level": "0"}
"""Compiles in a third of the time, and the program runs at half the speed."""


def compile_once(function: Callable, arguments: Sequence[Any], *, quick: bool = False) -> Callable:
    """The function compiled for arguments like these, in none of JAX's caches.

    What it closes over becomes a constant of the program, copied twice: pass large arrays as arguments.

    quick: for a program that runs a few times only
    """
    lowered = jax.jit(function).lower(*arguments)
    try:
        compiled = lowered.compile(compiler_options=_OPTIONS | _QUICK if quick else _OPTIONS)
    except jax.errors.JaxRuntimeError:  # a version of XLA without these options
        compiled = lowered.compile()
    return_freed_memory()
    return compiled
