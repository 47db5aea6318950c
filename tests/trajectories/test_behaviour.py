from typing import Any

import numpy as np
import pytest
from scipy import stats

from ntkft._errors import InputError
from ntkft.trajectories import perplexity_predicts, training_flops

SIZES = np.repeat(["125M", "1.3B", "6.7B"], 6)


def checkpoints(size_effect: float, noise: float, seed: int = 0):
    generator = np.random.default_rng(seed)
    perplexities = np.exp(generator.uniform(2, 5, SIZES.size))
    offset = size_effect * (SIZES == "6.7B")
    return perplexities, 0.9 - 0.12 * np.log(perplexities) + offset + noise * generator.standard_normal(SIZES.size)


def test_the_line_is_an_ordinary_regression():
    perplexities, scores = checkpoints(0.05, 0.05)
    found = perplexity_predicts(perplexities, scores, None)
    line: Any = stats.linregress(np.log(perplexities), scores)
    expected = [line.slope, line.intercept, line.rvalue**2]
    np.testing.assert_allclose([found.slope, found.intercept, found.r_squared], expected)
    rank: Any = stats.spearmanr(perplexities, scores)
    np.testing.assert_allclose(found.spearman, rank.statistic)
    assert found.sizes is None


def test_what_sizes_add_is_a_comparison_of_nested_models():
    perplexities, scores = checkpoints(0.05, 0.05)
    found = perplexity_predicts(perplexities, scores, SIZES).sizes
    assert found is not None
    # Within sizes: centring both removes the intercepts (Frisch-Waugh).
    x, y = np.log(perplexities), scores.copy()
    for size in np.unique(SIZES):
        x[size == SIZES] -= x[size == SIZES].mean()
        y[size == SIZES] -= y[size == SIZES].mean()
    left, total = np.sum((y - x * (x @ y) / (x @ x)) ** 2), np.sum((scores - scores.mean()) ** 2)
    plain = np.corrcoef(np.log(perplexities), scores)[0, 1] ** 2
    np.testing.assert_allclose([found.r_squared, found.extra], [1 - left / total, 1 - left / total - plain])
    ratio = ((1 - plain) * total - left) / 2 / (left / (SIZES.size - 4))
    np.testing.assert_allclose(found.p_value, stats.f.sf(ratio, 2, SIZES.size - 4), rtol=1e-9)


def test_sizes_without_an_effect_are_found_to_add_something_as_often_as_the_level_says():
    p_values = []
    for seed in range(1000):
        found = perplexity_predicts(*checkpoints(0.0, 0.05, seed), SIZES).sizes
        assert found is not None
        assert found.extra >= 0
        p_values.append(found.p_value)
    rate = np.mean(np.array(p_values) < 0.05)
    assert abs(rate - 0.05) < 5 * np.sqrt(0.05 * 0.95 / 1000)


def test_a_perfect_law_of_perplexity_leaves_nothing_and_one_of_size_does():
    same = perplexity_predicts(*checkpoints(0.0, 0.0), SIZES)
    np.testing.assert_allclose([same.slope, same.intercept, same.r_squared, same.spearman], [-0.12, 0.9, 1, -1])
    assert same.sizes is not None
    np.testing.assert_allclose(same.sizes.extra, 0, atol=1e-12)
    other = perplexity_predicts(*checkpoints(0.3, 0.0), SIZES).sizes
    assert other is not None
    assert other.sizes == 3
    np.testing.assert_allclose(other.r_squared, 1)
    assert other.extra > 0.1
    assert other.p_value < 1e-50


@pytest.mark.parametrize(
    ("perplexities", "scores", "sizes", "message"),
    [
        ([3, 2], [0.1, 0.2], None, "at least 3 checkpoints"),
        ([3, 2, 1], [0.1, 0.2], None, r"got shapes \[3\], \[2\]; wanted one perplexity, one score"),
        ([3, 2, 1], [0.1, 0.2, 0.3], ["a", "b"], r"got shapes \[3\], \[3\], \[2\]"),
        ([3, np.nan, 1], [0.1, 0.2, 0.3], None, "perplexities hold NaN or infinity"),
        ([3, 2, 1], [0.1, np.inf, 0.3], None, "scores hold NaN or infinity"),
        ([3, 0, 1], [0.1, 0.2, 0.3], None, "the smallest perplexity is 0; a perplexity is positive"),
        ([3, 3, 3], [0.1, 0.2, 0.3], None, "all perplexities are equal, so nothing is predicted"),
        ([3, 2, 1], [0.1, 0.1, 0.1], None, "all scores are equal"),
        ([3, 2, 1], [0.1, 0.2, 0.3], ["a"] * 3, "all checkpoints have one size; pass sizes=None"),
        ([3, 2, 1], [0.1, 0.2, 0.3], ["a", "a", "b"], "3 checkpoints of 2 sizes; .* take 4"),
        ([3, 3, 2, 2], [0.1, 0.2, 0.3, 0.2], list("aabb"), "perplexities are equal within every size"),
    ],
)
def test_what_predicts_nothing_is_refused(perplexities, scores, sizes, message):
    with pytest.raises(InputError, match=message):
        perplexity_predicts(perplexities, scores, sizes)


def test_flops_are_six_for_each_weight_and_token():
    assert training_flops(125e6, 1_000) == 7.5e11
    with pytest.raises(InputError, match="got 0 parameters and 10 tokens; wanted finite, positive counts"):
        training_flops(0, 10)
