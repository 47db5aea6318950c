"""The run-time type checker that pytest switches on for every function of the package.

Closed sets of names are checked as plain strings, so that a wrong name reaches the sentence that the package itself
has for it.
"""

import typing

import beartype


def check(function):
    """beartype, with `Literal` annotations of strings read as `str`."""
    hints = {
        hint for hint in getattr(function, "__annotations__", {}).values() if typing.get_origin(hint) is typing.Literal
    }
    overrides = beartype.FrozenDict(dict.fromkeys(hints, str))
    return beartype.beartype(conf=beartype.BeartypeConf(hint_overrides=overrides))(function)
