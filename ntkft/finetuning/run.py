"""`finetune`: train the same model, parameters, readout and loss that a prediction is about, and measure."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from operator import index
from pathlib import Path
from typing import Literal, SupportsIndex

import jax
import numpy as np
import optax

from ntkft._errors import InputError
from ntkft._tree import digest, take_examples
from ntkft._types import ApplyFn, Array, PyTree
from ntkft.batched import compile_outputs
from ntkft.finetuning import checkpoint as store
from ntkft.finetuning.descent import State, compile_descent, in_strides, initial_state
from ntkft.finetuning.history import Progress, Table, append, is_finite, relative_change
from ntkft.finetuning.losses import LOSSES, measure
from ntkft.finetuning.optimizers import Optimizer
from ntkft.finetuning.plan import LabelledInputs, Plan, check
from ntkft.finetuning.result import Curve, FinetuneResult


def finetune(
    apply_fn: ApplyFn,
    params: PyTree,
    train: LabelledInputs,
    *,
    loss: Literal["squared", "cross_entropy"],
    optimizer: Optimizer,
    epochs: SupportsIndex,
    batch_size: SupportsIndex | None,
    seed: SupportsIndex | None = None,
    record_at: Sequence[SupportsIndex] | np.ndarray,
    evaluate: Mapping[str, LabelledInputs],
    keep_predictions: Collection[str] = (),
    kernel_fn: Callable[[PyTree], Array] | None = None,
    drift_at: Sequence[SupportsIndex] | np.ndarray = (),
    micro_batch: SupportsIndex = 32,
    checkpoint: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FinetuneResult:
    """Minimise (1/n) Σ_i ℓ(f_θ(x_i), y_i) from θ₀ = `params`, measuring at the recorded epochs.

    With the squared loss, all examples in one batch and `gradient_descent(ε)` this is the gradient descent of the
    theory, θ_{t+1} = θ_t − ε ∇ (1/2n) Σ_i Σ_a (y_ia − f_a(x_i))². With `linearize(apply_fn, params)` for `apply_fn` it
    follows the closed form f_t(x) = f_0(x) + (1/n) 𝕂(x, X) U [(1 − (1 − ελ̂)^t)/λ̂] Uᵀ (y − f_0(X)) to rounding.

    Args:
        apply_fn: the model; outputs `[n, k]`, in evaluation mode.
        params: initial parameters, not modified; all of them are trained.
        train: inputs and targets of the n training examples.
        loss: `"squared"` (targets floating `[n, k]`, ℓ = ½ Σ_a (y − f)²) or `"cross_entropy"` (integer `[n]`, nats).
        optimizer: `gradient_descent`, `momentum`, `adamw`, or an `Optimizer` around any optax transformation.
        epochs: passes over the training examples.
        batch_size: examples per update; None for all of them, one update per epoch. The last minibatch of an epoch is
            smaller when the size does not divide n, and its gradient is the mean over the examples that it has.
        seed: of the order of the minibatches, drawn anew for each epoch; needed with `batch_size`, unused without.
        record_at: epochs after which to measure; 0 is before training. Epoch 0 and the last are always recorded.
        evaluate: named sets to measure, e.g. `{"train": ..., "validation": ..., "test": ...}`; may be empty.
        keep_predictions: names of sets whose outputs `[m, k]` are kept at every recorded epoch.
        kernel_fn: the kernel at given parameters, in any shape, for ‖K_t − K₀‖_F / ‖K₀‖_F.
        drift_at: the recorded epochs at which `kernel_fn` is called; it is always called at epoch 0.
        micro_batch: most examples in one forward and backward pass; changes results by rounding only.
        checkpoint: folder in which the run is saved at every recorded epoch, and from which the same call goes on. The
            resumed run is the same to the last bit as one never interrupted (same machine and micro-batch).
        progress: called with (epochs done, epochs), about once a second and before every recorded epoch.

    Returns:
        A `FinetuneResult`. A run whose loss stops being finite returns with status `"diverged"` and all that was
        recorded before; its `.check()` raises. For the parameters of an earlier epoch, for example
        `curves["validation"].best_epoch`, run again to that epoch.

    Raises:
        InputError: listing everything that is wrong with the arguments; or when `checkpoint` holds another run.

    Cost: an epoch takes about three forward passes of the n examples, an evaluation one. Memory: four times the
    parameters (initial, current, summed and latest gradient), the optimiser's state (nothing for gradient descent, one
    copy for momentum, two for AdamW), and the activations of one micro-batch. Two compilations, and one for each other
    shape of an evaluated example. Measured on two CPU cores, all-MiniLM-L6-v2 (22.7 M parameters, float32), 128
    sentences of 16 tokens: 0.85 s per epoch of gradient descent at `micro_batch` 16 to 64, 1.3 s at 8, 1.0 s at 128;
    memory beyond the loaded model 0.4 GB at 32 and 0.8 GB at 128; the linearised model takes 2.5 times as long. With
    `checkpoint` every recorded epoch costs another 0.8 s and replaces 80 MB.
    """
    plan = Plan(
        loss=loss,
        optimizer=optimizer.description,
        epochs=index(epochs),
        batch_size=None if batch_size is None else index(batch_size),
        seed=None if batch_size is None or seed is None else index(seed),
        recorded=sorted({index(epoch) for epoch in record_at} | {0, index(epochs)}),
        drift_at=sorted({index(epoch) for epoch in drift_at}),
        keep_predictions=sorted(keep_predictions),
    )
    micro_batch = index(micro_batch)
    train = jax.tree.map(np.asarray, train)
    evaluate = {name: jax.tree.map(np.asarray, examples) for name, examples in evaluate.items()}
    check(plan, apply_fn, params, train, evaluate, kernel_fn=kernel_fn, micro_batch=micro_batch)

    advance = compile_descent(
        apply_fn,
        LOSSES[loss],
        optimizer.transform,
        train,
        batch_size=plan.batch_size,
        seed=plan.seed,
        micro_batch=micro_batch,
    )
    outputs = compile_outputs(apply_fn, micro_batch)
    folder = None if checkpoint is None else Path(checkpoint)
    run = Progress(initial_state(params, optimizer.transform, plan.epochs), table={}, kernel=None)
    if folder is not None:
        identity = asdict(plan) | {"params": digest(params), "train": digest(train), "evaluate": digest(evaluate)}
        probe = outputs(store.displace(params), take_examples(train[0], slice(0, store.PROBE_EXAMPLES)))
        store.claim(folder, identity, probe)
        run = store.restore(folder, run.state) or run

    def measure_row(state: State) -> Table:
        epoch, curves = int(state.epoch), {}
        for name, (inputs, targets) in evaluate.items():
            predictions = outputs(state.params, inputs)
            if epoch == 0:
                _refuse_bad_start(name, np.asarray(LOSSES[loss](predictions, targets)))
            kept = {"predictions": predictions} if name in keep_predictions else {}
            curves[name] = measure(predictions, np.asarray(targets), loss) | kept
        return {"epoch": epoch, "distance": float(_distance(state.params, params)), "curves": curves}

    def report(epoch: int) -> None:
        if progress is not None:
            progress(epoch, plan.epochs)

    diverged_at = None
    for stop in [epoch for epoch in plan.recorded if epoch > run.last_recorded]:
        state, diverged_at = in_strides(advance, run.state, stop, report)
        run = run._replace(state=state)
        if diverged_at is not None:
            break
        row = measure_row(state)
        if not is_finite(row):
            diverged_at = stop
            break
        row["kernel_drift"] = np.nan
        if kernel_fn is not None and stop in {0, *plan.drift_at}:
            now = np.asarray(kernel_fn(state.params), np.float64)
            initial = now if run.kernel is None else run.kernel
            row["kernel_drift"] = relative_change(initial, now)
            run = run._replace(kernel=initial)
        run = run._replace(table=append(run.table, row))
        if folder is not None:
            store.save(folder, run)
    return _summarize(run, plan, evaluate, float(optax.tree.norm(params)), diverged_at)


_distance = jax.jit(lambda now, initial: optax.tree.norm(optax.tree.sub(now, initial)))


def _refuse_bad_start(name: str, losses: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(losses))
    if bad.size:
        raise InputError(
            f"finetune: before training, the outputs or losses of {bad.size} examples of evaluate[{name!r}] are NaN or "
            f"infinite, first example {bad[0]}; mend the model or drop these examples"
        )


def _summarize(run: Progress, plan: Plan, sets: Iterable[str], norm: float, diverged_at: int | None) -> FinetuneResult:
    table, epochs = run.table, run.table["epoch"]
    followed = np.isin(epochs, plan.drift_at)
    trained = plan.epochs if diverged_at is None else diverged_at
    return FinetuneResult(
        params=run.state.params,
        optimizer=plan.optimizer,
        epochs=epochs,
        training_loss=np.asarray(run.state.losses)[:trained],
        curves={name: Curve(epochs, **table["curves"][name]) for name in sets},
        parameter_norm=norm,
        parameter_distance=table["distance"],
        kernel_epochs=epochs[followed],
        kernel_drift=table["kernel_drift"][followed],
        diverged_at=diverged_at,
    )
