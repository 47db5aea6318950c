"""Tables of losses: the headers that are numbers are sizes, and whatever is wrong is one error."""

import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft.cli.loss_table import read_loss_table


@pytest.fixture
def write(tmp_path):
    """From the text of a table to its file."""

    def written(text, ending="csv"):
        path = tmp_path / f"losses.{ending}"
        path.write_text(text)
        return path

    return written


def test_numeric_headers_are_sizes_in_any_order_and_other_columns_are_left_alone(write):
    path = write("family,config name,1e3,200,0,size\nA,small,2.5,3.5,4,124440576\nB,large,1.5,2e0,3,7\n")
    small, large = read_loss_table(path)
    assert (small.name, small.parameters, large.name, large.parameters) == ("small", 124440576.0, "large", 7.0)
    np.testing.assert_array_equal(small.sizes, [0, 200, 1000])
    np.testing.assert_array_equal(small.losses, [4, 3.5, 2.5])
    np.testing.assert_array_equal(large.losses, [3, 2, 1.5])


@pytest.mark.parametrize("header", ["name", "model"])
@pytest.mark.parametrize("parameters", ["parameters", "params", None])
def test_names_and_parameters_may_be_called_otherwise_and_parameters_be_absent(write, header, parameters):
    path = write(f"{header},200,{parameters or 'note'}\n12,3.5,8\n")
    (curve,) = read_loss_table(path)
    assert (curve.name, curve.parameters) == ("12", 8.0 if parameters else None)


def test_other_formats_are_read_alike(write):
    (curve,) = read_loss_table(write("model\t0\t200\nsmall\t4\t3.5\n", "tsv"))
    np.testing.assert_array_equal(curve.losses, [4, 3.5])
    (curve,) = read_loss_table(write('{"model": "small", "0": 4, "200": 3.5}\n', "jsonl"))
    np.testing.assert_array_equal(curve.losses, [4, 3.5])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model,loss\na,2\n", r"got the columns 'model', 'loss'; wanted .* 'config name', 'name', 'model', and losses"),
        ("0,200\n4,3\n", "got the columns '0', '200'; wanted the names of the models"),
        ("model,0,200\na,4,0\nb,-1,3\n", r"2 problems\n.*losses of a: the loss at 200.*\n.*losses of b: the loss at 0"),
        ("model,0,200\na,4,0\n", "losses of a: the loss at 200 examples is 0; wanted a finite number above zero"),
        ("model,0,200\na,-4,-1\n", r"losses of a: 2 problems\n.*at 0 examples is -4.*\n.*at 200 examples is -1"),
        ("model,0,200\na,4,nan\n", r"column '200': this is not a finite number in row 1 \('nan'\)"),
        ("model,0,200\na,4,3\nb,inf,\n", r"2 problems\n.*column '0': .* row 2 \('inf'\)\n.*'200': .* missing in row 2"),
        ("model,0,200\n,4,3\n", "column 'model': the label is missing in row 1"),
        ("model,200,200\na,4,3\n", "column '200' occurs several times"),
        ("model,200,2e2\na,4,3\n", "losses of a: got a size twice; wanted one loss for each"),
        ("model,-1,200\na,4,3\n", "losses of a: got a size that is negative or not finite"),
        ("model,nan,200\na,4,3\n", "losses of a: got a size that is negative or not finite"),
        ("model,200,params\na,4,0\n", "losses of a: got 0 parameters; wanted a number above zero"),
        ("model,200\na,4\nb,3\na,2\n", "model 'a' is there 2 times; wanted one row for each"),
        ("model,200\n", "there are no rows"),
        ("", "the file is empty"),
    ],
)
def test_a_bad_table_is_one_error(write, text, message):
    with pytest.raises(InputError, match=message):
        read_loss_table(write(text))
