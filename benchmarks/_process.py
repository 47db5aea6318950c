"""One measurement, one fresh process: what it took in time and in memory, and nothing of what ran before it.

Memory is that of the whole process, which on the CPU backend holds the arrays, the compiler and the compiled programs.
Linux only: it is read from /proc, where the peak belongs to this program alone (`ru_maxrss` is inherited).
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

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
        call = Call(time.perf_counter() - wall, time.process_time() - cpu, sum(compiling))
    return result, call


def resident_bytes() -> int:
    """Memory that this process holds now."""
    return _status("VmRSS")


def peak_bytes() -> int:
    """The most memory that this process has held."""
    return _status("VmHWM")


def in_fresh_process(module: str, request: dict[str, Any]) -> dict[str, Any]:
    """What `python -m module --child REQUEST` prints as its last line, both as JSON, on the CPU backend.

    Raises `SystemExit` with the end of what the process had to say when it fails.
    """
    command = [sys.executable, "-m", module, "--child", json.dumps(request)]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        command, cwd=root, env=os.environ | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{module}: {request} failed\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


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


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) * 1024
