"""The encoding of a text file: by its first bytes, by trying UTF-8 on all of it, or a guess that is said."""

import codecs
import re
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from unfreeze.models.errors import UserError

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before that of UTF-16, which it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_GUESSED = (
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp932", "gb18030", "euc_kr", "big5", "koi8_r"),
    *("iso8859_15", "mac_roman", "cp850"),
)
_FEWEST_ZEROS = 0.02
"""Share of the bytes of UTF-16 that are zero, whatever its script; other text has none."""
_LINES = 2_000
"""Lines beyond ASCII that a guess is made by."""


class Encoding(NamedTuple):
    """An encoding by its name in Python, and what is to be said about it if it is a guess."""

    name: str
    note: str = ""


def encoding_of(parts: Iterable[bytes], path: Path) -> Encoding:
    """The encoding of a file whose bytes come in `parts`.

    Raises UserError where some rows are UTF-8 and others are not, or several encodings are as likely.
    """
    valid, others, lines_before, rest, first_other = 0, list[bytes](), 0, b"", 0
    for position, part in enumerate(chain(parts, [b"\n"])):
        if position == 0 and (found := _by_first_bytes(part)):
            return found
        whole, _, rest = (rest + part).rpartition(b"\n")
        if not whole.isascii() and _is_utf8(whole):
            valid += 1
        elif not whole.isascii():
            for number, line in enumerate(whole.split(b"\n"), start=lines_before + 1):
                if not line.isascii() and _is_utf8(line):
                    valid += 1
                elif not line.isascii() and len(others) < _LINES:
                    first_other = first_other or number
                    others.append(line)
        lines_before += whole.count(b"\n") + 1
    if not others:
        return Encoding("utf-8")
    if valid > len(others) / 10:
        raise UserError(f"{path}, line {first_other}: not UTF-8 text, though other lines are; save the file as UTF-8")
    return _guess(b"\n".join(others), path)


def _by_first_bytes(part: bytes) -> Encoding | None:
    for mark, name in _MARKS.items():
        if part.startswith(mark):
            return Encoding(name)
    first = part[: 1 << 16]
    even, odd = first[::2].count(b"\0"), first[1::2].count(b"\0")
    if max(even, odd) <= _FEWEST_ZEROS * len(first):  # of separators alone text has more
        return None
    name = "utf-16-le" if odd > even else "utf-16-be"
    text = first[: len(first) // 2 * 2].decode(name, errors="replace")
    if "\0" in text or not re.search(r"[\r\n]", text):
        return None
    return Encoding(name, f"read as {name.upper()}, a guess by its bytes: no byte order mark says so")


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _guess(text: bytes, path: Path) -> Encoding:
    from charset_normalizer import from_bytes

    matches = list(from_bytes(text, cp_isolation=list(_GUESSED), threshold=0.5))
    if not matches:
        raise UserError(f"{path}: its encoding is not known; save it as UTF-8")
    clean = [each for each in matches if each.chaos <= min(other.chaos for other in matches) + 0.02]
    likely = [each for each in clean if each.coherence >= max(other.coherence for other in clean) - 0.1]
    readings = {name: str(each) for each in likely for name in each.could_be_from_charset}
    first = min(readings, key=_GUESSED.index)
    if first != "cp1252" and len({*readings.values()}) > 1:  # that of Windows in the West is by far the most frequent
        ways = " or ".join(f"{name} ({_examples(text, 1)})" for name, text in [*readings.items()][:3])
        raise UserError(f"{path}: not UTF-8 text, and as likely {ways}; save it as UTF-8")
    return Encoding(first, f"read as {first}, a guess: {_examples(readings[first], 3)} (else save it as UTF-8)")


def _examples(text: str, most: int) -> str:
    words = dict.fromkeys(word[:30] for word in re.findall(r"[^\s,;|\"]+", text) if not word.isascii())
    return ", ".join(map(repr, [*words][:most]))
