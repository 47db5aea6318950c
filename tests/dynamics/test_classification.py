import numpy as np

from ntkft.dynamics import accuracy


def test_accuracy_is_by_sign_or_by_the_largest_output_and_only_for_classes():
    signs = np.array([[1.0], [-1.0], [-1.0], [1.0]])
    outputs = np.array([[[0.5], [-2.0], [0.1], [-0.1]], [[1.0], [-1.0], [-1.0], [1.0]]])
    np.testing.assert_array_equal(accuracy(outputs, signs), [0.5, 1.0])
    one_hot = np.eye(3)[[0, 2]]
    np.testing.assert_array_equal(accuracy(np.array([[[0.2, 0.1, 0.0], [0.0, 3.0, 2.0]]]), one_hot), [0.5])
    assert accuracy(outputs, signs * 2) is None
    assert accuracy(np.zeros((1, 2, 2)), np.array([[1.0, 1.0], [0.0, 1.0]])) is None
    assert accuracy(outputs, signs[:, 0]) is None  # not integers


def test_integers_are_classes_and_so_are_shifted_one_hot_rows():
    outputs = np.array([[0.0, 1.0], [2.0, 1.0], [0.3, 0.1]])
    np.testing.assert_array_equal(accuracy(outputs, np.array([1, 1, 0])), 2 / 3)
    np.testing.assert_array_equal(accuracy(outputs, np.array([[-0.5, 0.5], [-0.5, 0.5], [0.5, -0.5]])), 2 / 3)


def test_a_single_output_of_zero_is_positive():
    np.testing.assert_array_equal(accuracy(np.zeros((2, 1)), np.array([[1.0], [-1.0]])), 0.5)
