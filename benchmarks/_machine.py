"""The machine that a benchmark ran on: what it is, what it can do, and who else was using it."""

import os
import platform
import statistics
import time
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np


def environment() -> dict[str, str | int]:
    """Processor and versions; nothing that names a person, a host or a day."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": version("jaxlib"),
        "numpy": np.__version__,
    }


def load() -> float:
    """Runnable processes over the last minute; what this benchmark ran in that minute is counted too."""
    return round(os.getloadavg()[0], 2)


def gemm_rate(size: int, repeats: int) -> float:
    """Multiplications and additions per second in float32 products of two `[size, size]` matrices, the median."""
    multiply = jax.jit(lambda a: jnp.matmul(a, a, precision=jax.lax.Precision.HIGHEST))
    matrix = jnp.full((size, size), 0.5, jnp.float32)
    multiply(matrix).block_until_ready()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        multiply(matrix).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(seconds)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
