"""Strict JAX for every test: float64 on, rank promotion refused, shapes checked, several CPU devices.

The models here are tiny and the programs many: compiling is most of the time. So programs are compiled plainly, and
kept in a folder of this run: its workers, and processes that tests start, compile what none of them has compiled yet.
"""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
if "XLA_FLAGS" not in os.environ:  # the first process of a run: workers inherit what it sets
    os.environ["XLA_FLAGS"] = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    start = [sys.executable, "-c", "import jax; jax.devices('cpu')"]
    if subprocess.run(start, capture_output=True, check=False).returncode:  # an XLA that has not both
        os.environ["XLA_FLAGS"] = ""
    os.environ["XLA_FLAGS"] += " --xla_force_host_platform_device_count=4"
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    programs = os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="ntkft-programs-")
    atexit.register(shutil.rmtree, programs, ignore_errors=True)

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from tests import typecheck

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
typecheck.install()

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_configure(config: pytest.Config) -> None:
    """A worker that reads a program while another writes it compiles it instead, and JAX warns."""
    config.addinivalue_line("filterwarnings", "ignore:Error reading persistent compilation cache entry")


@pytest.fixture
def compiled_anew():
    """Programs compiled in this test are none of the run's folder."""
    folder = os.environ["JAX_COMPILATION_CACHE_DIR"]
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_compilation_cache_dir", folder)
    compilation_cache.reset_cache()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real data sets that are not part of this repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"needs the data sets in {SHARED_DATA}, which are not part of the repository")
    return SHARED_DATA
