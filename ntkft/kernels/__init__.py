"""Empirical neural tangent kernels: exact, on disk, approximated with a stated error, matrix-free, of sign updates."""

from ntkft.kernels.empirical import Method, empirical_ntk
from ntkft.kernels.kernel import Kernel, LeafPlan, Plan, Precision
from ntkft.kernels.operator import Choice, KernelOperator, dense_or_matrix_free
from ntkft.kernels.projection import Pilot, ProjectedKernel, projected_ntk, projection_pilot
from ntkft.kernels.row_sampled import Nystrom, NystromError, kernel_diagonal, nystrom, nystrom_error, sample_rows
from ntkft.kernels.signgd import signgd_ntk
from ntkft.kernels.store import read_kernel

__all__ = [
    "Choice",
    "Kernel",
    "KernelOperator",
    "LeafPlan",
    "Method",
    "Nystrom",
    "NystromError",
    "Pilot",
    "Plan",
    "Precision",
    "ProjectedKernel",
    "dense_or_matrix_free",
    "empirical_ntk",
    "kernel_diagonal",
    "nystrom",
    "nystrom_error",
    "projected_ntk",
    "projection_pilot",
    "read_kernel",
    "sample_rows",
    "signgd_ntk",
]
