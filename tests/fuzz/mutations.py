"""Texts and bytes near valid ones."""

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

Edit = tuple[str, int, bytes]

NUMBERS = [bytes([value] * width) for value in (0, 0xFF, 0x7F, 0x80, 1) for width in (1, 2, 4, 8)]
"""What lengths and offsets overflow at."""
_EDITS: st.SearchStrategy[Edit] = st.tuples(
    st.sampled_from(["put", "insert", "delete", "cut", "repeat", "flip"]),
    st.integers(0, 2**16 - 1),
    st.one_of(st.sampled_from(NUMBERS), st.binary(min_size=1, max_size=8)),
)

ODD = [
    *("", " ", "0", "1", "-1", "007", "1.5", "1e999", "nan", "NaN", "inf", "-inf", "none", "null", "true", "False"),
    *("é", "日本", "\u202eabc", "\x00", "\x1b[31m", "\ufeff", "a\nb", "a\tb", "'", '"', ",", ";", "|", "\\", "/"),
    *("..", ".", "~", "~nobody", "/dev/null", "/proc/self/mem", "%s", "{}", "[", "[]", "{a: 1}", "[1, 2]", "&a *a"),
    *("99999999999999999999", "-9223372036854775809", "2024-01-31", "31.01.2024", "1,5", "1.234,5", "$5", "a" * 300),
    *("a,b", "a|b", "a;b", "train", "valid", "test", "digits", "1 2", "=1+1", "2024-02-30", "00:00", "!!python/x"),
]
"""Texts that something somewhere takes for something else."""

words = st.one_of(st.sampled_from(ODD), st.text(max_size=12))


def edited(content: bytes, edits: Sequence[Edit]) -> bytes:
    """The bytes after some edits, whose places are spread over all of them."""
    changed = bytearray(content)
    for kind, place, put in edits:
        at = (place * 40_503 + 20_000) % 2**16 * len(changed) >> 16  # hypothesis prefers 0: files begin with headers
        if kind == "put":
            changed[at : at + len(put)] = put
        elif kind == "insert":
            changed[at:at] = put
        elif kind == "delete":
            del changed[at : at + len(put) * 3]
        elif kind == "cut":
            del changed[at:]
        elif kind == "repeat":
            changed[at:at] = changed[at : at + 16 * len(put)]
        elif changed:
            changed[min(at, len(changed) - 1)] ^= 1 << (put[0] % 8)
    return bytes(changed)


def near(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Bytes a few edits from one of some seeds, rarely any bytes at all."""
    few = st.builds(edited, st.sampled_from(list(seeds)), st.lists(_EDITS, max_size=3))
    return st.one_of(*[few] * 9, st.binary(max_size=80))


values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.integers(-3, 40), words, st.sampled_from([0.5, 1e-5])
    ),
    lambda below: st.one_of(st.lists(below, max_size=3), st.dictionaries(words, below, max_size=3)),
    max_leaves=6,
)
"""Whatever JSON can hold, and numbers that it cannot."""


def changed_json(text: str, path: Sequence[int], value: Any) -> str:
    """A JSON text with one value, found by positions from the outermost on, replaced; or removed, for ``...``."""
    content = json.loads(text)
    holder, place = [content], 0
    for step in path:
        below = holder[place]
        if not isinstance(below, dict | list) or not below:
            break
        holder = below
        place = list(below)[step % len(below)] if isinstance(below, dict) else step % len(below)
    if value is ...:
        del holder[place]
    else:
        holder[place] = value
    return json.dumps(content)
