"""The points of every fit here: a loss and a score for each model, refused once with all that is wrong."""

import numpy as np
from jaxtyping import Num

from ntkft._errors import refuse
from ntkft._types import Array


def checked_points(what: str, losses: Num[Array, "..."], scores: Num[Array, "..."]) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 `[n]`, ordered by loss.

    Raises one `InputError`, opened by `what`, for shapes other than `[n]` and `[n]`, no points, numbers that are not
    finite, and losses that are not above 0: a cross-entropy never is.
    """
    x, y = np.asarray(losses, np.float64), np.asarray(scores, np.float64)
    problems = []
    if not x.shape == y.shape == (x.size,) or not x.size:
        problems.append(f"got losses {list(x.shape)} and scores {list(y.shape)}; wanted one of each for every model")
    for name, values in (("losses", x), ("scores", y)):
        if bad := int(np.sum(~np.isfinite(values))):
            problems.append(f"{bad} of {values.size} {name} are NaN or infinite; leave those models out")
    if np.any(x <= 0):
        example = f"{x[x <= 0].flat[0]:g}"
        problems.append(f"{int(np.sum(x <= 0))} losses are not above 0, such as {example}; is it the right column?")
    refuse(what, problems)
    order = np.argsort(x, kind="stable")
    return x[order], y[order]
