"""The kernel of a model on a task, training examples as its columns: predictions and measures need no others."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from experiments.pretrain.tasks import Rows
from ntkft._tree import take_examples
from ntkft.kernels import Kernel, Plan, empirical_ntk
from ntkft.models import Model


def training_columns(
    model: Model, rows: Rows, others: slice, *, groups: Mapping[str, str], memory: str
) -> tuple[Kernel, tuple[Plan, Plan]]:
    """The exact kernel of the n training rows, then of the `others`, with the n training rows: `[n + o, n]`.

    Training rows are differentiated once for each of the two blocks, whose plans are returned in this order.
    """
    train = take_examples(rows.inputs, rows.where("train"))
    rest = take_examples(rows.inputs, others)
    options = {"outputs": rows.outputs, "groups": groups, "memory": memory}
    square = empirical_ntk(model.apply_fn, model.params, train, **options)
    cross = empirical_ntk(model.apply_fn, model.params, rest, train, **options)
    joined = replace(
        square,
        total=np.concatenate([square.total, cross.total]),
        groups={name: np.concatenate([square.groups[name], cross.groups[name]]) for name in square.groups},
        symmetric=False,
    )
    return joined, (square.plan, cross.plan)
