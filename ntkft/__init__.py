"""ntkft: the map, in the order of the theory. Names are resolved on first use: `import ntkft` itself costs nothing."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ntkft._errors import InputError as InputError
    from ntkft.data import Task as Task, load_task as load_task
    from ntkft.dynamics import predict_risk as predict_risk, stopping_time as stopping_time
    from ntkft.finetuning import finetune as finetune
    from ntkft.kernels import Kernel as Kernel, empirical_ntk as empirical_ntk, read_kernel as read_kernel
    from ntkft.models import Model as Model, load as load
    from ntkft.spectra import (
        critical_radius as critical_radius,
        fit_decay as fit_decay,
        local_rademacher as local_rademacher,
        spectrum as spectrum,
    )
    from ntkft.taskvectors import task_vector as task_vector

_HOMES = {
    "ntkft.models": ("Model", "load"),
    "ntkft.data": ("Task", "load_task"),
    "ntkft.kernels": ("Kernel", "empirical_ntk", "read_kernel"),
    "ntkft.spectra": ("spectrum", "fit_decay", "local_rademacher", "critical_radius"),
    "ntkft.dynamics": ("stopping_time", "predict_risk"),
    "ntkft.taskvectors": ("task_vector",),
    "ntkft.finetuning": ("finetune",),
    "ntkft._errors": ("InputError",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
__all__ = list(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]
__version__ = "0.1.0"


def __getattr__(name: str):
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'ntkft' has no attribute {name!r}")
