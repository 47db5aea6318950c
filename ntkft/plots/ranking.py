"""Figure of a ranking: the risk that each checkpoint's kernel predicts, over epochs."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure

from ntkft.plots.style import GREY, SERIES, SMALL, new_axes

_LONGEST = 44
"""Characters of a name; of longer ones, which are paths, the end tells them apart."""


def ranking(
    names: Sequence[str],
    epochs: Int[np.ndarray, " s"],
    curves: Sequence[Float[np.ndarray, " s"]],
    *,
    risk: str,
    task: str,
) -> Figure:
    """Predicted risk of every checkpoint over epochs, the best named first; a mark where it is lowest.

    risk: how it is measured; task: what it is of. Colours reach for the nine best; the others are grey, without a name.
    """
    figure, axes = new_axes(
        f"Predicted risk of {len(names)} checkpoints\n{task}", "epoch of full-batch gradient descent", risk,
        height=3.6 + 0.2 * min(len(names), len(SERIES)),
    )  # fmt: skip
    for place, (name, curve) in enumerate(zip(names, curves, strict=True)):
        named = place < len(SERIES)
        colour, best = SERIES[place] if named else GREY, int(np.argmin(curve))
        short = name if len(name) <= _LONGEST else "…" + name[-_LONGEST:]
        label = f"{place + 1}. {short}: {curve[best]:.3f} at {epochs[best]}" if named else None
        axes.plot(epochs, curve, color=colour, linewidth=1.6 if named else 0.8, alpha=1 if named else 0.6, label=label)
        axes.plot(epochs[best], curve[best], "o", color=colour, markersize=5 if named else 2)
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xlim(left=0)
    figure.legend(loc="outside lower left", frameon=False, fontsize=SMALL)
    return figure
