"""The demo's page: what was asked, what the kernel says, what really happened, in the order of the argument."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ntkft.finetuning import FinetuneResult
from ntkft.report.page import Section, Table, page
from ntkft.report.prediction import Prediction


def demo_page(record: Mapping[str, Any], prediction: Prediction, result: FinetuneResult, folder: Path) -> str:
    """HTML of the report; `folder` holds the figures as PNG files."""
    return page(
        "What the kernel says about fine-tuning, and what really happened",
        f"{record['model']}, {record['readout']}. {record['task']}. {record['tokens']}.",
        [
            _learning(record, prediction, result, folder),
            _stopping(prediction, folder),
            _surface(prediction, folder),
            _decay(prediction, folder),
            _groups(prediction, folder),
            _alignment(prediction, folder),
        ],
    )


def _learning(record, prediction, result, folder):
    real, drift = result.curves["test"], dict(zip(result.kernel_epochs, result.kernel_drift, strict=True))
    largest = prediction.description.spectrum.eigenvalues[0]
    parted = record["comparison"]["parting"]
    sentences = [
        f"Full-batch gradient descent, step size {prediction.step_size:.4g} = {prediction.step_size * largest:.3g}/λ̂₁. "
        "Lines are computed from the kernel at the pretrained parameters alone, before any training; points are the "
        "real thing."
    ]
    for tolerance, epoch in parted.items():
        if epoch is None:
            sentences.append(f"Predicted and real test error agree within {tolerance} at every recorded epoch.")
        else:
            sentences.append(
                f"They first differ by more than {tolerance} at epoch {epoch}, where the kernel has moved by "
                f"{drift.get(epoch, float('nan')):.0%} of its norm."
            )
    sentences.append(
        f"The real test error is lowest at epoch {real.epochs[np.argmin(real.mse)]}. At the end, the model linearised "
        f"at its pretrained parameters has test error {record['linearized_test_mse_at_the_end']:.4f} at the trained "
        f"ones, the real model {real.mse[-1]:.4f}: what linearisation misses of the path taken."
    )
    table = Table(
        ("epoch", "predicted test error", "real test error", "real accuracy", "kernel drift", "‖θ − θ₀‖/‖θ₀‖"),
        tuple(
            (
                str(epoch), f"{prediction.mse['test'][i]:.4f}", f"{real.mse[i]:.4f}",
                "" if real.accuracy is None else f"{real.accuracy[i]:.1%}",
                f"{drift.get(epoch, float('nan')):.1%}", f"{result.parameter_drift[i]:.2e}",
            )
            for i, epoch in enumerate(result.epochs)
        ),
    )  # fmt: skip
    return Section(
        "Learning curve", tuple(sentences), folder / "learning_curve.png", table, "Mean squared error over epochs"
    )


def _stopping(prediction, folder):
    by_epoch = np.asarray(prediction.surface.test_mse)[:, -1].mean(axis=0)
    rows = []
    for name, stop in prediction.stops.items():
        inside = np.isfinite(stop) and stop < len(by_epoch)
        spread = "{:.0f} to {:.0f}".format(*prediction.intervals[name]) if name in prediction.intervals else ""
        rows.append((name, f"{stop:.0f}", spread, f"{by_epoch[round(stop)]:.4f}" if inside else "beyond the horizon"))
    text = (
        f"Rules were given σ = {prediction.sigma:.3f} (estimated from the residual) and C_H = "
        f"{prediction.norm.plug_in:.3f} (plug-in). The rules of Raskutti, Wainwright & Yu are conservative: their "
        "constants are chosen for a proof, and they typically stop 2–10 times too early.",
    )
    return Section(
        "When to stop, and risk against sample size", text, folder / "risk_over_n.png",
        Table(("rule", "epoch", "90 %, noise redrawn", "predicted test error there"), tuple(rows)),
        "Test error over training examples",
    )  # fmt: skip


def _surface(prediction, folder):
    text = (
        "Fewer examples, from the same kernel: each curve is the mean over random subsets of the training examples, "
        "the band their range, the star the lowest risk.",
    )
    return Section(
        "Risk over epochs and sample size", text, folder / "risk_over_epochs.png", None, "Test error over epochs, by n"
    )


def _decay(prediction, folder):
    described = prediction.description
    fit, interval, found = described.fit, described.interval, described.spectrum
    rows = tuple(
        (str(size), f"{np.mean(slopes):.3f}", f"{np.mean(through):.3f}")
        for size, slopes, through in zip(
            described.over_n.sizes, described.over_n.with_intercept, described.over_n.through_origin, strict=True
        )
    )
    text = (
        f"{found.count_above_floor} of {len(found.eigenvalues)} eigenvalues are above the numerical floor "
        f"{found.floor:.2g}; the effective rank (participation ratio) is {described.effective_rank:.1f}.",
        f"Over eigenvalues {fit.window[0]} to {fit.window[1]} the decay exponent is β = {fit.with_intercept.rate:.3f} "
        f"with an intercept ({interval.with_intercept[0]:.3f} to {interval.with_intercept[1]:.3f} in "
        f"{interval.level:.0%} of subsamples of {interval.size}) and {fit.through_origin.rate:.3f} through the first "
        f"eigenvalue. The {fit.preferred} form is preferred (ΔAIC {fit.aic_difference:+.1f}). Both fits depend on n:",
    )
    table = Table(("examples", "β, with intercept", "β, through λ̂₁"), rows)
    return Section("Eigenvalue decay", text, folder / "decay.png", table, "Eigenvalues over their index")


def _groups(prediction, folder):
    found = prediction.description.spectrum
    total = found.eigenvalues.sum()
    ranked = sorted(found.groups.items(), key=lambda item: -item[1].sum())
    rows = tuple((name, f"{values.sum() / total:.2%}", f"{values[0]:.4g}") for name, values in ranked)
    text = ("The kernel is a sum over parameter groups, each with a spectrum of its own.",)
    table = Table(("group", "share of the trace", "largest eigenvalue"), rows)
    return Section("Parameter groups", text, folder / "groups.png", table, "Spectra of parameter groups")


def _alignment(prediction, folder):
    half = int(np.searchsorted(prediction.alignment.cumulative, 0.5)) + 1
    text = (
        f"Half of the residual's energy lies on the leading {half} of {len(prediction.alignment.energy)} eigenvectors: "
        "what lies on leading eigenvectors is learnt first.",
    )
    return Section("Target alignment", text, folder / "alignment.png", None, "Cumulative energy over eigenvectors")
