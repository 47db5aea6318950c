"""The fence around neural-tangents: it works, and it leaves JAX as it found it."""

import subprocess
import sys

import numpy as np
import pytest

from ntkft.dynamics import dual_coefficients, gradient_flow, outputs_at
from ntkft.kernels._neural_tangents import neural_tangents
from ntkft.spectra import spectrum_of_matrix

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


def test_its_gradient_flow_is_ours():
    """Two implementations of the same dynamics, in two conventions of time: t_theirs = ε k t / lr."""
    generator = np.random.default_rng(0)
    features = generator.normal(size=(14, 30))
    kernel = features @ features.T
    n, k, step_size, rate = 9, 2, 0.3, 1.7
    y, start = generator.normal(size=(9, k)), generator.normal(size=(14, k))
    times = np.array([0.0, 0.5, 3.0, 20.0])
    # neural-tangents reads the matrix as acting on every output alike, which is its trace kernel.
    predict = neural_tangents().predict.gradient_descent_mse(kernel[:n, :n], y, learning_rate=rate)
    theirs = predict(times * step_size * k / rate, start[:n], start[n:], kernel[n:, :n])
    spectral = spectrum_of_matrix(kernel[:n, :n], precision="float64")
    dual = dual_coefficients(spectral, y - start[:n], gradient_flow(step_size), times)
    for rows, expected in ((slice(0, n), theirs[0]), (slice(n, 14), theirs[1])):
        ours = outputs_at(kernel[rows, :n], dual, start[rows])
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-8)


def test_its_largest_stable_step_size_is_ours():
    features = np.random.default_rng(1).normal(size=(8, 20))
    kernel = features @ features.T
    theirs = neural_tangents().predict.max_learning_rate(kernel, y_train_size=8)
    assert theirs == pytest.approx(2 / spectrum_of_matrix(kernel, precision="float64").eigenvalues[0], rel=1e-10)
