"""What really happens: fine-tuning with optax, the judge of every prediction.

Read in this order: `optimizers` (how a gradient becomes a step), `losses` (what is minimised and what is measured),
`descent` (the compiled training loop), `result` (what is reported), `checkpoint` (what survives an interrupt), `run`
(`finetune`, which puts them together).
"""

from ntkft.finetuning.descent import epoch_order
from ntkft.finetuning.optimizers import Optimizer, adamw, gradient_descent, l2_sp, momentum, sign_descent
from ntkft.finetuning.result import Curve, FinetuneResult
from ntkft.finetuning.run import finetune

__all__ = [
    "Curve",
    "FinetuneResult",
    "Optimizer",
    "adamw",
    "epoch_order",
    "finetune",
    "gradient_descent",
    "l2_sp",
    "momentum",
    "sign_descent",
]
