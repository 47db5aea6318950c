"""What is measured: tasks, which checkpoints, how training on them is predicted."""

from dataclasses import dataclass

from experiments.pretrain.tasks import Source
from ntkft.models import GROUPS

HEAD = "head"
GROUPS_SHOWN: dict[str, str] = {
    name: "|".join(GROUPS[part] for part in parts)
    for name, parts in {
        "embeddings": ("embedding",),
        "attention": ("q", "k", "v", "o"),
        "mlp": ("mlp",),
        "norms, biases": ("norm", "bias"),
        HEAD: ("head",),
    }.items()
}
"""The model's own parameter groups, those of one kind together: name → regular expression over parameter paths."""


@dataclass(frozen=True)
class Setting:
    """The tasks, and what is the same for every checkpoint."""

    tasks: tuple[tuple[str, Source], ...]
    sizes: tuple[tuple[str, int], ...]
    """Examples of each set, in the order of the kernel's rows."""
    skipped: tuple[int, ...]
    """Steps of pretraining whose checkpoints are left out."""
    scale: float
    """Of the fresh head, weights from N(0, scale²/width). Larger ones drown the task in outputs that mean nothing."""
    step: float
    """Step size of the predicted fine-tuning, in units of 1/λ̂₁ of each kernel."""
    epochs: tuple[int, ...]
    """At which predicted risk is read; the validation set chooses among them."""
    window: int
    """Last eigenvalue of the decay fit, which begins at the first."""
    leading: int
    """Eigenvectors that count as leading."""
    turn: int
    """Step from which on quantities are held against perplexity a second time."""
    settled: float
    """Kernel and loss have settled when this share of their way is left."""
    seed: int
    """Of the split and of the fresh head."""


REAL = Setting(
    tasks=(
        ("docs", Source("docs", ("special", "stats"), 24)),
        ("trec", Source("trec/train.tsv", ("0", "1", "3"), 24)),
    ),
    sizes=(("train", 128), ("validation", 64), ("test", 192)),
    skipped=(1, 2, 4, 8, 16, 32),  # of 128 steps of warm-up: hardly a change, and nearly half of the time
    scale=0.25,  # Hugging Face draws heads from N(0, 0.02²), which at these widths is 0.14 to 0.36
    step=0.5,
    # 0, 1, 2, 3, 4, 6, 8, …, 2²⁰, where rounding begins: one direction may be a thousand times as fast as the others.
    epochs=(0, *(round(2 ** (half / 2)) for half in (0, *range(2, 41)))),
    window=32,
    leading=16,
    turn=256,  # chosen after the run: the spectrum is steepest here or at 512, and opens from then on
    settled=0.1,
    seed=0,
)
SMOKE = Setting(
    tasks=(("docs", Source("docs", ("special", "stats"), 32)),),
    sizes=(("train", 24), ("validation", 12), ("test", 24)),
    skipped=(1, 2, 4, 16, 64),
    scale=0.25,
    step=0.5,
    epochs=REAL.epochs,
    window=8,
    leading=3,
    turn=8,
    settled=0.1,
    seed=0,
)
