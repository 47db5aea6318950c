"""What is claimed, as numbers made from the records."""

from collections.abc import Mapping

import numpy as np
import scipy.stats

from experiments.risk_prediction.runs import at, best
from experiments.risk_prediction.setting import Setting
from ntkft.anchoring import Horizon, trust_horizon

HORIZON = 0.015
"""Where the first-order and the re-anchored risk part by this, the first kernel is no longer trusted to 2 %."""
TRUSTED = 0.02
FACTOR = 1.5


def horizon(record: Mapping[str, dict], setting: Setting) -> Horizon:
    """Of one run, from kernels alone."""
    epochs = setting.epochs
    anchored = np.asarray(record["anchored"]["mse"])
    return trust_horizon(epochs, first_order(record, epochs), anchored, tolerance=HORIZON)


def first_order(record: Mapping[str, dict], epochs) -> np.ndarray:
    """Risk from the one kernel over the pool, at these epochs."""
    return np.asarray(record["first_order"]["mse"])[list(epochs)]


def row(record: Mapping[str, dict], setting: Setting) -> dict[str, float]:
    """One run: prediction beside reality."""
    real, mine = record["real"], record["anchored"]
    epoch, risk = best(real)
    seen = horizon(record, setting)
    trusted = [t for t in real["epochs"] if t <= seen.epoch]
    truth = np.array([at(real["epochs"], real["mse"], t) for t in trusted])
    off = np.abs(first_order(record, real["epochs"]) / np.array(real["mse"]) - 1) > TRUSTED
    # Over all epochs, not only those of the real run, which ends soon after its best one.
    predicted_epoch, predicted_risk = best(mine)
    first = np.asarray(record["first_order"]["mse"])
    return {
        "real_epoch": epoch,
        "real_risk": risk,
        "last_epoch": real["epochs"][-1],
        "predicted_epoch": predicted_epoch,
        "predicted_risk": predicted_risk,
        "first_order_epoch": int(np.argmin(first)),
        "first_order_risk": float(first.min()),
        "horizon": seen.epoch,
        "first_order_holds_to": real["epochs"][max(int(np.argmax(off)) - 1, 0) if off.any() else -1],
        "first_order_error_to_horizon": float(np.abs(first_order(record, trusted) / truth - 1).max()),
        "first_order_error_at_best": abs(first_order(record, [epoch])[0] / risk - 1),
        "anchored_error_at_best": abs(at(mine["epochs"], mine["mse"], epoch) / risk - 1),
        "epoch_ratio": max(predicted_epoch, epoch) / max(min(predicted_epoch, epoch), 1),
    }


def claims(rows: list[dict], seconds: Mapping[str, float]) -> dict[str, float]:
    """What `expected.toml` is compared with. `seconds`: of the surfaces, the re-anchored predictions, the real grid."""

    def column(name: str) -> np.ndarray:
        return np.array([row[name] for row in rows])

    return {
        "runs": len(rows),
        "first order up to the horizon: largest error, %": 100 * column("first_order_error_to_horizon").max(),
        "horizon covers a third of the way to the optimum, % of runs": 100
        * np.mean(column("horizon") >= column("real_epoch") / 3),
        "first order really holds for a third of the way, % of runs": 100
        * np.mean(column("first_order_holds_to") >= column("real_epoch") / 3),
        "first order at the real best epoch: median error, %": 100 * np.median(column("first_order_error_at_best")),
        "re-anchored at the real best epoch: median error, %": 100 * np.median(column("anchored_error_at_best")),
        "re-anchored at the real best epoch: largest error, %": 100 * column("anchored_error_at_best").max(),
        "best epoch within a factor 1.5, % of runs": 100 * np.mean(column("epoch_ratio") <= FACTOR),
        "time of the surfaces / of the real grid": seconds["surface"] / seconds["real"],
        "time of the re-anchored predictions / of the real grid": seconds["anchored"] / seconds["real"],
    } | rank_correlations(rows)


def rank_correlations(rows: list[dict]) -> dict[str, float]:
    """Spearman's between predicted and real lowest risk over (task, n), means over seeds; of three cells or more."""
    cells = sorted({(row["task"], row["n"]) for row in rows})
    if len(cells) < 3:
        return {}

    def ranks(name: str) -> np.ndarray:
        return scipy.stats.rankdata(
            [np.mean([row[name] for row in rows if (row["task"], row["n"]) == cell]) for cell in cells]
        )

    return {
        f"lowest risk, {title} and real: Spearman": float(np.corrcoef(ranks(name), ranks("real_risk"))[0, 1])
        for title, name in (("predicted", "predicted_risk"), ("first order", "first_order_risk"))
    }
