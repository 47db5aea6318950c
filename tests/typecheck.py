"""The run-time type checker that pytest switches on for every function of the package.

Closed sets of names are checked as plain strings, so that a wrong name reaches the sentence that the package itself
has for it. An int is a float, as for every static type checker (PEP 484); without that, beartype, which looks at one
random item of a list, fails at random on a list of floats that ends in an int.
"""

import typing

import beartype


def check(function):
    """beartype, with `Literal` annotations of strings read as `str`."""
    hints = {
        hint for hint in getattr(function, "__annotations__", {}).values() if typing.get_origin(hint) is typing.Literal
    }
    overrides = beartype.FrozenDict(dict.fromkeys(hints, str))
    return beartype.beartype(conf=beartype.BeartypeConf(hint_overrides=overrides, is_pep484_tower=True))(function)
