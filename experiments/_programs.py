"""Compiled programs of an experiment in a folder: checkpoints of one size differ in numbers only."""

import os
from pathlib import Path

import jax


def keep_programs(folder: Path) -> None:
    """Compile every program once; a folder that the environment already names has precedence."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
