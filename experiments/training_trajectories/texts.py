"""Claims about whole distributions: what lies between the smallest and the largest model, and texts drawn from there.

A token drawn from relu(p_small − p_large) is one that the small model prefers, by construction, and so is the sign of
the gap between both models' perplexities of such a text. That it rises at the end of the large model's training owes
something to the same choice. What can fail is said of the sizes in between, which took no part in drawing it.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from experiments.pretrain.checkpoints import Checkpoint
from experiments.pretrain.training import every_token as every_logit
from experiments.training_trajectories.setting import Setting, Trained, nearest
from ntkft.models import load, next_token
from ntkft.trajectories import generate, interpolate, total_variation

WEIGHTS = {"small": (1, 0), "large": (0, 1), "small − large": (1, -1), "large − small": (-1, 1)}
"""λ of the small and of the large model."""

_ROWS = 8
"""At once: a row has 128 places times 4,096 tokens."""


def passages(
    rows: Int[np.ndarray, "rows t"], end: int, length: int
) -> tuple[Int[np.ndarray, "n length"], Int[np.ndarray, " n"]]:
    """Stretches of `length` tokens inside one document, no two overlapping, and the number of that document.

    rows: as packed, each beginning with the last token of the one before
    """
    stream = np.append(rows[:, :-1], rows[-1, -1])
    document = np.cumsum(stream == end)
    cut = len(stream) // length * length
    stretches, numbers = (of[:cut].reshape(-1, length) for of in (stream, document))
    inside = (stretches != end).all(axis=1)
    return stretches[inside], numbers[inside, 0]


def generated(trained: Trained, setting: Setting) -> dict:
    """Texts behind held-out prompts from every interpolation, and what both models make of them."""
    found, _ = passages(trained.held_out, trained.end, setting.prompt)
    prompts = np.random.default_rng(setting.seed).permutation(found)[: setting.prompts]
    small, large = (load(each.path, readout=next_token()) for each in trained.pair)
    record: dict = {"prompts": prompts.tolist(), "texts": {}}
    for name, weights in WEIGHTS.items():
        drawn = generate(
            small, large, prompts.tolist(), weights=weights, tokens=setting.drawn, draw="sample", seed=setting.seed
        )
        record["texts"][name] = {
            "tokens": drawn.tokens.tolist(),
            "small": np.mean(drawn.small, dtype=np.float64).item(),
            "large": np.mean(drawn.large, dtype=np.float64).item(),
            "preferred": np.mean(drawn.small > drawn.large).item(),
            "fell_back": int(drawn.fell_back.sum()),
        }
    return record


def rows_of(record: Mapping) -> dict[str, Int[np.ndarray, "n t"]]:
    """Prompts with the texts behind them, by the name of the interpolation."""
    return {
        name: np.concatenate([record["prompts"], text["tokens"]], axis=1, dtype=np.int32)
        for name, text in record["texts"].items()
    }


def samples(record: Mapping, trained: Trained, shown: int) -> str:
    """The first texts of every interpolation, prompt ‖ text, a line each."""
    lines = []
    for name, text in record["texts"].items():
        perplexities = ", ".join(f"{model} {np.exp(-text[model]):.4g}" for model in ("small", "large"))
        lines.append(f"# {name}, λ = {WEIGHTS[name]}; perplexity of the text: {perplexities}")
        for prompt, tokens in list(zip(record["prompts"], text["tokens"], strict=True))[:shown]:
            parts = (trained.tokenizer.decode(ids, skip_special_tokens=False) for ids in (prompt, tokens))
            lines.append(" ‖ ".join(part.replace("\n", "⏎") for part in parts))
        lines.append("")
    return "\n".join(lines)


def distributions(trained: Trained, setting: Setting) -> dict:
    """The identities of interpolation at every place of some held-out rows, and total variation of two pairs."""
    small, large = trained.pair
    mine = trained.sizes[large.size]
    equal = mine[nearest(mine, small.loss)]
    rows = trained.held_out[: setting.rows, :-1]
    p_small, p_large, p_equal = (_probabilities(each) for each in (small, large, equal))
    difference = mismatch = normaliser = 0.0
    distances: dict[str, list[np.ndarray]] = {"end": [], "same loss": []}
    for start in range(0, len(rows), _ROWS):
        part = rows[start : start + _ROWS]
        small_p, large_p, equal_p = p_small(part), p_large(part), p_equal(part)
        plain, ahead = (interpolate(small_p, large_p, weights) for weights in ((0, 1), (1, -1)))
        distance = total_variation(small_p, large_p)
        difference = max(difference, float(jnp.abs(plain.probabilities - large_p).max()))
        mismatch += float(((ahead.probabilities > 0) != (small_p > large_p)).sum())
        normaliser = max(normaliser, float(jnp.abs(ahead.normaliser - distance).max()))
        distances["end"].append(np.asarray(distance))
        distances["same loss"].append(np.asarray(total_variation(small_p, equal_p)))
    means = {name: float(np.mean(np.concatenate(parts))) for name, parts in distances.items()}
    return {"difference": difference, "mismatch": mismatch, "normaliser": normaliser} | means


def text_results(
    record: Mapping, identities: Mapping[str, float], curves: Mapping[str, Mapping[str, list[float]]], trained: Trained
) -> dict[str, float]:
    """curves: by size and interpolation, log-likelihood per token of its texts at every checkpoint."""
    smallest, *between, largest = trained.sizes
    results = {
        "(0, 1) against the large model, largest difference": identities["difference"],
        "(1, −1) positive where small > large: exceptions": identities["mismatch"],
        "normaliser of (1, −1) against total variation, largest difference": identities["normaliser"],
        "total variation, smallest and largest size: at the end": identities["end"],
        "total variation, smallest and largest size: at the same loss": identities["same loss"],
        "texts: places without a preferred token": float(sum(text["fell_back"] for text in record["texts"].values())),
    }
    again = []
    for name, text in record["texts"].items():
        results[f"text of {name}: perplexity under the small model"] = float(np.exp(-text["small"]))
        results[f"text of {name}: perplexity under the large model"] = float(np.exp(-text["large"]))
        results[f"text of {name}: tokens that the small model prefers, %"] = 100 * text["preferred"]
        again += [
            abs(curves[size][name][-1] - text[model]) for size, model in ((smallest, "small"), (largest, "large"))
        ]
    results["texts: log perplexity when drawn and when read, largest difference"] = max(again)
    for size in trained.sizes:
        losses = -np.asarray(curves[size]["small − large"])
        results[f"{size}: text of small − large, last − lowest log perplexity"] = float(losses[-1] - losses.min())
    if len(between) > 1:
        for name in WEIGHTS:
            gap = curves[between[0]][name][-1] - curves[between[-1]][name][-1]
            results[f"text of {name}: log perplexity, {between[-1]} − {between[0]}"] = gap
    return results


def _probabilities(checkpoint: Checkpoint) -> Callable[[Int[np.ndarray, "n t"]], Float[jax.Array, "n t v"]]:
    """p(next token | those before it) at every place of some rows."""
    model = load(checkpoint.path, readout=every_logit())
    run = jax.jit(lambda params, inputs: jax.nn.softmax(model.apply_fn(params, inputs)))
    return lambda rows: run(model.params, {"input_ids": rows, "attention_mask": np.ones_like(rows)})
