"""Benchmarks: one script per question, one JSON file per question and device under `results/`."""
