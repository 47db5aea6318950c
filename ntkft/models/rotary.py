"""Rotary positions: queries and keys turn by angles that grow with their position (Su et al. 2021, eq. 34).

Feature pairs (x_i, x_{i+w/2}) of the first w features of every head turn by m·ω_i at position m, with ω_i = θ^{−2i/w};
the score q·k then depends on the distance of the two tokens alone. The other features stay.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class LinearScaling:
    """Frequencies divided by a factor: positions squeezed into the trained range."""

    factor: float

    def __call__(self, frequencies: Float[np.ndarray, " i"]) -> Float[np.ndarray, " i"]:
        return frequencies / self.factor


@dataclass(frozen=True)
class Llama3Scaling:
    """Low frequencies divided by a factor, high ones kept, those between blended (Llama 3.1).

    A frequency is high when the trained length holds more than `high` of its turns, low when fewer than `low`.
    """

    factor: float
    low: float
    high: float
    trained_length: int

    def __call__(self, frequencies: Float[np.ndarray, " i"]) -> Float[np.ndarray, " i"]:
        turns = self.trained_length * frequencies / (2 * math.pi)
        kept = np.clip((turns - self.low) / (self.high - self.low), 0, 1)
        return frequencies * (kept + (1 - kept) / self.factor)


@dataclass(frozen=True)
class Rotary:
    """Which features turn, and how fast."""

    width: int
    """How many features of each head turn, from the first."""
    theta: float
    scaling: LinearScaling | Llama3Scaling | None

    @property
    def frequencies(self) -> Float[np.ndarray, " i"]:
        """ω_i in radians per position, in float64."""
        plain = self.theta ** -(np.arange(0, self.width, 2) / self.width)
        return plain if self.scaling is None else self.scaling(plain)


Turn = tuple[jax.Array, jax.Array]
"""Cosines and sines `[n, t, 1, w/2]`."""


def turn_at(rotary: Rotary, positions: Int[jax.Array, "n t"], dtype: jnp.dtype) -> Turn:
    """The turn of every position; angles are never taken below float32."""
    wide = jnp.promote_types(dtype, jnp.float32)
    angles = positions[:, :, None, None].astype(wide) * jnp.asarray(rotary.frequencies, wide)[None, None, None]
    return jnp.cos(angles), jnp.sin(angles)


def turned(states: Float[jax.Array, "n t h e"], turn: Turn) -> Float[jax.Array, "n t h e"]:
    """Queries or keys after the turn."""
    cosine, sine = turn
    half = cosine.shape[-1]
    first, second, rest = jnp.split(states, [half, 2 * half], axis=-1)
    parts = [first * cosine - second * sine, second * cosine + first * sine]
    return jnp.concatenate([part.astype(states.dtype) for part in parts] + [rest], axis=-1)
