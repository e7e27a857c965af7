"""Numbers that a table holds as text: with currency, percent, separators of thousands, or a decimal comma."""

from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from unfreeze.models.tables.reading import in_chunks

DecimalMark = Literal[".", ","]

MISSING_WORDS = frozenset(
    (
        *("", "?", "-", "--", "\N{EN DASH}", "\N{EM DASH}", ".", "..", "...", "*", "#"),
        *("na", "n/a", "n.a.", "#n/a", "nan", "null", "none", "nil", "missing", "unknown"),
    )
)
"""Texts that stand for a missing value in a column of numbers, whatever their case."""

_SPACE = r"[\s\x{00A0}\x{2009}\x{202F}]"
_CURRENCY = (
    r"(?:[A-Z]{0,3}\p{Sc}|USD|EUR|GBP|JPY|CHF|CNY|INR|CAD|AUD|NZD|SEK|NOK|DKK|PLN|CZK|HUF|BRL|MXN|ZAR|KRW|TRY|Rs\.?)"
)
_SIGN = r"[+\-\x{2212}]"
_APOSTROPHE = r"['\x{2019}]"


def _pattern(mark: DecimalMark) -> str:
    decimal, thousands = (r"\.", ",") if mark == "." else (",", r"\.")
    fraction = rf"(?:{decimal}\d*)?"
    exponent = r"(?:[eE][+-]?\d+)?"
    # A group of three begins with no 0: 0,123 is a fraction. Groups of two before it are Indian: 12,34,567.
    groups = "|".join(rf"(?:{separator}\d{{3}})+" for separator in (thousands, _SPACE, _APOSTROPHE))
    grouped = rf"[1-9]\d{{0,2}}(?:{groups}){fraction}|[1-9]\d?(?:{thousands}\d\d)+{thousands}\d{{3}}{fraction}"
    number = rf"{grouped}|\d+{fraction}{exponent}|{decimal}\d+{exponent}"
    return (
        rf"^(?P<open>\(?){_SPACE}*(?P<sign>{_SIGN}?){_SPACE}*(?:{_CURRENCY}{_SPACE}*(?P<after>{_SIGN}?))?{_SPACE}*"
        rf"(?P<number>{number}){_SPACE}*(?:%|{_CURRENCY})?{_SPACE}*(?P<close>\)?)$"
    )


_PATTERNS: dict[DecimalMark, str] = {".": _pattern("."), ",": _pattern(",")}


def read_numbers(column: pd.Series, mark: DecimalMark) -> tuple[np.ndarray, np.ndarray]:
    """Texts as numbers: ``$1,234.50``, ``(12)`` (negative), ``45.2 %`` (45.2), ``1 234``, ``1e3``; with a mark of ``,``
    ``3,14`` and ``1.234,50``.

    Parameters
    ----------
    column
        Texts (N,); values of other types are taken as they are written. Those missing, and `MISSING_WORDS`, have no
        number.

    Returns
    -------
    tuple
        Numbers (N,) float64, NaN where there is none; and whether a text is there that is no number (N,) bool.
    """
    parts = [_read(part, mark) for part in in_chunks(column)]
    return np.concatenate([numbers for numbers, _ in parts]), np.concatenate([wrong for _, wrong in parts])


def decimal_mark(texts: pd.Series) -> DecimalMark:
    """The mark with which more of the texts are numbers; the point, unless the comma is demanded."""
    missed = {mark: _read(texts, mark)[1].sum() for mark in _PATTERNS}
    return "," if missed[","] < missed["."] else "."


def _read(column: pd.Series, mark: DecimalMark) -> tuple[np.ndarray, np.ndarray]:
    codes, distinct = pd.factorize(column)
    texts = pc.utf8_trim_whitespace(pa.array(pd.Series(distinct).astype("str")).cast(pa.string()))
    parts = pc.extract_regex(texts, _PATTERNS[mark])
    opened, closed = (pc.not_equal(pc.struct_field(parts, name), "") for name in ("open", "close"))
    signs = [pc.struct_field(parts, name) for name in ("sign", "after")]
    twice = pc.and_(*(pc.not_equal(sign, "") for sign in signs))
    sound = pc.and_(pc.equal(opened, closed), pc.invert(twice)).fill_null(False)
    number = pc.if_else(sound, pc.struct_field(parts, "number"), None)
    number = pc.replace_substring_regex(number, rf"[{'.' if mark == ',' else ','}]|{_SPACE}|{_APOSTROPHE}", "")
    number = pc.replace_substring(number, ",", ".")
    values = number.cast(pa.float64()).to_numpy(zero_copy_only=False)
    minus = [pc.is_in(sign, pa.array(["-", "\N{MINUS SIGN}"])) for sign in signs]
    negative = pc.or_(opened, pc.or_(*minus)).fill_null(False).to_numpy(zero_copy_only=False)
    values = np.where(negative, -values, values)
    missing = pc.is_in(pc.utf8_lower(texts), pa.array(sorted(MISSING_WORDS))).to_numpy(zero_copy_only=False)
    wrong = ~missing & ~np.isfinite(values)
    values[wrong] = np.nan  # 1e999
    return np.append(values, np.nan)[codes], np.append(wrong, False)[codes]  # code -1: missing
