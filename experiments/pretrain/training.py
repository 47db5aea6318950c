"""Pretraining: minimise the mean cross-entropy of the next token with AdamW, from the library's own initial weights.

Those are `random_model`'s: kernels N(0, 1/d_in) and tables N(0, 1/d), which suit every width alike. Which rows a step
sees depends on its number alone: pass e over the corpus is the permutation drawn with (seed, e). With weights, moments
and that number a resumed run is the same to the last bit as one never interrupted (on CPUs; on a GPU with
XLA_FLAGS=--xla_gpu_deterministic_ops=true).
"""

import functools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from jaxtyping import Float, Int

from experiments.pretrain.checkpoints import (
    Checkpoint,
    discard,
    is_written,
    place,
    write_perplexities,
    write_record,
)
from experiments.pretrain.sizes import Setting, Size, attributes
from experiments.pretrain.tokenizer import Text
from ntkft._errors import InputError
from ntkft._tree import leaf_paths
from ntkft._types import ApplyFn, PyTree
from ntkft.models import Readout, random_model, read_config, write_checkpoint
from ntkft.models.inputs import Inputs
from ntkft.models.loading import abstract_model
from ntkft.models.readouts import BoundReadout
from ntkft.models.transformer import Transformer

AVERAGED = 16
"""Batches that the training loss of a checkpoint is the mean of."""


class State(NamedTuple):
    """All that a run goes on from."""

    params: PyTree
    moments: optax.OptState
    step: Int[jax.Array, ""]
    losses: Float[jax.Array, " s"]
    """Of every step so far, each before its update; zero for those to come."""


Advance: TypeAlias = Callable[[State, Int[np.ndarray, "n t"]], State]
Likelihoods: TypeAlias = Callable[[PyTree, Int[np.ndarray, "n t"]], Float[np.ndarray, " tokens"]]


def train(
    name: str, size: Size, setting: Setting, text: Text, folder: Path, progress: Callable[[int, int], None]
) -> State:
    """Train a size to its last step and write its checkpoints into `folder`, from wherever an interrupt left it.

    `progress` is called with (steps done, steps): once for those found done, and after every step. Cost: 6 · parameters
    · tokens operations, a head over the vocabulary included, and memory for four copies of the parameters and the
    logits of a batch. Raises `InputError` when the loss stops being finite.
    """
    advance, likelihoods = compiled(size, setting)
    state = initial_state(size, setting)
    saves = sorted({*setting.checkpoints, *range(0, setting.steps, setting.save_every)})
    options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
    with ocp.CheckpointManager((folder / "state").resolve(), options=options) as manager:
        saved = manager.latest_step()
        if saved is not None:
            state = manager.restore(saved, args=ocp.args.StandardRestore(state))
            progress(saved, setting.steps)
        for stop in (step for step in saves if step >= (saved or 0)):
            for step in range(int(state.step), stop):
                state = jax.block_until_ready(advance(state, text.train[batch_rows(len(text.train), step, setting)]))
                progress(step + 1, setting.steps)
            if not np.isfinite(latest := np.asarray(state.losses)[max(stop - 1, 0)]):
                raise InputError(f"pretrain: the loss of {name} is {latest} at step {stop}; train with a lower rate")
            if stop != saved:
                manager.save(stop, args=ocp.args.StandardSave(state))
            if stop in setting.checkpoints and not is_written(path := place(folder, stop)):
                discard(path)
                write_checkpoint(path, attributes(size, setting), state.params, text.tokenizer)
                held_out = likelihoods(state.params, text.held_out)
                write_record(_record(path, name, state, held_out, setting), held_out)
    write_perplexities(folder)
    return state


@functools.cache
def compiled(size: Size, setting: Setting) -> tuple[Advance, Likelihoods]:
    """The two programs of a size, compiled once for a process: a step, and the reading of held-out rows."""
    apply_fn = abstract_model(read_config(attributes(size, setting)), readout=every_token()).apply_fn
    return compile_step(apply_fn, optimizer(size, setting)), compile_likelihoods(apply_fn, setting.batch)


def initial_state(size: Size, setting: Setting) -> State:
    """Random weights, no moments, step 0."""
    params = random_model(read_config(attributes(size, setting)), readout=every_token(), seed=setting.seed).params
    moments = optimizer(size, setting).init(params)
    return State(params, moments, jnp.int32(0), jnp.zeros(setting.steps, jnp.float32))


def every_token() -> Readout:
    """Logits at every position, `[n, t, vocabulary]`: entry [i, j] scores the token after the j-th."""

    def read(model: Transformer, head: PyTree, inputs: Inputs) -> jax.Array:
        hidden = model(inputs)
        return model.logits(hidden.reshape(-1, hidden.shape[-1])).reshape(*hidden.shape[:2], -1)

    return Readout("every_token", ("lm_head",), lambda config, tokenizer: BoundReadout({}, read, mask_token=None))


def optimizer(size: Size, setting: Setting) -> optax.GradientTransformation:
    """AdamW with a warm-up, a cosine down to a tenth, and gradients cut to a norm; 0.9 and 0.95 as for GPT-3."""
    peak = setting.rate / size.width**0.5
    schedule = optax.warmup_cosine_decay_schedule(
        peak / setting.warmup, peak, setting.warmup, setting.steps, end_value=peak / 10
    )
    return optax.chain(
        optax.clip_by_global_norm(setting.clip),
        optax.adamw(
            schedule,
            b1=0.9,
            b2=0.95,
            weight_decay=setting.decay,
            mask=partial(jax.tree.map, lambda leaf: leaf.ndim > 1),
        ),
    )


def compile_step(apply_fn: ApplyFn, transform: optax.GradientTransformation) -> Advance:
    """One update on one batch of rows; the state given is used up."""

    def loss(params: PyTree, rows: Int[jax.Array, "n t"]) -> Float[jax.Array, ""]:
        return -_log_likelihoods(apply_fn, params, rows).mean()

    @partial(jax.jit, donate_argnums=0)
    def advance(state: State, rows: Int[jax.Array, "n t"]) -> State:
        value, gradient = jax.value_and_grad(loss)(state.params, rows)
        updates, moments = transform.update(gradient, state.moments, state.params)
        params = optax.apply_updates(state.params, updates)
        return State(params, moments, state.step + 1, state.losses.at[state.step].set(value))

    return advance


def compile_likelihoods(apply_fn: ApplyFn, batch: int) -> Likelihoods:
    """Returns log p(token | those before it in its row) of every token but the first of each row, row by row."""
    run = jax.jit(partial(_log_likelihoods, apply_fn))

    def likelihoods(params: PyTree, rows: Int[np.ndarray, "n t"]) -> Float[np.ndarray, " tokens"]:
        parts = [run(params, rows[start : start + batch]) for start in range(0, len(rows), batch)]
        return np.concatenate([np.asarray(part).ravel() for part in parts])

    return likelihoods


def batch_rows(count: int, step: int, setting: Setting) -> Int[np.ndarray, " n"]:
    """The rows of a step: those of a pass in an order of its own, `batch` at a time, a remainder left out."""
    steps = count // setting.batch
    order = np.random.default_rng([setting.seed, step // steps]).permutation(count)
    return order[step % steps * setting.batch :][: setting.batch]


def _log_likelihoods(apply_fn: ApplyFn, params: PyTree, rows: Int[jax.Array, "n t"]) -> Float[jax.Array, "n t_minus_1"]:
    before = rows[:, :-1]
    logits = apply_fn(params, {"input_ids": before, "attention_mask": jnp.ones_like(before)})
    return -optax.softmax_cross_entropy_with_integer_labels(logits, rows[:, 1:])


def _record(
    path: Path, name: str, state: State, likelihoods: Float[np.ndarray, " tokens"], setting: Setting
) -> Checkpoint:
    step, sizes = int(state.step), {path: leaf.size for path, leaf in leaf_paths(state.params).items()}
    parameters, tokens = sum(sizes.values()), int(state.step) * setting.batch * setting.context
    latest = np.asarray(state.losses)[max(step - AVERAGED, 0) : step]
    return Checkpoint(
        path=path,
        size=name,
        parameters=parameters,
        non_embedding=sum(count for leaf, count in sizes.items() if not leaf.startswith("embeddings/")),
        step=step,
        tokens=tokens,
        flops=6.0 * parameters * tokens,
        train_loss=float(latest.mean()) if step else None,
        loss=-float(likelihoods.mean(dtype=np.float64)),
    )
