"""The README's Python examples are executed as they stand."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

from ntkft.models.checkpoint import MINILM_INSTALL, MINILM_PACKAGE

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec(MINILM_PACKAGE) is None, reason=f"needs the default checkpoint; run: {MINILM_INSTALL}"
)


def test_the_examples_run_as_they_stand(capsys):
    space = {}
    outputs = []
    for example in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL):
        if "my_trained_module" in example:  # the reader's own
            continue
        exec(compile(example, "README.md", "exec"), space)
        outputs.append(capsys.readouterr().out)
    exponent, stop = outputs[0].split()
    assert 0.3 < float(exponent) < 0.8
    assert int(stop) > 0
    assert outputs[1].count("operations") == 3
    assert np.allclose(
        space["spectrum"].eigenvalues[:5], np.fromstring(outputs[2].split("]")[0][1:], sep=" "), rtol=1e-3
    )
