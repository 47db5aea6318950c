"""What a call costs in time and memory.

On a CPU, memory is that of the whole process, which holds the arrays, the compiler and the compiled programs; it is
read from /proc, so Linux only, where the peak belongs to this program alone (`ru_maxrss` is inherited). On an
accelerator it is what JAX's allocator has handed out. A peak belongs to the whole life of a process: measure in a
fresh one (`fresh_process`).
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax

from ntkft.report.machine import load

# Tracing is left out: JAX reports it for inner functions and again for the ones around them.
_COMPILING = ("/jax/core/compile/jaxpr_to_mlir_module_duration", "/jax/core/compile/backend_compile_duration")


@dataclass(frozen=True)
class Call:
    """One call, in seconds.

    wall:    on the clock
    cpu:     summed over the cores, which another user of the machine lengthens less
    compile: of `wall`, spent lowering and compiling
    """

    wall: float
    cpu: float
    compile: float


def timed(function: Callable[[], Any]) -> tuple[Any, Call]:
    """The result of `function`, waited for, and what the call took."""
    with _compile_seconds() as compiling:
        wall, cpu = time.perf_counter(), time.process_time()
        result = jax.block_until_ready(function())
        call = Call(time.perf_counter() - wall, time.process_time() - cpu, sum(compiling, 0.0))
    return result, call


def measured(function: Callable[[], Any], *, calls: int) -> tuple[Any, dict[str, Any]]:
    """The last result of `function`, and its costs.

    bytes:   the most memory that the first call held, above what the process held before it
    total:   seconds of the first call
    steady:  seconds of the last call without compiling; that of the first call when there is no other
    compile: seconds that the first call compiled
    cpu:     seconds of the first call, summed over the cores
    load:    of the machine beforehand
    first, last: both calls in full
    """
    met, held = load(), held_bytes()
    result, first = timed(function)
    peak = peak_bytes() - held
    last = first
    for _ in range(calls - 1):
        del result  # two at once would not fit where one just does
        result, last = timed(function)
    return result, {
        "bytes": peak,
        "load": met,
        "total": first.wall,
        "steady": last.wall - last.compile,
        "compile": first.compile,
        "cpu": first.cpu,
        "first": asdict(first),
        "last": asdict(last),
    }


def held_bytes() -> int:
    """Memory that is held now."""
    return _device("bytes_in_use") or _status("VmRSS")


def peak_bytes() -> int:
    """The most memory that this process has held."""
    return _device("peak_bytes_in_use") or _status("VmHWM")


@contextmanager
def _compile_seconds() -> Iterator[list[float]]:
    seconds: list[float] = []

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if event in _COMPILING:
            seconds.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seconds
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def _device(statistic: str) -> int:
    """Of the first device; 0 on a CPU, which keeps no statistics."""
    return (jax.local_devices()[0].memory_stats() or {}).get(statistic, 0)


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) * 1024
