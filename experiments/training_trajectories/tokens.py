"""Claims about single tokens: trends, the same tokens at the same loss, double descent.

Everything here reads perplexities `[tokens, checkpoints]` of every size. All sizes saw the same batches in the same
order, so what two sizes share at the same step may be what both have just seen; at the same loss their steps differ.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import scipy.stats
from jaxtyping import Float, Shaped

from experiments.training_trajectories.setting import Trained, nearest
from ntkft.trajectories import BAND, LEVEL, TOLERANCE, TRENDS, TokenTrends, double_descent, token_trends


@dataclass(frozen=True)
class SameLoss:
    """A smaller size at its end beside the checkpoint of a larger size with the nearest held-out loss.

    step, gap:         of that checkpoint; by how much the two losses differ, nats
    across:            Spearman correlation over tokens of the perplexity under both
    within_gap:        the smallest difference in loss between that checkpoint and one just before or behind it
    within:            correlation of these two, which are of one size
    same_step:         correlation with the larger size at the same step, its end
    gains:             correlation of what the tokens gained in either size between two losses; None where the larger
                       size has one checkpoint that is nearest to both
    """

    smaller: str
    larger: str
    step: int
    gap: float
    across: float
    within_gap: float
    within: float
    same_step: float
    gains: float | None


def trends_of(trained: Trained, start: float) -> dict[str, TokenTrends]:
    """Trends of every size's tokens, at the paper's level and band."""
    settings = {"start": start, "steps": trained.steps, "level": LEVEL, "band": BAND}
    return {name: token_trends(table, **settings) for name, table in trained.tables.items()}


def shuffled_trends(table: Float[np.ndarray, "t s"], first: int, seed: int) -> TokenTrends:
    """Trends of the same series with each token's checkpoints in an order of its own: there is none to find."""
    series = np.random.default_rng(seed).permuted(table[:, first:], axis=1)
    return token_trends(series, start=0, level=LEVEL, band=BAND)


def kappa(labels: Shaped[np.ndarray, " t"], others: Shaped[np.ndarray, " t"]) -> float:
    """Cohen's κ = (o − e)/(1 − e): o tokens have one label in both, e would with the tokens shuffled. 1 is all."""
    names = np.unique([labels, others])
    shares = [np.array([np.mean(of == name) for name in names]) for of in (labels, others)]
    expected = float(shares[0] @ shares[1])
    return (float(np.mean(labels == others)) - expected) / (1 - expected) if expected < 1 else 1.0


def trend_results(trained: Trained, start: float, seed: int) -> dict[str, float]:
    """Shares by size, beside shuffled checkpoints; agreement of every two sizes, beside shuffled tokens."""
    found = trends_of(trained, start)
    begin = f"from step {trained.steps[trained.first(start)]} on"
    results, ratios = {}, []
    for name, trends in found.items():
        null = shuffled_trends(trained.tables[name], trends.first, seed).fractions
        results |= {f"{begin}, {name}: {trend}, % of tokens": 100 * trends.fractions[trend] for trend in TRENDS}
        moving, by_chance = (of["upward"] + of["downward"] for of in (trends.fractions, null))
        results[f"{begin}, {name}: upward or downward with checkpoints shuffled, %"] = 100 * by_chance
        ratios.append(moving / max(by_chance, 1 / len(trends.labels)))
    agreement = {pair: kappa(found[pair[0]].labels, found[pair[1]].labels) for pair in combinations(found, 2)}
    results |= {f"{begin}, {a}, {b}: same trend, kappa": value for (a, b), value in agreement.items()}
    falling = [trends.counts["downward"] > trends.counts["upward"] for trends in found.values()]
    return results | {
        f"{begin}: sizes with more tokens downward than upward": float(sum(falling)),
        f"{begin}: upward or downward / with checkpoints shuffled, smallest": min(ratios),
        f"{begin}: same trend in two sizes, smallest kappa": min(agreement.values()),
    }


def spearman(columns: Float[np.ndarray, "t c"]) -> Float[np.ndarray, "c c"]:
    """Rank correlation of any two columns."""
    return np.corrcoef(scipy.stats.rankdata(columns, axis=0), rowvar=False)


def correlations(trained: Trained) -> Float[np.ndarray, "c c"]:
    """Spearman over tokens of the perplexity under any two checkpoints, sizes one behind the other."""
    return spearman(np.concatenate(list(trained.tables.values()), axis=1))


def same_loss(trained: Trained, between: Float[np.ndarray, "c c"], start: float) -> list[SameLoss]:
    """Every smaller size against every larger one; gains are from the checkpoint at `start` of training on."""
    count, first = len(trained.steps), trained.first(start)
    logs = {name: np.log(table) for name, table in trained.tables.items()}
    blocks = {name: index * count for index, name in enumerate(trained.sizes)}
    found = []
    for smaller, larger in combinations(trained.sizes, 2):
        mine, theirs = trained.sizes[smaller], trained.sizes[larger]
        end, at = blocks[smaller] + count - 1, blocks[larger]
        here, before = nearest(theirs, mine[-1].loss), nearest(theirs, mine[first].loss)
        beside = [place for place in (here - 1, here + 1) if 0 <= place < count]
        gaps = [abs(theirs[place].loss - theirs[here].loss) for place in beside]
        neighbour = beside[int(np.argmin(gaps))]
        gains = None
        if before != here:
            gained = logs[smaller][:, first] - logs[smaller][:, -1], logs[larger][:, before] - logs[larger][:, here]
            gains = float(spearman(np.stack(gained, axis=1))[0, 1])
        found.append(
            SameLoss(
                smaller, larger, theirs[here].step, abs(theirs[here].loss - mine[-1].loss),
                float(between[end, at + here]), min(gaps), float(between[at + here, at + neighbour]),
                float(between[end, at + count - 1]), gains,
            )
        )  # fmt: skip
    return found


def same_loss_results(found: list[SameLoss]) -> dict[str, float]:
    """Whether loss, and not size or step, decides which tokens are learnt."""
    results = {}
    for pair in found:
        name = f"{pair.smaller}, {pair.larger}"
        results |= {
            f"{name}: step of the larger at the same loss": float(pair.step),
            f"{name}: difference of the losses": pair.gap,
            f"{name}: Spearman of tokens at the same loss": pair.across,
            f"{name}: within the larger size, loss apart": pair.within_gap,
            f"{name}: within the larger size, Spearman": pair.within,
            f"{name}: Spearman of tokens at the same step": pair.same_step,
        }
        if pair.gains is not None:
            results[f"{name}: gains between two losses, Spearman"] = pair.gains
    gains = [pair.gains for pair in found if pair.gains is not None]
    return results | {
        "same loss: pairs nearer than at the same step": float(sum(pair.across > pair.same_step for pair in found)),
        "same loss: smallest Spearman of tokens": min(pair.across for pair in found),
        "same loss: Spearman across sizes − within one, mean": float(
            np.mean([pair.across - pair.within for pair in found])
        ),
        "same loss: gains, smallest Spearman": min(gains, default=np.nan),
    }


def dealt(table: Float[np.ndarray, "t s"], seed: int) -> Float[np.ndarray, "t s"]:
    """The changes of log perplexity from one checkpoint to the next, each dealt to the tokens anew.

    Every checkpoint keeps the changes that it has, and no token its history: independent steps of the same sizes.
    """
    logs = np.log(table)
    changes = np.random.default_rng(seed).permuted(np.diff(logs, axis=1), axis=0)
    return np.exp(np.concatenate([logs[:, :1], logs[:, :1] + np.cumsum(changes, axis=1)], axis=1))


def scattered(table: Float[np.ndarray, "t s"], seed: int) -> Float[np.ndarray, "t s"]:
    """Every token's log perplexity with what is left of it, beside a line of its own, in another order of checkpoints.

    The line is fitted beside the mean over tokens, which all share: independent noise of each token's own size.
    """
    logs = np.log(table)
    common = logs.mean(axis=0)
    own = logs - common
    design = np.stack([np.ones(logs.shape[1]), np.arange(logs.shape[1])], axis=1)
    line = own @ np.linalg.pinv(design).T @ design.T
    return np.exp(common + line + np.random.default_rng(seed).permuted(own - line, axis=1))


def descent_results(trained: Trained, warm: float, seed: int) -> dict[str, float]:
    """Share of tokens with a double descent by size, beside three nulls; and how often it is the same tokens."""
    first, shows, results = trained.first(warm), {}, {}
    shares: dict[str, list[float]] = {}
    for name, table in trained.tables.items():
        series = table[:, first:]
        found = double_descent(series, tolerance=TOLERANCE)
        shows[name] = found.shows
        results[f"{name}: double descent, % of tokens"] = 100 * found.share
        nulls = {
            "changes dealt anew": dealt(series, seed),
            "noise around a line": scattered(series, seed),
            "backwards": series[:, ::-1],
        }
        for null, other in nulls.items():
            share = double_descent(other, tolerance=TOLERANCE).share
            results[f"{name}: double descent, {null}, %"] = 100 * share
            shares.setdefault(null, []).append(found.share / max(share, 1 / len(series)))
    lifts = [lift(shows[a], shows[b]) for a, b in combinations(shows, 2)]
    results |= {f"double descent: share / {null}, smallest": min(ratios) for null, ratios in shares.items()}
    return results | {"double descent: lift of the same tokens in two sizes, smallest": min(lifts)}


def lift(one: Shaped[np.ndarray, " t"], other: Shaped[np.ndarray, " t"]) -> float:
    """P(both)/(P(one) P(other)): 1 for independent tokens, and with the tokens shuffled; NaN when one never happens."""
    apart = one.mean() * other.mean()
    return float(np.mean(one & other) / apart) if apart > 0 else float("nan")
