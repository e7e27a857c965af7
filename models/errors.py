"""User errors, and lookup by name with suggestions."""

import difflib
import unicodedata
from collections.abc import Mapping
from typing import TypeVar

Entry = TypeVar("Entry")

LONGEST = 2_500
"""Maximum length of a message, in characters."""
_NOT_SHOWN = ("Cc", "Cs")
"""Control characters, and lone surrogates, which neither files nor databases can store."""


class UserError(ValueError):
    """Invalid input: bad data, a missing file, a setting that cannot work.

    The message says what is wrong, where (file, row, field) and what to do; the command line prints it without a
    traceback and exits with status 2. It may quote untrusted names and values, so control characters are escaped and
    long messages are cut.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))

    def _render_traceback_(self) -> list[str]:
        """What IPython and notebooks show instead of a traceback."""
        return [f"{type(self).__name__}: {self}"]


def printable(message: str) -> str:
    """Make a message safe for a terminal: control characters escaped, empty lines dropped, length limited."""
    lines = [line.rstrip() for line in message[:LONGEST].split("\n") if line.strip()]
    shown = "".join(
        each if each == "\n" or unicodedata.category(each) not in _NOT_SHOWN else ascii(each)[1:-1]
        for each in "\n".join(lines)
    )
    return f"{shown} ..." if len(message) > LONGEST else shown


def one_line(error: object) -> str:
    """A library's error message on one line, shortened."""
    return " ".join(str(error).split())[:200]


def choose(entries: Mapping[str, Entry], name: str, field: str) -> Entry:
    """Look up an entry by name.

    Raises
    ------
    UserError
        If there is no such entry; names the field, the choices and the closest one.

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
