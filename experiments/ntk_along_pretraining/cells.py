"""One cell, a checkpoint on a task: its kernel, and what is read off it.

Every example has a part of its gradient in common with all others. Its direction is the kernel's first, soon holds
nearly all of the trace, and says nothing of how examples differ: a decay fitted from it on is that of one outlier. So
shape, alignment and distances are those of the centred kernel HKH, H = I − 11ᵀ/n; training is driven by the kernel as
it is.
"""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from experiments.ntk_along_pretraining.setting import GROUPS_SHOWN, HEAD, Setting
from experiments.pretrain.checkpoints import Checkpoint
from experiments.pretrain.kernels import training_columns
from experiments.pretrain.tasks import Rows
from ntkft.batched import compile_outputs
from ntkft.dynamics import accuracy, dual_coefficients, gradient_descent, outputs_at
from ntkft.models import load
from ntkft.spectra import (
    decay_interval,
    effective_dimension,
    fit_decay,
    participation_ratio,
    spectrum_of_matrix,
    target_alignment,
)

MEMORY = "2GB"
BATCH = 32
DRAWS, LEVEL = 50, 0.9


def cell(checkpoint: Checkpoint, rows: Rows, setting: Setting, kernels: Path) -> dict[str, Any]:
    """The record of a checkpoint on a task; writes its kernels, `[2, N, n]`: of all parameters, and of the head alone.

    shares: of each parameter group in the trace over the training examples
    all:    `shape`, `alignment` and `predicted` of the kernel of all parameters
    head:   `alignment` and `predicted` of that of the head alone: features are frozen, training is a linear probe

    Rows are all N examples and columns the n of training, which come first: no measure needs the other columns.
    """
    model = load(checkpoint.path, readout=rows.readout)
    pretrained = np.asarray(compile_outputs(model.apply_fn, BATCH)(model.params, rows.inputs), np.float64)
    train, k = rows.where("train"), rows.y.shape[1]
    others = slice(train.stop, len(rows.y))
    kernel, _ = training_columns(model, rows, others, groups=GROUPS_SHOWN, memory=MEMORY)
    both = np.stack([kernel.total, kernel.groups[HEAD]])
    both /= k  # a trace is a sum over outputs
    kernels.parent.mkdir(parents=True, exist_ok=True)
    np.save(kernels, both)
    traces = {name: float(np.trace(group[train])) for name, group in kernel.groups.items()}
    return {
        "size": checkpoint.size,
        "parameters": checkpoint.parameters,
        "step": checkpoint.step,
        "loss": checkpoint.loss,
        "perplexity": checkpoint.perplexity,
        "shares": {name: trace / sum(traces.values()) for name, trace in traces.items()},
        "all": shape(both[0][train], setting, kernel.precision)
        | alignment(both[0], rows, setting, kernel.precision)
        | predicted(both[0], rows, pretrained, setting, kernel.precision),
        "head": alignment(both[1], rows, setting, kernel.precision)
        | predicted(both[1], rows, pretrained, setting, kernel.precision),
    }


def shape(kernel: Float[np.ndarray, "n n"], setting: Setting, precision: str) -> dict[str, Any]:
    """Spectrum of K = 𝕂/n over the training examples; the rest is of the eigenvalues μ of HKH.

    eigenvalues, trace:  λ̂, descending, and their sum; `above_floor`: how many are more than rounding
    common:              1 − tr HKH/tr K, the share of what all examples have in common
    decay:               β of μₖ ∝ k^(−2β) with an intercept, k = 1 … window; `decay_interval`: over subsamples of half
                         the examples; `decay_r_squared`: of the line
    participation_ratio: (Σμ)²/Σμ²
    effective_dimension: Σ μ/(μ + ν) at ν = the mean of μ, so that scale does not matter
    """
    n = len(kernel)
    spectral = spectrum_of_matrix(kernel, precision=precision).check()
    middle = centred(kernel)
    values = np.maximum(spectrum_of_matrix(middle, precision=precision).eigenvalues, 0)
    # Rounding is that of the kernel that was computed, not of the smaller one that centring leaves.
    fit = fit_decay(values, window=setting.window, floor=spectral.floor).with_intercept
    interval = decay_interval(
        middle, window=setting.window, size=n // 2, precision=precision, draws=DRAWS, level=LEVEL, seed=0
    )
    return {
        "eigenvalues": spectral.eigenvalues.tolist(),
        "trace": float(np.trace(kernel, dtype=np.float64)) / n,
        "above_floor": spectral.count_above_floor,
        "common": 1 - float(np.trace(middle) / np.trace(kernel, dtype=np.float64)),
        "decay": fit.rate,
        "decay_interval": list(interval.with_intercept),
        "decay_r_squared": fit.r_squared,
        "participation_ratio": participation_ratio(values),
        "effective_dimension": effective_dimension(values, values.mean()),
    }


def alignment(kernel: Float[np.ndarray, "N n"], rows: Rows, setting: Setting, precision: str) -> dict[str, float]:
    """Where the centred training targets lie in HKH.

    alignment:   ⟨HKH, yyᵀ⟩/(‖HKH‖ ‖Hy‖²) (Cortes, Mohri & Rostamizadeh 2012; for one output, theirs)
    over_chance: that over its mean for targets drawn at random, whatever the spectrum: yᵀHKHy/‖Hy‖² over tr HKH/(n − 1)
    leading:     share of the targets' energy in the leading eigenvectors
    """
    train = rows.where("train")
    y = rows.y[train]
    middle = spectrum_of_matrix(centred(kernel[train]), precision=precision)
    found = target_alignment(middle, y - y.mean(axis=0))
    values = middle.eigenvalues
    return {
        "alignment": found.kernel_target,
        "over_chance": float(values @ found.energy * (len(y) - 1) / values.sum()),
        "leading": float(found.cumulative[setting.leading - 1]),
    }


def predicted(
    kernel: Float[np.ndarray, "N n"],
    rows: Rows,
    pretrained: Float[np.ndarray, "N k"],
    setting: Setting,
    precision: str,
) -> dict[str, Any]:
    """Gradient descent on the squared loss from the pretrained outputs, in closed form.

    curve:         predicted test squared error by epoch, in units of that of predicting the training targets' mean
    epoch:         the best one on the validation set; `risk`: the curve there; `accuracy`: of the test set there
    mean_accuracy: of predicting the mean
    """
    train = rows.where("train")
    spectral = spectrum_of_matrix(kernel[train], precision=precision)
    descent = gradient_descent(setting.step / spectral.eigenvalues[0])
    dual = dual_coefficients(spectral, (rows.y - pretrained)[train], descent, setting.epochs)
    outputs = {
        name: outputs_at(kernel[rows.where(name)], dual, pretrained[rows.where(name)])
        for name in ("validation", "test")
    }
    errors = {
        name: np.mean(np.sum((found - rows.y[rows.where(name)][None]) ** 2, axis=2), axis=1)
        for name, found in outputs.items()
    }
    y_test = rows.y[rows.where("test")]
    mean = np.broadcast_to(rows.y[train].mean(axis=0), y_test.shape)
    curve = errors["test"] / np.mean(np.sum((y_test - mean) ** 2, axis=1))
    best = int(np.argmin(errors["validation"]))
    right, right_of_mean = accuracy(outputs["test"], y_test), accuracy(mean, y_test)
    assert right is not None
    assert right_of_mean is not None
    return {
        "curve": curve.tolist(),
        "epoch": setting.epochs[best],
        "risk": float(curve[best]),
        "accuracy": float(right[best]),
        "mean_accuracy": float(right_of_mean),
    }


def centred(kernel: Float[np.ndarray, "N n"]) -> Float[np.ndarray, "N n"]:
    """HKH: the kernel of gradients minus their mean, of rows and of columns."""
    exact = np.asarray(kernel, np.float64)
    return exact - exact.mean(axis=0) - exact.mean(axis=1, keepdims=True) + exact.mean()


def kernel_distance(first: Float[np.ndarray, "N n"], second: Float[np.ndarray, "N n"]) -> float:
    """1 − ⟨HKH, HK′H⟩/(‖HKH‖ ‖HK′H‖), between 0 and 1: 0 for kernels that are proportional once centred.

    Source: Fort et al. 2020, *Deep learning versus kernel learning*, their kernel distance, here of centred kernels.
    """
    a, b = (matrix / np.linalg.norm(matrix) for matrix in (centred(first), centred(second)))
    return float(np.sum((a - b) ** 2)) / 2  # the same number, and 0 for a kernel and itself
