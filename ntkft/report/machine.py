"""The machine that something was measured on: what it is, what it can do, and who else was using it."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def environment() -> dict[str, str | int]:
    """Device, processor and versions; nothing that names a person, a host or a day."""
    return {
        "device": jax.local_devices()[0].device_kind,
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": version("jaxlib"),
        "numpy": np.__version__,
    }


def load() -> float:
    """Runnable processes over the last minute; what the caller ran in that minute is counted too."""
    return round(os.getloadavg()[0], 2)


def gemm_rate(size: int, repeats: int) -> float:
    """Multiplications and additions per second in float32 products of two `[size, size]` matrices.

    The median of `repeats` products: XLA's at full precision and, on a CPU, also NumPy's, of which the faster counts.
    """
    matrix = np.full((size, size), 0.5, np.float32)
    on_device = jnp.asarray(matrix)
    multiply = jax.jit(lambda a: jnp.matmul(a, a, precision=jax.lax.Precision.HIGHEST))
    products: list[Callable[[], Any]] = [lambda: multiply(on_device).block_until_ready()]
    if jax.default_backend() == "cpu":
        products.append(lambda: matrix @ matrix)
    return 2 * size**3 / min(_median_seconds(product, repeats) for product in products)


def _median_seconds(function: Callable[[], Any], repeats: int) -> float:
    function()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
