"""Claims about what a model does: a cloze task, whether perplexity predicts its accuracy, and what perplexity costs.

A question is a stretch of a held-out document; its end has to be told from the ends of three stretches of other
documents. All four are drawn alike, so that one who does not read the context is right in a quarter of the questions.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from experiments.pretrain.checkpoints import Checkpoint
from experiments.training_trajectories.setting import Setting, Trained
from experiments.training_trajectories.texts import passages
from ntkft._errors import InputError
from ntkft.batched import compile_outputs
from ntkft.models import TransformerConfig, load
from ntkft.models.loading import abstract_model
from ntkft.trajectories import PerplexityFit, every_token, option_scores, perplexity_predicts, training_flops

OPTIONS = 4
BATCH = 32


@dataclass(frozen=True, eq=False)
class Cloze:
    """Contexts with each of their options behind them; the first is the true one."""

    rows: Int[np.ndarray, "items options t"]
    context: int

    def scores(self, likelihoods: Float[np.ndarray, "n t"]) -> Float[np.ndarray, "items options"]:
        """Mean log-likelihood of every option, from those of all tokens but the first."""
        counted = np.arange(1, self.rows.shape[2]) >= self.context
        return option_scores(likelihoods, np.tile(counted, (len(likelihoods), 1))).reshape(self.rows.shape[:2])


def cloze_task(trained: Trained, setting: Setting) -> Cloze:
    """Questions drawn from the held-out part. Raises `InputError` when it has too few stretches, or documents."""
    length = setting.context + setting.continuation
    found, documents = passages(trained.held_out, trained.end, length)
    endings, generator = found[:, setting.context :], np.random.default_rng(setting.seed)
    rows = []
    for item in generator.permutation(len(found))[: setting.items]:
        others = (documents != documents[item]) & (endings != endings[item]).any(axis=1)
        if others.sum() < OPTIONS - 1:
            raise InputError(f"cloze: {others.sum()} stretches of other documents; hold out a longer text")
        wrong = generator.choice(np.flatnonzero(others), OPTIONS - 1, replace=False)
        context = np.tile(found[item, : setting.context], (OPTIONS, 1))
        rows.append(np.concatenate([context, endings[[item, *wrong]]], axis=1))
    if len(rows) < setting.items:
        raise InputError(f"cloze: {len(rows)} stretches of {length} tokens, wanted {setting.items}; hold out more text")
    return Cloze(np.stack(rows), setting.context)


def measured(checkpoint: Checkpoint, task: Cloze, texts: Mapping[str, Int[np.ndarray, "n t"]], prompt: int) -> dict:
    """Which questions a checkpoint answers, and the log-likelihood per token that it gives to generated texts.

    Cost: a forward pass over all of them. A tie with a wrong option is a wrong answer.
    """
    model = load(checkpoint.path, readout=every_token())
    read = _reader(model.config)

    def likelihoods(rows: Int[np.ndarray, "n t"]) -> Float[np.ndarray, "n t_minus_1"]:
        return read(model.params, {"input_ids": rows, "attention_mask": np.ones_like(rows)})

    scores = task.scores(likelihoods(task.rows.reshape(-1, task.rows.shape[2])))
    return {
        "right": (scores[:, 0] > scores[:, 1:].max(axis=1)).tolist(),
        "texts": {
            name: np.mean(likelihoods(rows)[:, prompt - 1 :], dtype=np.float64).item() for name, rows in texts.items()
        },
    }


@functools.cache
def _reader(config: TransformerConfig) -> Callable:
    """Log-likelihoods under any checkpoint of one architecture, compiled once."""
    return compile_outputs(abstract_model(config, readout=every_token()).apply_fn, BATCH)


@dataclass(frozen=True, eq=False)
class Behaviour:
    """Perplexity, accuracy and size of all checkpoints, and how the first gives the second."""

    perplexity: Float[np.ndarray, " m"]
    accuracy: Float[np.ndarray, " m"]
    size: tuple[str, ...]
    step: Int[np.ndarray, " m"]
    late: Bool[np.ndarray, " m"]
    """Which are after the warm-up."""
    fit: PerplexityFit
    """Of all checkpoints."""
    late_fit: PerplexityFit
    """Of those after the warm-up."""


def behaviour_of(trained: Trained, records: Mapping[str, Sequence[Mapping]], warm: float) -> Behaviour:
    """records: by size, what `measured` returned for each checkpoint."""
    pairs = [
        (each, record) for name, mine in trained.sizes.items() for each, record in zip(mine, records[name], strict=True)
    ]
    perplexity = np.array([each.perplexity for each, _ in pairs])
    accuracy = np.array([np.mean(record["right"]) for _, record in pairs])
    size, step = np.array([each.size for each, _ in pairs]), np.array([each.step for each, _ in pairs])
    late = step >= trained.steps[trained.first(warm)]
    fits = [perplexity_predicts(perplexity[some], accuracy[some], size[some]) for some in (step >= 0, late)]
    return Behaviour(perplexity, accuracy, tuple(size.tolist()), step, late, *fits)


def behaviour_results(found: Behaviour) -> dict[str, float]:
    """Spearman, R² and what sizes add to it, of all checkpoints and of those after the warm-up."""
    results = {}
    for name, fit in (("all checkpoints", found.fit), ("after the warm-up", found.late_fit)):
        assert fit.sizes is not None
        results |= {
            f"{name}: Spearman of perplexity and accuracy": fit.spearman,
            f"{name}: R² of accuracy on log perplexity": fit.r_squared,
            f"{name}: extra R² of sizes": fit.sizes.extra,
            f"{name}: p-value of sizes": fit.sizes.p_value,
        }
    last = found.step == found.step.max()
    for name, accuracy in zip(np.array(found.size)[last], found.accuracy[last], strict=True):
        results[f"{name}: cloze accuracy at the end, %"] = 100 * float(accuracy)
    untrained = found.accuracy[found.step == 0]
    return results | {"untrained: cloze accuracy − chance, mean, %": 100 * float(untrained.mean() - 1 / OPTIONS)}


def flops_results(trained: Trained) -> dict[str, float]:
    """Which size has the lowest perplexity for the same training operations, wherever two sizes were trained so long.

    Between checkpoints log perplexity is taken as linear in the logarithm of the operations.
    """
    flops = {
        name: np.array([training_flops(each.parameters, each.tokens) for each in mine])
        for name, mine in trained.sizes.items()
    }
    recorded = [each.flops for mine in trained.sizes.values() for each in mine]
    counted = np.concatenate(list(flops.values()))
    names, ends = list(trained.sizes), sorted(of[-1] for of in flops.values())
    grid = np.geomspace(max(of[1] for of in flops.values()), ends[-2], 41)
    losses = np.stack([
        np.interp(np.log(grid), np.log(flops[name][1:]), [each.loss for each in mine[1:]], right=np.inf)
        for name, mine in trained.sizes.items()
    ])  # fmt: skip
    best = losses.argmin(axis=0)
    results = {
        "operations: recorded against 6 · parameters · tokens, largest difference": float(
            np.abs(counted / np.maximum(recorded, 1) - (counted > 0)).max()
        ),
        "operations: the best size falls as they grow, times": float((np.diff(best) < 0).sum()),
    }
    for place in sorted(set(best)):
        results[f"{names[place]}: best up to operations"] = float(grid[best == place].max())
    return results
