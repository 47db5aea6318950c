"""The fence around neural-tangents: it works, and it leaves JAX as it found it."""

import subprocess
import sys

import pytest

SCRIPT = """
import sys
import jax, jax.core, jax.interpreters.ad
before = {m.__name__: dict(vars(m)) for m in (jax, jax.core, jax.interpreters.ad)}
from ntkft.kernels._neural_tangents import neural_tangents
nt = neural_tangents()
for module in (jax, jax.core, jax.interpreters.ad):
    after = {name: value for name, value in vars(module).items() if not hasattr(value, "__path__")}
    kept = {name: value for name, value in before[module.__name__].items() if not hasattr(value, "__path__")}
    changed = {name for name in after.keys() | kept.keys() if after.get(name) is not kept.get(name)}
    # importing more of JAX adds JAX's own submodules, which is no change of names
    changed -= {name for name in changed if getattr(after.get(name), "__name__", "").startswith("jax.")}
    assert not changed, (module.__name__, changed)
assert "jax.util" not in sys.modules
assert not [name for name in sys.modules if name.split(".")[0] in ("tensorflow", "torch", "tf2jax")]
assert nt.__version__ == "0.6.5"
"""


def test_jax_is_left_as_it_was_and_tensorflow_is_not_imported():
    result = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_a_jax_that_moved_further_gives_one_sentence():
    script = (
        "import jax.extend.core as core; core.__dict__.pop('Jaxpr', None)\n"
        "from ntkft.kernels._neural_tangents import neural_tangents\n"
        "neural_tangents()"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "use method='jacobian', which does not need it" in result.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("module", ["torch", "tensorflow", "flax", "matplotlib", "transformers"])
def test_import_ntkft_does_not_import(module):
    script = f"import ntkft, sys; assert {module!r} not in sys.modules"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
