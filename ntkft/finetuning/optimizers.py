"""How a gradient becomes a step: optax transformations that know what to call themselves.

A transformation is a pair of closures, which can be neither printed nor compared. The description beside it is what
reports show and what a checkpoint remembers, so that a run is never resumed under another rule.
"""

import math
from dataclasses import dataclass
from typing import SupportsFloat

import jax
import optax

from ntkft._errors import refuse
from ntkft._tree import digest
from ntkft._types import PyTree


@dataclass(frozen=True)
class Optimizer:
    """An update rule and its name with every setting; any optax transformation will do.

    `Optimizer("lion(step_size=1e-4)", optax.lion(1e-4))`: equal descriptions must mean equal rules.
    """

    description: str
    transform: optax.GradientTransformation


def gradient_descent(step_size: SupportsFloat) -> Optimizer:
    """θ ← θ − ε ∇L, the rule of the kernel's closed forms: on all examples at once one epoch is one step.

    Stable on the squared loss while ε < 2/λ₁, λ₁ the largest eigenvalue of the normalised kernel K/n.
    Raises `InputError` unless `step_size` (ε) is positive and finite.
    """
    step_size = float(step_size)
    refuse("gradient_descent", _step_problems(step_size))
    return Optimizer(f"gradient_descent(step_size={step_size})", optax.sgd(step_size))


def momentum(step_size: SupportsFloat, beta: SupportsFloat) -> Optimizer:
    """θ ← θ − εv with v ← βv + ∇L: the heavy ball, whose effective step is ε/(1 − β).

    Stable on the squared loss while ε < 2(1 + β)/λ₁. Raises `InputError` unless ε is positive and finite and
    0 ≤ β < 1. Source: Polyak 1964, "Some methods of speeding up the convergence of iteration methods", eq. 9.
    """
    step_size, beta = float(step_size), float(beta)
    problems = _step_problems(step_size)
    if not 0 <= beta < 1:
        problems.append(f"beta is {beta}; wanted 0 ≤ beta < 1")
    refuse("momentum", problems)
    return Optimizer(f"momentum(step_size={step_size}, beta={beta})", optax.sgd(step_size, momentum=beta))


def l2_sp(step_size: SupportsFloat, penalty: SupportsFloat, pretrained: PyTree) -> Optimizer:
    """θ ← θ − ε (∇L + λ(θ − θ_PT)): gradient descent with weight decay towards the pretrained parameters.

    It minimises L + (λ/2) ‖θ − θ_PT‖², for the linearised model kernel ridge regression with penalty λ. Stable on the
    squared loss while ε < 2/(λ₁ + λ). Keeps `pretrained`. Raises `InputError` unless ε is positive and λ not negative,
    both finite. Source: Li, Grandvalet & Davoine 2018, "Explicit Inductive Bias for Transfer Learning with
    Convolutional Networks", eq. 2.
    """
    step_size, penalty = float(step_size), float(penalty)
    problems = _step_problems(step_size)
    if not 0 <= penalty < math.inf:
        problems.append(f"penalty is {penalty}; wanted a finite number that is not negative")
    refuse("l2_sp", problems)
    pull = optax.stateless(
        lambda gradient, params: jax.tree.map(
            lambda g, now, then: g + penalty * (now - then), gradient, params, pretrained
        )
    )
    description = f"l2_sp(step_size={step_size}, penalty={penalty}, pretrained={digest(pretrained)[:12]})"
    return Optimizer(description, optax.chain(pull, optax.sgd(step_size)))


def sign_descent(step_size: SupportsFloat) -> Optimizer:
    """θ ← θ − ε sign ∇L: Adam without memory; in minibatches of one it is what the asymmetric kernel describes.

    A parameter without gradient stays, sign 0 = 0. Raises `InputError` unless ε is positive and finite.
    Source: Bernstein et al. 2018, "signSGD: Compressed Optimisation for Non-Convex Problems", algorithm 1.
    """
    step_size = float(step_size)
    refuse("sign_descent", _step_problems(step_size))
    return Optimizer(f"sign_descent(step_size={step_size})", optax.sign_sgd(step_size))


def adamw(step_size: SupportsFloat, weight_decay: SupportsFloat) -> Optimizer:
    """θ ← θ − ε (m̂ / (√v̂ + 10⁻⁸) + wθ) with decay rates 0.9 and 0.999 for m and v, on every parameter.

    The decay rates and 10⁻⁸ are the published constants; for others build an `Optimizer`. Raises `InputError` unless
    ε is positive and finite and the weight decay w is finite and not negative.
    Source: Loshchilov & Hutter 2019, "Decoupled Weight Decay Regularization", algorithm 2, with w in units of ε.
    """
    step_size, weight_decay = float(step_size), float(weight_decay)
    problems = _step_problems(step_size)
    if not 0 <= weight_decay < math.inf:
        problems.append(f"weight_decay is {weight_decay}; wanted a finite number that is not negative")
    refuse("adamw", problems)
    return Optimizer(
        f"adamw(step_size={step_size}, weight_decay={weight_decay})",
        optax.adamw(step_size, b1=0.9, b2=0.999, eps=1e-8, weight_decay=weight_decay),
    )


def _step_problems(step_size: float) -> list[str]:
    if 0 < step_size < math.inf:
        return []
    return [f"step_size is {step_size}; wanted a positive, finite number (gradient descent: below 2/λ₁)"]
