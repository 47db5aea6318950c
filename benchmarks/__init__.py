"""Benchmarks: one script per question, one JSON file per question and device under `results/`.

    against_floor             how far from the machine's own limit, within which memory, and what embeddings add
    against_neural_tangents   how much faster than neural-tangents, at its best, within the same memory
    against_recipes           how much faster than what one writes first, in JAX and in PyTorch
    forms                     whether the form chosen for a weight is the faster one
    report                    tables and figures of `docs/choosing-a-kernel.md` from the JSON

Each runs as `python -m benchmarks.NAME` from the root of the repository, alone on its machine; `--smoke` takes seconds
on a tiny model and means nothing. Every measurement is a fresh process.
"""
