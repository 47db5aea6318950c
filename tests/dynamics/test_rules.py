import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft.dynamics import (
    estimate_noise,
    gcv,
    gradient_descent,
    krr_stopping,
    rule_intervals,
    spectral_rules,
    stopping_time,
    sure,
)
from ntkft.spectra import spectrum_of_matrix
from tests.spectra.matrices import full_kernel, min_kernel, tent

N, STEP, LAST = 100, 0.25, 800
SPECTRUM = spectrum_of_matrix(min_kernel(N), precision="float64")
OPTIONS = {"step_size": STEP, "epochs": LAST}
SCALE_FREE = ("rule, C_H plug-in", "rule, C_H less noise", "kernel ridge rule", "SURE", "GCV")


def residual(sigma, seed=0):
    return tent(N) + sigma * np.random.default_rng(seed).standard_normal(N)


def test_every_rule_is_the_function_of_its_name_given_the_plug_ins():
    r, descent, steps = residual(0.1), gradient_descent(STEP), np.arange(LAST + 1)
    found = spectral_rules(SPECTRUM, r, **OPTIONS)
    best = gcv(SPECTRUM, r, descent, steps).best
    assert found.epochs["GCV"] == best
    assert found.sigma == estimate_noise(SPECTRUM, r, descent, best)
    assert 0.08 < found.sigma < 0.12
    values = SPECTRUM.eigenvalues
    assert found.epochs["rule, unit norm"] == stopping_time(values, found.sigma, STEP)
    assert found.epochs["rule, C_H plug-in"] == stopping_time(values, found.sigma, STEP, found.norm.plug_in)
    assert found.epochs["rule, C_H less noise"] == stopping_time(values, found.sigma, STEP, found.norm.corrected)
    assert found.epochs["kernel ridge rule"] == krr_stopping(values, found.sigma, found.norm.plug_in) / STEP
    assert found.epochs["SURE"] == sure(SPECTRUM, r, found.sigma, descent, steps).best


def test_rules_that_estimate_the_norm_do_not_see_the_unit_of_the_targets():
    one, ten = (spectral_rules(SPECTRUM, scale * residual(0.3), **OPTIONS) for scale in (1, 10))
    np.testing.assert_allclose(ten.sigma, 10 * one.sigma, rtol=1e-12)
    assert [ten.epochs[name] for name in SCALE_FREE] == pytest.approx([one.epochs[name] for name in SCALE_FREE])
    assert ten.epochs["rule, unit norm"] < one.epochs["rule, unit norm"]


def test_intervals_are_as_wide_as_the_spread_over_real_noise():
    """Against the distribution that the bootstrap imitates: 200 draws of the true noise around the true target."""
    real = [spectral_rules(SPECTRUM, residual(0.3, seed), **OPTIONS).epochs for seed in range(200)]
    found = rule_intervals(SPECTRUM, residual(0.3, 1000), draws=200, level=0.9, seed=0, **OPTIONS)
    assert set(found) == set(real[0])
    for name in ("rule, unit norm", "rule, C_H plug-in", "kernel ridge rule"):
        low, high = np.quantile([draw[name] for draw in real], [0.05, 0.95])
        assert 0.4 < (found[name][1] - found[name][0]) / (high - low) < 2.5, name
        assert found[name][0] <= high, name
        assert low <= found[name][1], name


def test_intervals_nest_in_their_level():
    wide, narrow = (
        rule_intervals(SPECTRUM, residual(0.3), draws=40, level=level, seed=0, **OPTIONS) for level in (0.9, 0.5)
    )
    assert all(wide[name][0] <= narrow[name][0] <= narrow[name][1] <= wide[name][1] for name in wide)


def test_a_full_kernel_and_several_outputs_are_taken():
    k = 2
    train, _ = full_kernel(20, 1, k, seed=1)
    spectral = spectrum_of_matrix(train, precision="float64")
    targets = np.random.default_rng(0).standard_normal((20, k))
    step = 1 / spectral.eigenvalues[0]
    found = rule_intervals(spectral, targets, step_size=step, epochs=50, draws=5, level=0.9, seed=0)
    assert all(0 <= low <= high for low, high in found.values())


def test_bad_requests_are_refused():
    with pytest.raises(InputError, match="draws is 1; wanted at least 2"):
        rule_intervals(SPECTRUM, residual(0.1), draws=1, level=0.9, seed=0, **OPTIONS)
    with pytest.raises(InputError, match="level is 90; wanted a share between 0 and 1"):
        rule_intervals(SPECTRUM, residual(0.1), draws=9, level=90, seed=0, **OPTIONS)
