"""The two published tables of losses, read without the code under test."""

import csv

import numpy as np
import pytest

from ntkft.scaling import LossCurve

TABLES = ("flan", "wmt19")


@pytest.fixture(scope="session")
def tables(shared_data) -> dict[str, list[LossCurve]]:
    """Curves of 30 models at 0 and 200·2^i examples, for each table."""
    return {name: _read(shared_data / "rectified_scaling_law" / f"{name}.csv") for name in TABLES}


def _read(path) -> list[LossCurve]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    sizes = sorted((column for column in rows[0] if column.isdigit()), key=int)
    examples = np.array(sizes, np.float64)
    return [
        LossCurve(row["config name"], examples, np.array([float(row[size]) for size in sizes]), float(row["size"]))
        for row in rows
    ]
