"""Strict JAX for every test: float64 on, rank promotion refused, shapes checked, several CPU devices."""

import os
from pathlib import Path

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
os.environ.setdefault("MPLBACKEND", "agg")

import jax
import jaxtyping
import pytest

import tests.typecheck  # noqa: F401  named by the import hook below

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
# The models here are tiny and the programs many: compiling is most of the time, so compile plainly.
jax.config.update("jax_disable_most_optimizations", True)
jaxtyping.install_import_hook("ntkft", "tests.typecheck.check")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real data sets that are not part of this repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"needs the data sets in {SHARED_DATA}, which are not part of the repository")
    return SHARED_DATA
