"""`ntkft spectrum`: eigenvalues, per group, decay fits with intervals, the numerical floor."""

from pathlib import Path

from ntkft import plots
from ntkft._errors import InputError
from ntkft.cli.console import emit, say, table
from ntkft.kernels import read_kernel
from ntkft.report.prediction import Description, block, describe
from ntkft.report.record import description_record, to_json
from ntkft.spectra import Line


def spectrum(
    kernel: Path, *, n: int | None = None, window: int | None = None, out: Path | None = None, json: bool = False
) -> None:
    """Spectrum of a stored kernel.

    Args:
        kernel: a finished store of `ntkft kernel`.
        n: use the first n examples (the training set of the run that stored it); all of them when not given.
        window: last eigenvalue of the decay fits; a quarter of n, at most 100, when not given.
        out: folder for spectrum.json, decay.png and groups.png.
        json: print the result as JSON.
    """
    stored = read_kernel(kernel)
    count = stored.total.shape[0] if n is None else n
    if not 1 <= count <= stored.total.shape[0]:
        raise InputError(f"--n: got {n}; {kernel} holds {stored.total.shape[0]} examples")
    description = describe(block(stored, slice(0, count), slice(0, count)), window=window)
    record = description_record(description)
    if out is not None:
        about = f"{kernel.name}, n = {count}"
        decay = plots.eigenvalue_decay(description.spectrum, description.fit, description.interval)
        plots.save(plots.about(decay, about), out / "decay.png")
        plots.save(plots.about(plots.group_spectra(description.spectrum), about), out / "groups.png")
        (out / "spectrum.json").write_text(to_json(record))
        say(f"wrote {out}/spectrum.json, decay.png, groups.png")
    emit(record, as_json=json, tables=spectrum_tables(description))


def spectrum_tables(description: Description) -> list:
    """Leading eigenvalues with the groups' share, and the fits."""
    found = description.spectrum
    total = found.eigenvalues.sum()
    groups = sorted(found.groups.items(), key=lambda item: -item[1].sum())
    fit, (low, high) = description.fit, description.interval.with_intercept
    spread = f"{low:.3f}–{high:.3f} (n = {description.interval.size})"
    return [
        table(
            f"spectrum of {found.n} examples: {found.count_above_floor} of {len(found.eigenvalues)} eigenvalues above "
            f"the floor {found.floor:.2g}, effective rank {description.effective_rank:.1f}",
            ("group", "largest eigenvalue", "share of trace"),
            [("all", f"{found.eigenvalues[0]:.4g}", "100 %")]
            + [(name, f"{values[0]:.4g}", f"{values.sum() / total:.2%}") for name, values in groups],
        ),
        table(
            f"decay over eigenvalues {fit.window[0]}–{fit.window[1]} "
            f"({fit.preferred} preferred, ΔAIC {fit.aic_difference:+.1f})",
            ("form", "rate", "R²", "90 % over subsamples"),
            [
                _fit_row("k^(−2β), with intercept", "β", fit.with_intercept, spread),
                _fit_row("k^(−2β), through λ̂₁", "β", fit.through_origin, ""),
                _fit_row("exponential", "c", fit.exponential, ""),
            ],
        ),
    ]


def _fit_row(form: str, symbol: str, line: Line, spread: str) -> tuple[str, str, str, str]:
    return form, f"{symbol} = {line.rate:.4f}", f"{line.r_squared:.3f}", spread
