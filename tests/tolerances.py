"""The one table of tolerances, with reasons. Never loosened beside the code that it judges."""

import numpy as np

# max |K - K'| / sqrt(K_ii K'_jj): rounding of one pass in the working precision, for kernels of a few thousand
# parameters up to real checkpoints.
KERNEL_F64 = 1e-10
KERNEL_F32 = 5e-6
# Factors kept in bfloat16 (8 bits), accumulated in float32.
KERNEL_BF16_STORED = 5e-4
# Changing padding, tile size or order of examples must not change the result beyond float32 rounding.
INVARIANCE_F32 = 1e-6

# Against transformers: logits and parameter gradients, relative to the largest entry.
PARITY = {"float32": 1e-5, "float64": 1e-10}

# A closed form against explicit iteration or another library's implementation, in float64.
CLOSED_FORM = 1e-10


def kernel_error(actual, expected) -> float:
    """Largest entry of |actual - expected| in units of sqrt(K_ii K_jj) of the expected kernel.

    For rectangular kernels, where K_ii is not at hand, the unit is the largest entry of `expected`.
    """
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    n = int(np.prod(expected.shape[: expected.ndim // 2]))
    m = expected.size // n
    difference, square = np.abs(actual - expected).reshape(n, m), expected.reshape(n, m)
    if n != m:
        return float(difference.max() / np.abs(square).max())
    unit = np.sqrt(np.abs(np.outer(np.diag(square), np.diag(square))))
    return float((difference / np.where(unit > 0, unit, 1.0)).max())
