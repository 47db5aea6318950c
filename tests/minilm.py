"""For tests that need the default checkpoint, which is a package of its own."""

import importlib.util

import pytest

from ntkft.models.checkpoint import MINILM_INSTALL, MINILM_PACKAGE

needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec(MINILM_PACKAGE) is None, reason=f"needs the default checkpoint; run: {MINILM_INSTALL}"
)
