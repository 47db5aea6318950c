import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft.dynamics import measure_kernel_behaviour
from tests.spectra.matrices import Record, min_kernel

SCORES = {"pretrained": 0.5, "finetuned": 0.9, "linearised": 0.8}
BEFORE = min_kernel(4)


def test_the_share_of_the_gain_and_the_distance_of_entries_are_their_definitions():
    after = BEFORE * np.array([[1.0, 3.0, 0.0, 1.0]] * 4)  # relative distances 0, 2, 1, 0 in every row
    found = measure_kernel_behaviour(**SCORES, before=BEFORE, after=after)
    assert found.recovered == pytest.approx(0.75)
    assert found.distance == pytest.approx(0.75)
    expected = np.sqrt(np.sum((2 * BEFORE[:, 1]) ** 2 + BEFORE[:, 2] ** 2) / np.sum(BEFORE**2))
    assert found.change == pytest.approx(expected)
    assert found.linearised
    assert found.fixed_features
    assert found.holds


@pytest.mark.parametrize(
    ("linearised", "factor", "verdicts"),
    [(0.7, 2.99, (True, True)), (0.69, 1.0, (False, True)), (0.9, 3.01, (True, False)), (0.4, -2.0, (False, False))],
)
def test_verdicts_change_at_half_of_the_gain_and_at_twice_the_entries(linearised, factor, verdicts):
    scores = SCORES | {"linearised": linearised + 1e-12}
    found = measure_kernel_behaviour(**scores, before=Record(BEFORE, "scalar"), after=Record(factor * BEFORE, "scalar"))
    assert (found.linearised, found.fixed_features) == verdicts
    assert found.holds == all(verdicts)
    assert found.distance == pytest.approx(abs(factor - 1))
    assert found.change == pytest.approx(abs(factor - 1))


def test_neither_the_unit_of_the_kernel_nor_that_of_the_score_matters():
    after = BEFORE + np.random.default_rng(0).standard_normal(BEFORE.shape)
    found = measure_kernel_behaviour(**SCORES, before=BEFORE, after=after)
    percent = {name: 100 * score - 7 for name, score in SCORES.items()}
    scaled = measure_kernel_behaviour(**percent, before=1e6 * BEFORE, after=1e6 * after)
    np.testing.assert_allclose(
        [scaled.recovered, scaled.distance, scaled.change], [found.recovered, found.distance, found.change], rtol=1e-12
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"finetuned": 0.5}, "from 0.5 to 0.5, no gain of which a share could be recovered"),
        ({"linearised": np.nan}, "scores are 0.5, 0.9 and nan; wanted finite numbers"),
        ({"after": BEFORE[:3]}, r"shapes \[4, 4\] and \[3, 4\]; wanted the same examples twice"),
        ({"before": BEFORE - np.diag(np.diag(BEFORE))}, "4 entries of the kernel before training are zero"),
    ],
)
def test_what_cannot_be_measured_is_said(changes, message):
    with pytest.raises(InputError, match=message):
        measure_kernel_behaviour(**SCORES | {"before": BEFORE, "after": BEFORE} | changes)
