"""Kernels whose spectrum is known: the first Sobolev kernel on a grid, and matrices with a prescribed spectrum."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ntkft._types import Array


@dataclass(frozen=True)
class Record:
    """The least that counts as an empirical kernel."""

    total: Array
    outputs: str
    precision: str = "float64"
    groups: Mapping[str, Array] = field(default_factory=dict)


def grid(n: int) -> np.ndarray:
    """The design x_i = i/n."""
    return np.arange(1, n + 1) / n


def min_kernel(n: int) -> np.ndarray:
    """𝕂(x, x′) = min(x, x′) on the grid, unnormalised; its functions vanish at 0 and have ‖f‖_H² = ∫ f′²."""
    return np.minimum.outer(grid(n), grid(n))


def tent(n: int) -> np.ndarray:
    """f*(x) = |x − ½| − ½ on the grid: slope ±1, so ‖f*‖_H = 1."""
    return np.abs(grid(n) - 0.5) - 0.5


def prescribed(eigenvalues, seed: int) -> np.ndarray:
    """An unnormalised kernel 𝕂 = n U diag(λ) Uᵀ with random eigenvectors, n = len(eigenvalues)."""
    values = np.asarray(eigenvalues, np.float64)
    return len(values) * (random_basis(len(values), seed) * values[None]) @ random_basis(len(values), seed).T


def random_basis(n: int, seed: int) -> np.ndarray:
    """A random orthogonal matrix."""
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]


def full_kernel(n: int, m: int, k: int, seed: int, features: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Training kernel [n, k, n, k] and cross kernel [m, k, n, k] of random per-output features."""
    generator = np.random.default_rng(seed)
    train, test = (generator.standard_normal((size, k, features)) / np.sqrt(features) for size in (n, m))
    return np.einsum("iap,jbp->iajb", train, train), np.einsum("iap,jbp->iajb", test, train)
