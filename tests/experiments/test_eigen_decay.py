"""The study of eigenvalue decay: its statistics against independent ones, and the small setting."""

import itertools
import json
import math

import numpy as np
import pytest
import scipy.stats

from experiments.eigen_decay.measures import (
    Problem,
    alignment,
    learning_curve,
    permutation_p_value,
    rank_correlation,
    standard_errors,
)
from experiments.eigen_decay.run import main
from ntkft.kernels import Kernel, Plan
from ntkft.spectra import fit_decay, spectrum
from tests.minilm import needs_minilm
from tests.tolerances import CLOSED_FORM


def record(matrix):
    return Kernel(matrix, {}, "scalar", "float64", True, Plan("by hand", 1, 0, 1, len(matrix), 0))


def power_law(n, generator):
    """Kernel of n examples with 400 Gaussian features of standard deviation k^−0.8."""
    features = generator.standard_normal((n, 400)) * np.arange(1, 401)[None] ** -0.8
    return record(features @ features.T)


def spearman(x, y):
    return np.corrcoef(scipy.stats.rankdata(x), scipy.stats.rankdata(y))[0, 1]


@pytest.mark.parametrize("y", [[2, 1, 4, 3, 6, 5], [3, 1, 2, 1, 1, 3]], ids=["distinct", "ties"])
def test_the_p_value_is_the_share_of_all_pairings_that_correlate_as_strongly(y):
    x = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    pairings = np.array(list(itertools.permutations(y)))
    rho = np.array([spearman(x, pairing) for pairing in pairings])
    strong = np.mean(np.abs(rho) >= abs(spearman(x, y)) - CLOSED_FORM)
    assert permutation_p_value(x, np.array(y)) == pytest.approx(strong, abs=CLOSED_FORM)


def test_a_monotone_relation_has_correlation_one_and_the_smallest_p_value():
    x = np.random.default_rng(0).standard_normal(8)
    falling = rank_correlation(x, -np.exp(x), seed=0)
    assert falling["spearman"] == falling["low"] == falling["high"] == pytest.approx(-1, abs=CLOSED_FORM)
    assert falling["p"] == pytest.approx(2 / math.factorial(8), rel=CLOSED_FORM)


def test_the_interval_of_a_correlation_holds_it_and_is_reproduced_by_its_seed():
    generator = np.random.default_rng(1)
    x, noise = generator.standard_normal((2, 12))
    found, again = (rank_correlation(x, x + noise, seed=0) for _ in range(2))
    assert found["spearman"] == pytest.approx(spearman(x, x + noise), abs=CLOSED_FORM)
    assert found["low"] < found["spearman"] < found["high"]
    assert found == again


def test_the_jackknife_finds_the_scatter_of_beta_between_data_sets():
    n, divisor, data_sets, draws, generator = 48, 4, 200, 25, np.random.default_rng(0)
    rates, stated = [], []
    for index in range(data_sets):
        kernel = power_law(n, generator)
        whole = spectrum(kernel)
        rates.append(fit_decay(whole.eigenvalues, window=n // divisor).with_intercept.rate)
        if index < 40:
            stated.append(standard_errors(kernel, whole, [divisor], draws)["n/4"]["with_intercept"])
    # Five standard errors of the ratio: 1/√(2·200) of the scatter, 1/√(2·25·40) of the mean of the stated ones.
    assert np.mean(stated) / np.std(rates, ddof=1) == pytest.approx(1, abs=5 * np.hypot(1 / 20, 1 / 45))


def test_centred_alignment_is_that_of_centred_kernel_and_targets():
    n, generator = 10, np.random.default_rng(2)
    kernel = power_law(n, generator)
    y, f = np.sign(generator.standard_normal((2, n, 1)))
    problem = Problem(kernel, kernel, kernel, y=y, f=f / 10)
    centring = np.eye(n) - 1 / n
    found = alignment(problem, spectrum(kernel))
    for kind, matrix, target in (
        ("plain", kernel.total, y - f / 10),
        ("centred", centring @ kernel.total @ centring, centring @ y),
    ):
        expected = np.sum(matrix * (target @ target.T)) / np.linalg.norm(matrix) / np.sum(target**2)
        assert found[kind] == pytest.approx(expected, abs=CLOSED_FORM)


@pytest.mark.parametrize(("noise", "relative"), [(1e6, 1), (1e-6, 0)], ids=["nothing shared", "a line"])
def test_predicted_risk_falls_as_far_as_the_kernel_shares_what_is_learnt(noise, relative):
    """Kernel xx′ + noise·1(x = x′) with targets x: all of the risk stays, or none."""
    n, x = 12, np.random.default_rng(3).standard_normal((20, 1))
    matrix = x @ x.T + noise * np.eye(20)
    train, cross, test = (record(block) for block in (matrix[:n, :n], matrix[n:, :n], matrix[n:, n:]))
    problem = Problem(train, cross, test, y=x, f=np.zeros_like(x))
    found = learning_curve(problem, spectrum(problem.train), sizes=[6, n], splits=4, last_epoch=64)
    assert found["relative"] == pytest.approx(relative, abs=1e-4)  # 2·‖x‖²/1e6 is learnt after all
    assert found["initial"] > found["lowest"][1]


@needs_minilm
def test_two_small_tasks_are_measured_and_drawn(tmp_path):
    results = main(["--smoke", "--out", str(tmp_path)])
    record = json.loads((tmp_path / "results.json").read_text())
    assert record["results"] == results
    for measured in record["records"].values():
        groups = measured["groups"].values()
        assert sum(group["share"] for group in groups) == pytest.approx(1, abs=1e-5)  # sums of float32 kernels
    assert all((tmp_path / f"{name}.png").is_file() for name in ("spectra", "decay", "risk"))
