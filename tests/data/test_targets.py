"""Targets: rows of outputs."""

import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft.data import one_hot_targets, regression_targets, signed_targets


def test_signed_targets_are_minus_and_plus_one():
    np.testing.assert_array_equal(signed_targets(np.array([0, 1, 1])), [[-1.0], [1.0], [1.0]])


def test_one_hot_targets_are_rows_of_the_identity():
    np.testing.assert_array_equal(one_hot_targets(np.array([2, 0]), 4), np.eye(4)[[2, 0]])


def test_signed_targets_are_the_difference_of_the_one_hot_columns():
    classes = np.array([0, 1, 1, 0])
    both = one_hot_targets(classes, 2)
    np.testing.assert_array_equal(signed_targets(classes), both[:, 1:] - both[:, :1])


def test_regression_targets_are_one_column():
    np.testing.assert_array_equal(regression_targets(np.array([0.5, -3.0])), [[0.5], [-3.0]])


def test_class_numbers_out_of_range_are_refused():
    with pytest.raises(InputError, match=r"signed_targets: got class 2; wanted 0 to 1 \(for more classes use one_hot"):
        signed_targets(np.array([0, 2]))
    with pytest.raises(InputError, match="one_hot_targets: got class -1; wanted 0 to 2"):
        one_hot_targets(np.array([-1, 1]), 3)
