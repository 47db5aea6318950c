"""The size of a loss: the inverse of the law, and never for a loss that no size reaches."""

import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft.emergence import SizeLaw
from tests.tolerances import CLOSED_FORM

LAW = SizeLaw(limit=1.7, scale=4e7, exponent=0.34)


def test_size_and_loss_are_inverse():
    sizes = np.geomspace(1e6, 1e12, 7)
    np.testing.assert_allclose(LAW.size(LAW.loss(sizes)), sizes, rtol=1e-9)  # loss − L∞ cancels three digits
    assert LAW.size(2.2) == pytest.approx(4e7 * 0.5 ** (-1 / 0.34), rel=CLOSED_FORM)
    assert LAW.loss(1.01 * LAW.size(2.2)) < 2.2 < LAW.loss(0.99 * LAW.size(2.2))


def test_no_size_reaches_the_limit():
    np.testing.assert_array_equal(LAW.size(np.array([1.7, 1.2])), [np.inf, np.inf])
    assert LAW.loss(0.0) == np.inf
    assert LAW.loss(np.inf) == 1.7


def test_what_is_no_law_is_refused():
    with pytest.raises(InputError, match=r"(?s)3 problems.*limit is -1.*scale is 0; wanted.*exponent is nan"):
        SizeLaw(limit=-1.0, scale=0.0, exponent=np.nan)
