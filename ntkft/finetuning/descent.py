"""Training as one compiled loop: epochs, in each the updates, in each the micro-batches whose gradients add up.

The gradient of an update is the exact mean over its examples, whatever the size of the micro-batches: the last one is
filled up with examples of weight zero. Nothing depends on where the loop is left and entered again, because the order
of epoch t is drawn from (seed, t) alone; so epochs can be run in strides, and a run can be resumed, to the last bit.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ntkft._tree import count_examples, take_examples
from ntkft._types import ApplyFn, Array, PyTree
from ntkft.finetuning.losses import Loss


class State(NamedTuple):
    """All that training carries from one epoch to the next."""

    params: PyTree
    optimizer_state: PyTree
    epoch: jax.Array
    losses: jax.Array
    """Training loss by epoch; NaN for epochs still to come."""


Advance = Callable[[State, int], tuple[State, jax.Array]]


def initial_state(params: PyTree, transform: optax.GradientTransformation, epochs: int) -> State:
    """The state before training: a copy of `params`, because `advance` reuses the memory of the state it is given."""
    params = jax.tree.map(jnp.array, params)
    losses = jnp.full(max(epochs, 1), jnp.nan)  # never empty: orbax stores no empty arrays
    return State(params, transform.init(params), jnp.zeros((), jnp.int32), losses)


def compile_descent(
    apply_fn: ApplyFn,
    loss: Loss,
    transform: optax.GradientTransformation,
    train: tuple[PyTree, Array],
    *,
    batch_size: int | None,
    seed: int | None,
    micro_batch: int,
) -> Advance:
    """`advance(state, stop)`: train until epoch `stop`, or through the first epoch whose loss is not finite.

    Returns the new state and the loss of the last epoch run; the old state's memory is reused. Compiled once, since
    `stop` is an argument. The order of examples is their own (`seed` None) or a new permutation in each epoch.
    """
    n = count_examples(train)
    updates = _schedule(n, batch_size, micro_batch)

    def objective(params, inputs, targets, weights):
        losses = loss(apply_fn(params, inputs), targets)
        return jnp.sum(weights.astype(losses.dtype) * losses)

    def run_epoch(state: State, train) -> tuple[State, jax.Array]:
        def update(carry, part):
            params, optimizer_state = carry
            rows, weights, share = part

            def accumulate(gradient, chunk):
                rows, weights = chunk
                value, more = jax.value_and_grad(objective)(params, *take_examples(train, rows), weights)
                return jax.tree.map(jnp.add, gradient, more), value

            gradient, values = jax.lax.scan(accumulate, jax.tree.map(jnp.zeros_like, params), (rows, weights))
            steps, optimizer_state = transform.update(gradient, optimizer_state, params)
            return (optax.apply_updates(params, steps), optimizer_state), share * jnp.sum(values)

        order = jnp.arange(n) if seed is None else epoch_order(n, seed, state.epoch)
        parts = (order[updates.places], updates.weights, updates.shares)
        (params, optimizer_state), values = jax.lax.scan(update, (state.params, state.optimizer_state), parts)
        value = jnp.sum(values).astype(state.losses.dtype)
        return State(params, optimizer_state, state.epoch + 1, state.losses.at[state.epoch].set(value)), value

    @partial(jax.jit, donate_argnums=0)
    def advance(state: State, train, stop):
        return jax.lax.while_loop(
            lambda carry: (carry[0].epoch < stop) & jnp.isfinite(carry[1]),
            lambda carry: run_epoch(carry[0], train),
            (state, jnp.zeros((), state.losses.dtype)),
        )

    on_device = jax.tree.map(jnp.asarray, train)
    return lambda state, stop: advance(state, on_device, stop)


def epoch_order(n: int, seed: int, epoch: int | Array) -> jax.Array:
    """The order `[n]` in which the examples of an epoch are taken when training in minibatches with this seed."""
    return jax.random.permutation(jax.random.fold_in(jax.random.key(seed), epoch), n)


def in_strides(advance: Advance, state: State, stop: int, report: Callable[[int], None]) -> tuple[State, int | None]:
    """Advance to `stop`, back in Python about once a second, to report progress and to hear an interrupt.

    Returns the state and the first epoch whose loss was not finite (behind which the state is), or None.
    """
    epoch, stride = int(state.epoch), 1
    while epoch < stop:
        began = time.perf_counter()
        state, loss = advance(state, min(epoch + stride, stop))
        epoch = int(state.epoch)
        if not jnp.isfinite(loss):
            return state, epoch - 1
        report(epoch)
        stride = stride * 2 if time.perf_counter() - began < 0.5 else max(stride // 2, 1)
    return state, None


class _Schedule(NamedTuple):
    """Which places of an epoch's order make up each update `u`, and in it each micro-batch `c` of `b` examples."""

    places: np.ndarray
    """`[u, c, b]` indices into the order."""
    weights: np.ndarray
    """`[u, c, b]`: one over the examples of the update; zero where a micro-batch is filled up."""
    shares: np.ndarray
    """`[u]`: the fraction of all examples in the update."""


def _schedule(n: int, batch_size: int | None, micro_batch: int) -> _Schedule:
    batch = batch_size or n
    updates = -(-n // batch)
    chunks = -(-batch // micro_batch)
    rows = -(-batch // chunks)  # equal micro-batches, so that the least is filled up
    places = np.zeros((updates, chunks * rows), np.int32)
    weights = np.zeros((updates, chunks * rows))
    for update in range(updates):
        members = np.arange(update * batch, min((update + 1) * batch, n))
        places[update, : members.size] = members
        weights[update, : members.size] = 1 / members.size
    shares = np.count_nonzero(weights, axis=1) / n
    return _Schedule(places.reshape(updates, chunks, rows), weights.reshape(updates, chunks, rows), shares)
