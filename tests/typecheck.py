"""The run-time type checker that pytest switches on for every function of the package.

Closed sets of names are checked as plain strings, so that a wrong name reaches the sentence that the package itself
has for it. An int is a float, as for every static type checker (PEP 484); without that, beartype, which looks at one
random item of a list, fails at random on a list of floats that ends in an int.

jaxtyping binds the axis letters of a call before it checks them, which takes ten times as long as the check. Most
functions have no shapes in their signature, so that only beartype has something to say of them.
"""

import inspect
import typing

import beartype
import jaxtyping

_with_shapes = jaxtyping.jaxtyped


def check(function):
    """beartype, with `Literal` annotations of strings read as `str`."""
    hints = {
        hint for hint in getattr(function, "__annotations__", {}).values() if typing.get_origin(hint) is typing.Literal
    }
    overrides = beartype.FrozenDict(dict.fromkeys(hints, str))
    return beartype.beartype(conf=beartype.BeartypeConf(hint_overrides=overrides, is_pep484_tower=True))(function)


def jaxtyped(function=None, /, *, typechecker=check):
    """`jaxtyping.jaxtyped`, which for a function without shapes is the type checker alone."""
    if function is None:
        return lambda function: jaxtyped(function, typechecker=typechecker)
    if inspect.isfunction(function) and not any(map(_has_shapes, function.__annotations__.values())):
        return typechecker(function)
    return _with_shapes(function, typechecker=typechecker)


def install() -> None:
    """Check every function of `ntkft` that is imported from now on."""
    jaxtyping.jaxtyped = jaxtyped
    jaxtyping.install_import_hook("ntkft", f"{__name__}.check")


def _has_shapes(hint) -> bool:
    if isinstance(hint, str):  # of a class that is not yet defined
        return True
    if isinstance(hint, list):  # the arguments of a Callable
        return any(map(_has_shapes, hint))
    if inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    return any(map(_has_shapes, typing.get_args(hint)))
