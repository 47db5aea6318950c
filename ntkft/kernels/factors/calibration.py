"""Which of two exact forms is faster here: measured once for each shape, on random factors, and remembered.

Operation counts decide when they differ fourfold. In between the answer belongs to the machine: how fast it
multiplies small matrices, what its caches hold. Both forms are then timed on a piece of the work (a few slices of
columns for "materialise", one tile of examples a worker for "pairs"), scaled to the whole, and the two times are
kept in the user's cache folder, so that the same machine always decides alike.
"""

import json
import math
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
_EXAMPLES = 512
"""Examples in a measurement; products of more run at the same rate."""
_SLICES = 2
_ROUNDS, _ENOUGH = 4, 0.1
"""Fewest times that each form is tried, in turn so that both see the same machine; seconds after which it is enough."""


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
    """Estimated seconds of each form for a block, from pieces of it that keep every worker busy."""
    _, rows, width = sizes
    whole = Extent(min(extent.n, _EXAMPLES), 0, extent.k, extent.outputs)
    long, short = max(rows, width), min(rows, width)
    slices = (1, min(long, max(1, _SLICES * workers * blas.COLUMNS // short)), short)
    side, tiles = blas.pair_tiles(whole, tokens)
    few = whole if len(tiles) <= workers else Extent(side, side * workers, extent.k, extent.outputs)
    share = -(-len(blas.pair_tiles(few, tokens)[1]) // workers) / -(-len(tiles) // workers)
    trials: list[tuple[Form, tuple[int, int, int], Extent, float]] = [
        ("materialise", slices, whole, math.prod(slices) / math.prod(sizes)),
        ("pairs", (1, rows, width), few, share / sizes[0]),
    ]
    parts = [_random_part(shape, tokens, piece.count, extent.k, dtype) for _, shape, piece, _ in trials]
    seconds: dict[Form, list[float]] = {form: [] for form, *_ in trials}
    with blas.Workers(workers) as pool:
        begun = time.perf_counter()
        while len(seconds["pairs"]) < _ROUNDS or time.perf_counter() - begun < _ENOUGH:
            for (form, shape, piece, fraction), part in zip(trials, parts, strict=True):
                kernel = np.zeros(piece.shape, dtype)
                start = time.perf_counter()
                blas.contract(form, [part], shape, piece, kernel, pool)
                seconds[form].append((time.perf_counter() - start) / fraction)
    return {
        form: min(times[1:]) * form_flops(form, sizes, extent, tokens) / form_flops(form, sizes, whole, tokens)
        for form, times in seconds.items()
    }


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
