"""One measurement, one fresh process: nothing of what ran before it, and no harm to what comes after it."""

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from ntkft._errors import InputError


class ProcessError(RuntimeError):
    """A fresh process ended without an answer; the message is one line that says how."""


def in_fresh_process(function: Callable[..., Any], /, *, x64: bool = False, **arguments: Any) -> Any:
    """`function(**arguments)`, a function of an importable module, run by a new interpreter with this one's paths.

    x64: with float64 in JAX
    Arguments and result travel as JSON. Raises the `InputError` that the function raised, and `ProcessError` when
    the process failed otherwise or was killed.
    """
    module = function.__module__
    if module == "__main__":  # of `python -m module`
        spec = sys.modules[module].__spec__
        assert spec is not None, "a fresh process imports the function's module; start it with python -m"
        module = spec.name
    target = f"{module}:{function.__qualname__}"
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-c", f"from {__name__} import answer; answer({target!r})"],
        input=json.dumps(arguments),
        env=os.environ | {"PYTHONPATH": paths} | ({"JAX_ENABLE_X64": "1"} if x64 else {}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise ProcessError(f"killed by {name}{', most likely out of memory' if name == 'SIGKILL' else ''}")
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no message"]
        raise ProcessError(said[-1])
    reply = json.loads(done.stdout.splitlines()[-1])
    if "unusable" in reply:
        raise InputError(reply["unusable"])
    return reply["result"]


def answer(target: str) -> None:
    """The other side: call `module:function` with the arguments on standard input, print what it gives."""
    module, _, name = target.partition(":")
    try:
        reply = {"result": getattr(importlib.import_module(module), name)(**json.load(sys.stdin))}
    except InputError as error:
        reply = {"unusable": str(error)}
    print(json.dumps(reply), flush=True)
