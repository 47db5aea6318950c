import math

import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft.dynamics import drift_stopping, holdout_stopping, krr_stopping, stopping_time
from ntkft.spectra import critical_radius, local_rademacher, spectrum_of_matrix
from tests.spectra.matrices import full_kernel, min_kernel

MIN_100 = spectrum_of_matrix(min_kernel(100), precision="float64").eigenvalues
SPECTRA = {
    "min kernel": MIN_100,
    "power law": np.arange(1, 201.0) ** -1.5,
    "finite rank": np.concatenate([[3.0, 2.0, 2.0], np.zeros(17)]) / 3,
    "flat": np.full(30, 0.2),
}


def first_firing(eigenvalues, sigma, step_size, norm, most=5000):
    """The rule as it is written, epoch by epoch."""
    for t in range(1, most):
        eta = step_size * t
        if np.sqrt(np.mean(np.minimum(eigenvalues, 1 / eta))) > norm / (2 * np.e * sigma * eta):
            return t - 1
    raise AssertionError("not within the epochs tried")


@pytest.mark.parametrize(("sigma", "step_size", "expected"), [(0.1, 0.25, 260), (0.1, 1, 65), (1, 0.25, 10), (1, 1, 2)])
def test_stopping_times_of_the_min_kernel(sigma, step_size, expected):
    assert stopping_time(MIN_100, sigma, step_size) == expected


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("sigma", [0.1, 0.3, 2])
@pytest.mark.parametrize("norm", [0.3, 1, 2.5])
@pytest.mark.parametrize("step_size", [0.1, 0.77])
def test_stopping_time_is_the_rule_run_epoch_by_epoch(name, sigma, norm, step_size):
    expected = first_firing(SPECTRA[name], sigma, step_size, norm)
    assert stopping_time(SPECTRA[name], sigma, step_size, norm) == expected


@pytest.mark.parametrize("root", [1, 2, 3, 5, 8, 11, 30])
@pytest.mark.parametrize("nudge", [1 - 1e-12, 1 + 1e-12])
def test_the_definition_decides_next_to_equality(root, nudge):
    # One eigenvalue λ̂ = 1, η ≥ 1: R̂(1/√η) = 1/√η, so equality is at η = (C/2eσ)², here a hair from a whole epoch.
    norm = 2 * math.e * 0.1 * root * nudge
    assert stopping_time(np.array([1.0]), 0.1, 1.0, norm) == root**2 - (nudge < 1)
    assert stopping_time(np.array([1.0]), 0.1, 1.0, norm) == first_firing(np.array([1.0]), 0.1, 1.0, norm)


def test_stopping_time_is_the_inverse_critical_radius():
    for sigma in (0.01, 0.1, 1):
        expected = math.floor(1 / (0.25 * critical_radius(MIN_100, sigma, 3) ** 2))
        assert stopping_time(MIN_100, sigma, 0.25, 3) == expected


def test_norm_is_linear_so_units_of_targets_and_kernel_do_not_matter():
    base = stopping_time(MIN_100, 0.2, 0.5, 1.3)
    assert stopping_time(MIN_100, 10 * 0.2, 0.5, 10 * 1.3) == base  # targets in other units
    assert stopping_time(4 * MIN_100, 0.2, 0.5 / 4, 1.3 / 2) == base  # kernel in other units


def test_independent_outputs_stop_where_one_output_does_at_the_root_mean_square_norm():
    kernel, _ = full_kernel(10, 1, 1, seed=0)
    one = spectrum_of_matrix(kernel, precision="float64").eigenvalues
    three = np.sort(np.repeat(one, 3))[::-1]  # of 𝕂 ⊗ I₃
    assert stopping_time(three, 0.1, 0.2, 0.7) == stopping_time(one, 0.1, 0.2, 0.7)


def test_more_noise_never_stops_later_and_a_larger_target_never_earlier():
    sigmas, norms = np.geomspace(0.02, 5, 40), np.geomspace(0.02, 5, 40)
    assert np.all(np.diff([stopping_time(MIN_100, sigma, 0.5) for sigma in sigmas]) <= 0)
    assert np.all(np.diff([stopping_time(MIN_100, 0.3, 0.5, norm) for norm in norms]) >= 0)


def test_without_noise_or_kernel_training_never_stops_and_without_target_it_never_starts():
    assert stopping_time(MIN_100, 0, 0.5) == math.inf
    assert stopping_time(MIN_100, 1e-20, 0.5) == math.inf
    assert stopping_time(np.zeros(4), 1, 0.5) == math.inf
    assert stopping_time(MIN_100, 1, 0.5, norm=0) == 0
    assert stopping_time(MIN_100, 1e6, 0.5) == 0


def test_very_late_stopping_times_are_whole_numbers():
    late = stopping_time(MIN_100, 1e-6, 0.25)
    assert isinstance(late, int)
    fires = [
        local_rademacher(MIN_100, 1 / np.sqrt(0.25 * t)) > 1 / (2 * np.e * 1e-6 * 0.25 * t) for t in (late, late + 1)
    ]
    assert fires == [False, True]


@pytest.mark.parametrize(("sigma", "norm"), [(0.1, 1), (1, 1), (0.4, 3)])
def test_krr_rule_is_the_smallest_inverse_penalty_that_fires(sigma, norm):
    nu = krr_stopping(MIN_100, sigma, norm)
    np.testing.assert_allclose(local_rademacher(MIN_100, 1 / np.sqrt(nu)), norm / (4 * sigma * nu), rtol=1e-11)
    before = nu * np.linspace(0.01, 0.999, 100)
    assert np.all(local_rademacher(MIN_100, 1 / np.sqrt(before)) < norm / (4 * sigma * before))
    assert krr_stopping(MIN_100, 0) == math.inf


def test_holdout_keeps_the_best_epoch_before_patience_runs_out():
    losses = np.array([5, 4, 4, 3, 3.5, 3.2, 3.1, 1])
    stop = holdout_stopping(losses, 3)
    assert (stop.best, stop.stopped, stop.patience_ran_out) == (3, 6, True)
    stop = holdout_stopping(losses, 4)
    assert (stop.best, stop.stopped, stop.patience_ran_out) == (7, 7, False)
    assert holdout_stopping(np.array([2.0, 2.0, 2.0]), 2).best == 0  # an equal loss is no progress
    assert holdout_stopping(np.array([np.inf, 1.0]), 1).best == 1


@pytest.mark.parametrize("patience", [1, 2, 5, 17])
def test_holdout_is_the_obvious_loop(patience):
    losses = np.cumsum(np.random.default_rng(patience).standard_normal(200)) + np.linspace(3, 0, 200) ** 2
    best = epoch = 0
    for epoch, loss in enumerate(losses):
        if loss < losses[best]:
            best = epoch
        if epoch - best >= patience:
            break
    stop = holdout_stopping(losses, patience)
    assert (stop.best, stop.stopped) == (best, epoch)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: stopping_time(MIN_100, 1, 5),
            r"stopping_time: step size 5 is at or above the stability limit 2/λ̂₁ = 4\.886",
        ),
        (lambda: stopping_time(MIN_100, 1, 0), r"stopping_time: step size is 0; wanted a finite number above zero"),
        (lambda: stopping_time(MIN_100, -1, 0.5), r"stopping_time: sigma is -1; wanted a finite number"),
        (lambda: stopping_time(MIN_100, 1, 0.5, math.nan), r"stopping_time: norm is nan; wanted a finite number"),
        (lambda: stopping_time(np.array([1, -1.0]), 1, 0.5), r"stopping_time: eigenvalue -1 is clearly negative"),
        (lambda: krr_stopping(MIN_100, -1), r"krr_stopping: sigma is -1"),
        (lambda: holdout_stopping(np.ones(3), 0), r"patience is 0; wanted at least 1"),
        (lambda: holdout_stopping(np.array([]), 1), r"got 0 losses, 0 of them NaN; wanted at least one"),
        (lambda: holdout_stopping(np.array([1, np.nan]), 1), r"got 2 losses, 1 of them NaN.*cut the list"),
    ],
)
def test_unusable_input_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_the_operational_time_weighs_bias_against_drift():
    epochs, drift = np.arange(200), 1e-3 * np.arange(200)
    best = np.sqrt(2.0 / (0.5 * 1e-3))  # of C/(εt) + 10⁻³ t with C = 2, ε = ½
    found = drift_stopping(epochs, drift, step_size=0.5, constant=2.0, last=math.inf)
    assert abs(found - best) <= 1
    assert drift_stopping(epochs, drift, step_size=0.5, constant=2.0, last=30) == 30
    assert drift_stopping(epochs, 0 * drift, step_size=0.5, constant=2.0, last=math.inf) == 199
    shrinking = np.where(epochs > 50, 0.0, 10.0 * (epochs > 20))  # a drift that comes back has happened all the same
    assert drift_stopping(epochs, shrinking, step_size=0.5, constant=2.0, last=math.inf) == 20
    for values, last in ((drift[1:], 9), (np.full(200, np.nan), 9), (drift, 0)):
        with pytest.raises(InputError, match="wanted one finite number for each and at least one epoch"):
            drift_stopping(epochs, values, step_size=0.5, constant=2.0, last=last)
