"""Which of two exact forms is faster here: measured once for each shape, on random factors, and remembered.

Operation counts decide when they differ fourfold. In between the answer belongs to the machine: how fast it
multiplies small matrices, what its caches hold. Both forms are then timed on a piece of the work (a few slices of
columns for "materialise", a few tiles of examples for "pairs"), scaled to the whole, and the two times are kept in
the user's cache folder, so that the same machine always decides alike.
"""

import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from ntkft.kernels.factors import blas
from ntkft.kernels.factors.forms import Extent, Form, form_flops

_CLEAR = 4.0
"""Ratio of operations beyond which nothing is measured."""
_SMALL = 1e9
"""Operations below which the slower form costs milliseconds."""
_EXAMPLES = 512
"""Examples in a measurement; products of more run at the same rate."""
_SLICES = 2
_REPEATS = 3


def faster_form(
    possible: tuple[Form, ...], sizes: tuple[int, int, int], tokens: int, extent: Extent, dtype: np.dtype, workers: int
) -> Form:
    """Of the possible forms of a block `(batch, rows, width)`, the one that takes less time.

    Cost: nothing when operation counts are clear or the shape is known; else about a second.
    """
    flops = {form: form_flops(form, sizes, extent, tokens) for form in possible}
    ranked = sorted(possible, key=lambda form: flops[form])
    if len(ranked) < 2 or flops[ranked[1]] > _CLEAR * flops[ranked[0]]:
        return ranked[0]
    seconds = _remembered(
        _key(sizes, tokens, extent, dtype, workers), lambda: measure(sizes, tokens, extent, dtype, workers)
    )
    return min(possible, key=lambda form: seconds[form])


def measure(
    sizes: tuple[int, int, int], tokens: int, extent: Extent, dtype: np.dtype, workers: int
) -> dict[Form, float]:
    """Estimated seconds of each form for a block, from pieces of it."""
    _, rows, width = sizes
    n = min(extent.n, _EXAMPLES)
    k = extent.k
    long, short = max(rows, width), min(rows, width)
    piece = (1, min(long, max(1, _SLICES * workers * blas.COLUMNS // short)), short)
    few = min(n, max(1, 2 * blas.PAIR_ROWS // tokens))
    seconds: dict[Form, float] = {}
    trials: list[tuple[Form, tuple[int, int, int], int]] = [
        ("materialise", piece, n),
        ("pairs", (1, rows, width), few),
    ]
    for form, shape, count in trials:
        small = Extent(count, 0, k, extent.outputs)
        part = _random_part(shape, tokens, count, k, dtype)
        with blas.Workers(workers) as pool:
            times = []
            for _ in range(_REPEATS):
                kernel = np.zeros(small.shape, dtype)
                start = time.perf_counter()
                blas.contract(form, [part], shape, small, kernel, pool)
                times.append(time.perf_counter() - start)
        whole = form_flops(form, sizes, extent, tokens)
        seconds[form] = min(times[1:]) * whole / form_flops(form, shape, small, tokens)
    return seconds


def _random_part(sizes, tokens, count, k, dtype):
    generator = np.random.default_rng(0)
    batch, rows, width = sizes
    operand = generator.standard_normal((count, batch, tokens, rows), np.float32).astype(dtype, copy=False)
    cotangent = generator.standard_normal((count, k, batch, tokens, width), np.float32).astype(dtype, copy=False)
    return blas.Part("matmul", False, [operand], [cotangent])


def _key(sizes, tokens, extent, dtype, workers) -> str:
    bucket = 1 << max(0, min(extent.n, _EXAMPLES) - 1).bit_length()
    shape = "x".join(map(str, sizes))
    return f"{shape} t{tokens} k{extent.k} {extent.outputs} n{bucket} {dtype} w{workers}"


def _remembered(key: str, measurement: Callable[[], dict[Form, float]]) -> dict[Form, float]:
    path = cache_file()
    known = json.loads(path.read_text()) if path.is_file() else {}
    if key not in known:
        known[key] = measurement()
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps(known, indent=1, sort_keys=True))
        draft.replace(path)
    return known[key]


def cache_file() -> Path:
    """The measurements of this kind of machine; delete it to measure again."""
    base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    kind = f"{platform.machine()}-{jax.default_backend()}-{len(os.sched_getaffinity(0))}-numpy{np.__version__}"
    return base / "ntkft" / f"forms-{kind}.json"
