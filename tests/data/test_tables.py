"""Tables of numbers: what stands in the file, and every cell that cannot be used."""

import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft.data.tables import name_column, number_columns, read_table


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "losses.csv"
    path.write_text("model,0,200,gap\nsmall,4.5,3.25,1\nlarge,4,2e-1,\n")
    return path


def test_columns_come_back_as_written(file):
    found = number_columns(read_table(file), ["200", "0"], what="losses.csv")
    assert list(found) == ["200", "0"]
    np.testing.assert_array_equal(found["200"], [3.25, 0.2])
    np.testing.assert_array_equal(found["0"], [4.5, 4.0])
    assert name_column(read_table(file), "model", what="losses.csv") == ["small", "large"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["400"], "losses.csv: there is no column '400'; the columns are 'model', '0', '200', 'gap'"),
        (["0", "gap"], "losses.csv: column 'gap': the number is missing in row 2"),
        (["model", "gap"], r"losses.csv: 2 problems\n.*not a finite number in row 1 \('small'\), 2 .*\n.*missing"),
    ],
)
def test_unusable_cells_are_named_all_at_once(file, names, message):
    with pytest.raises(InputError, match=message):
        number_columns(read_table(file), names, what="losses.csv")


def test_a_name_that_is_missing_is_refused(file):
    with pytest.raises(InputError, match="column 'gap': the label is missing in row 2"):
        name_column(read_table(file), "gap", what="losses.csv")
