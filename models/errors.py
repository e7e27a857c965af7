"""Errors for users, and lookups by name that end in one."""

import difflib
import unicodedata
from collections.abc import Mapping
from typing import TypeVar

Entry = TypeVar("Entry")

LONGEST = 2_500
"""Characters of a message."""
_NOT_SHOWN = ("Cc", "Cs")
"""Control characters, and halves of characters that no file and no database can keep."""


class UserError(ValueError):
    """Invalid input: bad data, a missing file, a setting that cannot work.

    The message says what is wrong, where (file, row, field) and what to do; the command line prints it without a
    traceback and exits with status 2. Names and values in it come from anywhere: what a terminal would obey instead of
    showing is written as an escape, and a message is cut where nobody would read on.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def printable(message: str) -> str:
    """A message as a terminal may have it: escapes instead of control characters, no empty lines, not endless."""
    lines = [line.rstrip() for line in message[:LONGEST].split("\n") if line.strip()]
    shown = "".join(
        each if each == "\n" or unicodedata.category(each) not in _NOT_SHOWN else ascii(each)[1:-1]
        for each in "\n".join(lines)
    )
    return f"{shown} ..." if len(message) > LONGEST else shown


def one_line(error: object) -> str:
    """What a library says, for a message of ours: without line breaks, and not endless."""
    return " ".join(str(error).split())[:200]


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
