import numpy as np
import pytest

from ntkft import plots
from ntkft.spectra import DecayInterval, Spectrum, decay_interval, fit_decay, spectrum_of_matrix, target_alignment
from tests.plots.drawn import (
    assert_legend_names_every_series,
    assert_nothing_is_cut_off_or_overlaps,
    legend,
    legend_title,
    line,
)
from tests.spectra.matrices import prescribed

N, WINDOW = 30, (2, 12)


@pytest.fixture(scope="module")
def spectrum() -> Spectrum:
    """Eigenvalues k^(−1.5), the last three zero, in two groups of which one has rank 5, and an unused third."""
    values = np.arange(1.0, N + 1) ** -1.5 * (np.arange(N) < N - 3)
    whole = spectrum_of_matrix(prescribed(values, seed=0), precision="float64")
    groups = {
        "mlp": 0.25 * whole.eigenvalues,
        "embedding": np.where(np.arange(N) < 5, 0.75 * whole.eigenvalues, 0.0),
        "head": np.zeros(N),
    }
    return Spectrum(whole.eigenvalues, whole.eigenvectors, whole.floor, N, groups)


@pytest.fixture(scope="module")
def interval() -> DecayInterval:
    kernel = prescribed(np.arange(1.0, N + 1) ** -1.5, seed=0)
    return decay_interval(kernel, window=WINDOW, size=15, precision="float64", draws=10, level=0.9, seed=0)


def test_the_decay_figure_shows_the_eigenvalues_above_the_floor_and_the_fits_over_their_window(spectrum, interval):
    fit = fit_decay(spectrum.eigenvalues, window=WINDOW, floor=spectrum.floor)
    figure = plots.eigenvalue_decay(spectrum, fit, interval)
    (axes,) = figure.axes
    np.testing.assert_array_equal(
        line(axes, "eigenvalues (n = 30)"), [np.arange(1, N - 2), spectrum.eigenvalues[: N - 3]]
    )
    k = np.arange(2, 13)
    for label, fitted in (
        ("k$^{−2β}$, β", fit.with_intercept),
        ("k$^{−2β}$ through λ̂₁", fit.through_origin),
        ("exponential", fit.exponential),
    ):
        np.testing.assert_array_equal(line(axes, label), [k, fitted.at(k)])
    np.testing.assert_array_equal(line(axes, "numerical floor")[1], 2 * [spectrum.floor])
    low, high = interval.with_intercept
    assert_legend_names_every_series(
        figure,
        [
            "eigenvalues (n = 30)",
            "fitted window, k = 2 … 12",
            f"k$^{{−2β}}$, β = {fit.with_intercept.rate:.2f} ({low:.2f}–{high:.2f} over subsamples of 15)",
            f"k$^{{−2β}}$ through λ̂₁, β = {fit.through_origin.rate:.2f}",
            f"exponential, rate {fit.exponential.rate:.3f}",
            "numerical floor",
        ],
    )
    assert_nothing_is_cut_off_or_overlaps(figure)


def test_the_decay_figure_needs_no_interval(spectrum):
    fit = fit_decay(spectrum.eigenvalues, window=WINDOW, floor=spectrum.floor)
    assert f"k$^{{−2β}}$, β = {fit.with_intercept.rate:.2f}" in legend(plots.eigenvalue_decay(spectrum, fit, None))


def test_the_group_figure_shows_every_group_that_has_a_kernel_largest_first(spectrum):
    figure = plots.group_spectra(spectrum)
    (axes,) = figure.axes
    share = 0.75 * spectrum.eigenvalues[:5].sum() / spectrum.eigenvalues.sum()
    assert legend(figure) == ["all parameters", f"embedding ({share:.1%})", "mlp (25.0%)"]
    assert_legend_names_every_series(figure, legend(figure))
    for label, values in (("all parameters", spectrum.eigenvalues), *spectrum.groups.items()):
        if label == "head":
            continue  # a kernel of zeros has no place on a log axis
        index, drawn = line(axes, label)
        np.testing.assert_array_equal(index, np.arange(1, N + 1))
        np.testing.assert_array_equal(drawn, np.where(values > spectrum.floor, values, np.nan))
    assert_nothing_is_cut_off_or_overlaps(figure)


def test_the_alignment_figure_shows_the_cumulative_energy_from_zero(spectrum):
    alignment = target_alignment(spectrum, np.random.default_rng(0).standard_normal(N))
    figure = plots.target_alignment(alignment)
    (axes,) = figure.axes
    np.testing.assert_allclose(line(axes, "this task")[0], np.arange(N + 1) / N, rtol=1e-15)
    np.testing.assert_array_equal(line(axes, "this task")[1], [0, *alignment.cumulative])
    np.testing.assert_array_equal(line(axes, "no alignment"), [[0, 1], [0, 1]])
    assert_legend_names_every_series(figure, ["this task", "no alignment"])
    assert legend_title(axes) == f"kernel–target alignment {alignment.kernel_target:.3f}"
