"""Exact empirical neural tangent kernels: `empirical_ntk`, the record it returns, and kernels on disk."""

from ntkft.kernels.empirical import Method, empirical_ntk
from ntkft.kernels.kernel import Kernel, Plan
from ntkft.kernels.store import read_kernel

__all__ = ["Kernel", "Method", "Plan", "empirical_ntk", "read_kernel"]
