"""The 104 models of Gadre et al. 2024 (MIT licence): loss on C4's validation set, and accuracy on 46 tasks."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ntkft.data.tables import name_column, number_columns, read_table
from ntkft.emergence import Threshold, chance_normalised, find_threshold

LOSS = "loss:training/eval_data/c4_val/shard-{0000000..0000010}.tar"
CORPORA = {"c4_original": "C4", "rpj": "RedPajama", "rw_original": "RefinedWeb"}
SMALL = 153_677_376
"""Parameters of the model size by which the subset is chosen, 0.154 billion."""
MARGIN = 0.1
"""Accuracy above chance that one of these models must have on a task of the subset."""


@dataclass(frozen=True)
class Testbed:
    """corpus, loss, params: of each model `[n]`; accuracy: task → `[n]`; chance: task → that of a guess."""

    corpus: np.ndarray
    loss: np.ndarray
    params: np.ndarray
    accuracy: Mapping[str, np.ndarray]
    chance: Mapping[str, float]

    def subset(self) -> list[str]:
        """Tasks on which some model of 0.154 billion parameters is more than 10 points above chance: 17 of them."""
        small = self.params == SMALL
        return [
            task for task, accuracy in self.accuracy.items() if (accuracy[small] - self.chance[task]).max() > MARGIN
        ]

    def mean_error(self, tasks: list[str]) -> np.ndarray:
        """1 − mean accuracy over tasks, `[n]`."""
        return 1 - np.mean([self.accuracy[task] for task in tasks], axis=0)

    def threshold(self, task: str, corpus: str, *, draws: int) -> tuple[np.ndarray, np.ndarray, Threshold]:
        """Losses, scores with chance at 0, and what they say, of one task and training corpus."""
        mine = self.corpus == corpus
        scores = chance_normalised(self.accuracy[task], self.chance[task])[mine]
        return self.loss[mine], scores, find_threshold(self.loss[mine], scores, level=0.95, draws=draws, seed=0)


def read_testbed(table: Path) -> Testbed:
    """The table of models, and `eval_metadata.csv` beside it for the chance levels (in percent there)."""
    rows, about = read_table(table), read_table(table.with_name("eval_metadata.csv"))
    tasks = [name.removeprefix("acc:") for name in rows.column_names if name.startswith("acc:")]
    columns = number_columns(rows, [LOSS, "params", *(f"acc:{task}" for task in tasks)], what=table.name)
    percent = number_columns(about, ["Random baseline"], what="eval_metadata.csv")["Random baseline"]
    chance = dict(zip(name_column(about, "Eval Task", what="eval_metadata.csv"), percent / 100, strict=True))
    return Testbed(
        corpus=np.array(name_column(rows, "train_set", what=table.name)),
        loss=columns[LOSS],
        params=columns["params"],
        accuracy={task: columns[f"acc:{task}"] for task in tasks},
        chance={task: float(chance[task]) for task in tasks},
    )
