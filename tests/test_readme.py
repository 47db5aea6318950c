"""The README's first Python example is executed as it stands."""

import importlib.util
import re
from pathlib import Path

import pytest

from ntkft.models.checkpoint import MINILM_INSTALL, MINILM_PACKAGE

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec(MINILM_PACKAGE) is None, reason=f"needs the default checkpoint; run: {MINILM_INSTALL}"
)


def test_the_first_example_prints_a_decay_exponent_and_a_stopping_time(capsys):
    example = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)[0]
    exec(compile(example, "README.md", "exec"), {})
    exponent, stop = capsys.readouterr().out.split()
    assert 0.3 < float(exponent) < 0.8
    assert int(stop) > 0
