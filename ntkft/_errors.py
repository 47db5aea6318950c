"""The one error class for input that cannot be used."""


class InputError(ValueError):
    """Input that cannot be used; the message says what was got, what was wanted and what to do about it.

    A subclass of `ValueError`, so library users catch what they are used to, while the command line can tell a
    mistake in the input (one sentence, exit status 2) from a mistake in this package (a traceback).
    """


def refuse(what: str, problems: list[str]) -> None:
    """Raise one `InputError` that lists every problem, or return when there is none.

    Problems are collected before this is called: a user who has three mistakes to mend learns of all three.
    """
    if len(problems) == 1:
        raise InputError(f"{what}: {problems[0]}")
    if problems:
        lines = "".join(f"\n  - {problem}" for problem in problems)
        raise InputError(f"{what}: {len(problems)} problems{lines}")
