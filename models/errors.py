"""Errors for users, and lookups by name that end in one."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

Entry = TypeVar("Entry")


class UserError(ValueError):
    """Invalid input: bad data, a missing file, a setting that cannot work.

    The message says what is wrong, where (file, row, field) and what to do; the command line prints it without a
    traceback and exits with status 2.
    """


def choose(entries: Mapping[str, Entry], name: str, field: str) -> Entry:
    """The entry of that name.

    Raises
    ------
    UserError
        If there is none; names the field, the choices and the nearest of them.

    Examples
    --------
    >>> choose({"adamw": 1, "sgd": 2}, "sgd", "optimizer.name")
    2
    """
    if name in entries:
        return entries[name]
    close = difflib.get_close_matches(name, entries, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise UserError(f"{field}: {name!r} is not one of {', '.join(entries)}{hint}")
