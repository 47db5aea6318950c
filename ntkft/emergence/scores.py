"""What a score must be before a threshold is looked for in it: chance at zero, or no jump built in.

Accuracy of a task with options is at 1/k by guessing, so it is first brought to 0 there. It also jumps where the best
option changes, and a threshold may be that jump's; the Brier score and the probability of the correct option do not.

Source: Du et al. 2024, *Understanding Emergent Abilities of Language Models from the Loss Perspective*.
"""

from typing import SupportsFloat

import numpy as np
from jaxtyping import Float, Int, Num

from ntkft._errors import InputError, refuse
from ntkft._types import Array


def chance_normalised(accuracy: Num[Array, "..."], chance: SupportsFloat) -> Float[np.ndarray, "..."]:
    """(accuracy − chance)/(1 − chance): 0 by guessing, 1 when all is right, below 0 when worse than guessing.

    accuracy: in [0, 1]; chance: that of a guess, 1/k for k options that are equally often correct, 0 where the answer
    is written freely. Raises `InputError` for values outside these, percentages in particular.
    """
    values, guess = np.asarray(accuracy, np.float64), float(chance)
    problems = []
    if not 0 <= guess < 1:
        problems.append(f"chance is {guess:g}; wanted a share of at least 0 and below 1, such as 0.25 for four options")
    outside = ~((values >= 0) & (values <= 1))
    if outside.any():
        problems.append(
            f"{int(outside.sum())} of {values.size} accuracies are outside 0 … 1, such as {values[outside].flat[0]:g}; "
            "give shares, not percentages"
        )
    refuse("chance_normalised", problems)
    return (values - guess) / (1 - guess)


def brier_score(probabilities: Num[Array, "n k"], correct: Int[Array, " m"]) -> float:
    """Mean over examples of Σ_j (y_ij − p_ij)², y_i the one-hot vector of `correct[i]`; lower is better, 0 … 2.

    Uniform over four options gives 0.75; all weight on one option, right for one example in four, 1.5.
    probabilities: `[n, k]`, rows sum to one. Raises `InputError` where they do not, or `correct` is no option.
    """
    p, answers = np.asarray(probabilities, np.float64), np.asarray(correct)
    problems = _bad_options("correct", answers, p)
    # Probabilities often come from a softmax in single precision.
    if not (np.all(p >= 0) and np.allclose(p.sum(1), 1, rtol=0, atol=1e-5)):
        problems.append("rows of probabilities must be at least 0 and sum to one; apply the softmax first")
    refuse("brier_score", problems)
    return float(np.mean(np.sum((np.eye(p.shape[1])[answers] - p) ** 2, axis=1)))


def correct_choice_probability(
    log_likelihoods: Num[Array, "n k"], lengths: Num[Array, "..."], correct: Int[Array, " m"]
) -> Float[np.ndarray, " n"]:
    """Weight of the correct option in the softmax over the options' log-likelihoods, each divided by its length.

    log_likelihoods: log p(option | question), `[n, k]`, −inf where an option is impossible; lengths: of the options, in
    tokens or bytes, above 0. Raises `InputError` for shapes that differ, such lengths, options that are all impossible,
    or values that are NaN or +inf.
    """
    scores, sizes, answers = (
        np.asarray(log_likelihoods, np.float64),
        np.asarray(lengths, np.float64),
        np.asarray(correct),
    )
    if scores.shape != sizes.shape:
        raise InputError(
            f"correct_choice_probability: got {list(scores.shape)} log-likelihoods and {list(sizes.shape)} lengths; "
            "wanted one length for each option"
        )
    problems = _bad_options("correct", answers, scores)
    if not np.all((sizes > 0) & np.isfinite(sizes)):
        problems.append("lengths must be finite and above 0; count the tokens or bytes of each option")
    if not np.all(scores < np.inf):  # NaN is not below anything
        problems.append("log-likelihoods hold NaN or +inf; mend them first")
    elif not np.all(scores.max(1) > -np.inf):
        problems.append("a row has no possible option: all of its log-likelihoods are −inf")
    refuse("correct_choice_probability", problems)
    per_unit = scores / sizes
    weights = np.exp(per_unit - per_unit.max(1, keepdims=True))
    return weights[np.arange(len(weights)), answers] / weights.sum(1)


def _bad_options(name: str, answers: np.ndarray, options: np.ndarray) -> list[str]:
    n, k = options.shape
    if len(answers) != n:
        return [f"got {len(answers)} entries of {name} for {n} rows"]
    if n == 0:
        return ["there are no rows"]
    outside = answers[(answers < 0) | (answers >= k)]
    return [f"{name} names option {outside[0]}; wanted 0 … {k - 1}"] if outside.size else []
