"""ntkft: empirical neural tangent kernels of pretrained attention models, and what they say about fine-tuning.

The map, in the order of the theory: model and data, linearisation, kernel, spectrum, dynamics, the real thing.
Names are resolved on first use, so that `import ntkft` costs no more than JAX.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ntkft._errors import InputError as InputError
    from ntkft.kernels import Kernel as Kernel
    from ntkft.kernels import empirical_ntk as empirical_ntk
    from ntkft.kernels import read_kernel as read_kernel

_HOME = {
    "InputError": "ntkft._errors",
    "Kernel": "ntkft.kernels",
    "empirical_ntk": "ntkft.kernels",
    "read_kernel": "ntkft.kernels",
}
__all__ = list(_HOME)
__version__ = "0.1.0"


def __getattr__(name: str):
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'ntkft' has no attribute {name!r}")
