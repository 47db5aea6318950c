"""Models that several tests of adapters share."""

import pytest

from ntkft.models import load
from tests.models.adapted import LINEAR, ONE_LAYER, base_of
from tests.models.tiny import write_checkpoint


@pytest.fixture(scope="module")
def base():
    """A random model of one layer."""
    return base_of(ONE_LAYER)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A checkpoint of one layer on disk, loaded."""
    directory = write_checkpoint(tmp_path_factory.mktemp("bert"), ONE_LAYER)
    return load(directory, readout=LINEAR, dtype="float64")
