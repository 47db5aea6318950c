"""What is compared: checkpoints, tasks, how each cell is predicted and trained."""

from collections.abc import Mapping
from dataclasses import dataclass

from experiments.pretrain.checkpoints import Checkpoint
from experiments.pretrain.tasks import Source
from ntkft._errors import InputError


@dataclass(frozen=True)
class Setting:
    """A cell is a checkpoint on a task: `models` × `stages` of them for each task."""

    models: tuple[str, ...]
    """Sizes of experiments/pretrain."""
    stages: tuple[int, ...]
    """Steps of pretraining, the earliest first."""
    tasks: tuple[tuple[str, Source], ...]
    sizes: tuple[tuple[str, int], ...]
    """Examples of each set; a cell's kernel is over the first two."""
    scale: float
    """Of the fresh head, weights from N(0, scale²/width). Larger ones drown the task in outputs that mean nothing."""
    step: float
    """Step size of gradient descent, predicted and real, in units of 1/λ̂₁ of each cell."""
    epochs: int
    """Up to which risk is predicted: an epoch in closed form costs nothing."""
    descents: tuple[str, ...]
    """Tasks on which gradient descent is really run."""
    descent: tuple[int, ...]
    """Epochs at which it is measured; the last is where it ends unless it has passed its best one before."""
    checks: tuple[int, ...]
    """Measured epochs at which it is over if it is 1.4 times as old as its best epoch."""
    rates: tuple[float, ...]
    """Of AdamW, which is run with each."""
    adamw: tuple[int, ...]
    """Epochs at which AdamW is measured."""
    length: int
    """Epochs of AdamW on all training examples."""
    curves: tuple[str, ...]
    """Tasks with a learning curve."""
    points: tuple[tuple[int, int], ...]
    """Examples and epochs of AdamW on its smaller training sets."""
    rate: float
    """Of AdamW along learning curves; among `rates`, so that the curve's last point is there already."""
    time: float
    """Steps of predicted gradient descent after which the residual that is left is read."""
    seed: int
    """Of splits, fresh heads and the order of minibatches."""

    @property
    def size(self) -> Mapping[str, int]:
        """Examples of each set by name."""
        return dict(self.sizes)


REAL = Setting(
    models=("0.3M", "1M", "3M"),
    stages=(0, 128, 1024, 3072),
    tasks=(
        ("docs", Source("docs", ("special", "stats"), 24)),
        ("trec", Source("trec/train.tsv", ("0", "1", "3"), 24)),
        ("places", Source("trec/train.tsv", ("4", "5"), 24)),
    ),
    sizes=(("train", 64), ("validation", 192), ("test", 320)),
    scale=0.25,  # Hugging Face draws heads from N(0, 0.02²), which at these widths is 0.14 to 0.36
    step=0.5,
    epochs=2**17,
    descents=("docs", "trec", "places"),
    descent=(0, 1, 2, 4, 6, 8, 11, 16, 22, 27, 33, 38, 44),
    checks=(11, 22, 33, 44),  # equally far apart, so that one program serves all parts
    rates=(1e-3, 3e-3, 1e-2),
    adamw=(0, 1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64),
    length=12,
    curves=("docs", "trec"),
    points=((8, 64), (16, 32), (32, 16)),
    rate=1e-3,
    time=20,
    seed=0,
)
SMOKE = Setting(
    models=("tiny",),
    stages=(2, 16, 128),
    tasks=(("docs", Source("docs", ("special", "stats"), 12)),),
    sizes=(("train", 32), ("validation", 16), ("test", 32)),
    scale=0.25,
    step=0.5,
    epochs=64,
    descents=("docs",),
    descent=(0, 1, 2, 3, 6),
    checks=(3, 6),
    rates=(1e-3, 3e-3),
    adamw=(0, 1, 2, 3),
    length=3,
    curves=(),  # a program for each of its sizes would take most of the time
    points=((4, 6), (8, 6), (16, 4)),
    rate=3e-3,
    time=20,
    seed=0,
)


def chosen(found: list[Checkpoint], setting: Setting) -> list[Checkpoint]:
    """The checkpoints of the setting, the smallest size first and each by step; `InputError` names those missing."""
    there = {(each.size, each.step): each for each in found}
    wanted = [(size, step) for size in setting.models for step in setting.stages]
    if missing := [f"{size} at step {step}" for size, step in wanted if (size, step) not in there]:
        raise InputError(
            f"--checkpoints: there is no {', '.join(missing)}; train them: python -m experiments.pretrain.run"
        )
    return sorted((there[each] for each in wanted), key=lambda each: (each.parameters, each.step))
