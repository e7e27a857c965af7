"""Numbers in text: with units, multipliers, thousands separators, or a decimal comma."""

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from unfreeze.models.errors import UserError
from unfreeze.models.tables.reading.frames import in_chunks

DecimalMark = Literal[".", ","]

MISSING_WORDS = frozenset(
    (
        *("", "?", "-", "--", "\N{EN DASH}", "\N{EM DASH}", ".", "..", "...", "*", "#"),
        *("na", "n/a", "n.a.", "#n/a", "nan", "null", "none", "nil", "missing", "unknown", "<na>"),
    )
)
"""Texts for a missing value in a column of numbers, in any case."""
MOST_UNREADABLE = 0.05
"""Largest share of unreadable texts in a column of numbers or dates."""

_SPACE = r"[\s\x{00A0}\x{2009}\x{202F}]"
_MINUS = "-\N{MINUS SIGN}"
_CODES = "USD|EUR|GBP|JPY|CHF|CNY|INR|CAD|AUD|NZD|SEK|NOK|DKK|PLN|CZK|HUF|BRL|MXN|ZAR|KRW|TRY"
_SYMBOLS = "$€£¥₹₩₽₺₫₪฿¢"
_CURRENCY = rf"(?:[A-Z]{{0,3}}[{_SYMBOLS}]|{_CODES}|Rs\.?)"
_SCALES = {"k": 1e3, "thousand": 1e3} | {
    **dict.fromkeys(("m", "mn", "mio", "million"), 1e6),
    **dict.fromkeys(("b", "bn", "mrd", "billion"), 1e9),
}
"""Multipliers that follow a number."""
_UNITS_RATHER = ("m", "b")
"""Scales read as the unit of a column without another: metres and bytes."""
_BEHIND = re.compile(
    rf"\+?\s*(?:(?P<scale>{'|'.join(sorted(_SCALES, key=len, reverse=True))})\b\.?\s*(?P<money>(?-i:{_CURRENCY})?)"
    rf"|(?P<unit>(?:%|(?:[^\W\d_]|[{_SYMBOLS}°\u2032\u2033µ])[^\d()]{{0,14}})?))\s*\+?\s*",
    re.IGNORECASE,
)
"""Text allowed after a number, without a closing parenthesis."""


def _pattern(mark: DecimalMark) -> str:
    """Pattern (RE2) of a number with the text before and after it."""
    decimal, thousands = (r"\.", ",") if mark == "." else (",", r"\.")
    fraction = rf"(?:{decimal}\d*)?"
    # The first group never begins with 0: 0,123 is a fraction.
    groups = "|".join(rf"(?:{separator}\d{{3}})+" for separator in (thousands, _SPACE, r"['\x{2019}]"))
    number = rf"[1-9]\d{{0,2}}(?:{groups}){fraction}|(?:\d+{fraction}|{decimal}\d+)(?:[eE][+-]?\d+)?"
    sign = r"[-+\x{2212}]?"
    before = rf"\(?{_SPACE}*[<>≤≥~≈]?{_SPACE}*(?:{sign}{_SPACE}*{_CURRENCY}|{_CURRENCY}?{_SPACE}*{sign})"
    return rf"^(?P<before>{before}){_SPACE}*(?P<number>{number})(?P<behind>[^\d]*)$"


_PATTERNS: Mapping[str, str] = {".": _pattern("."), ",": _pattern(",")}
_DOTS_OF_THOUSANDS = r"^[+-]?[1-9]\d{0,2}(?:\.\d{3})+$"


class _Shape(NamedTuple):
    """Texts of several numbers, added with their weights; durations carry units instead."""

    pattern: re.Pattern[str]
    weights: tuple[int, ...]
    example: str
    what: str

    def read(self, text: str) -> float:
        if not self.pattern.fullmatch(text):
            return np.nan
        if not self.weights:
            return pd.Timedelta(text.lower()).total_seconds()
        numbers = map(float, re.findall(r"[\d.]+", text))
        total = sum(weight * number for weight, number in zip(self.weights, numbers, strict=False))
        return -total if text.startswith("-") else total


_DURATION = re.compile(r"(\d{1,6}(\.\d+)?\s*(d|days?|h|hours?|m|min|s|sec)\s*)+", re.IGNORECASE)
_FEET = re.compile(r"\d+\s*(['\u2032\u2019]|ft)\s*(\d+(\.\d+)?\s*([\"\u2033\u201d]|''|in)?)?")
_SHAPES: Mapping[str, _Shape] = {
    "m:ss": _Shape(re.compile(r"-?\d+:[0-5]\d(\.\d+)?"), (60, 1), "0:00", "times such as 12:30 as 60 x 12 + 30"),
    "h:mm:ss": _Shape(re.compile(r"-?\d+(:[0-5]\d){2}(\.\d+)?"), (3600, 60, 1), "0:00:00", "times in seconds"),
    "duration": _Shape(_DURATION, (), "0 s", "durations in seconds"),
    "feet": _Shape(_FEET, (12, 1), "0'0", "feet and inches in inches"),
}
"""Formats of numbers other than decimal ones."""


def check_number_format(form: str, where: str) -> None:
    """Raise a `UserError` that names `where` unless `read_numbers` supports the format."""
    if form not in _SHAPES and not re.fullmatch(r"[.,]( \S.*)?", form):
        raise UserError(
            f"{where}: {form!r} is no format of numbers; take the decimal mark (. or ,), or the mark, a space and the "
            f"unit ('. kg'), or one of {', '.join(_SHAPES)}"
        )


def example_of(form: str) -> str:
    """An example of a number in a format."""
    return _SHAPES[form].example if form in _SHAPES else f"0{form[1:]}"


def describe_format(form: str) -> str:
    """A format in words."""
    if form in _SHAPES:
        return _SHAPES[form].what
    mark, _, unit = form.partition(" ")
    return f"numbers with a decimal {'comma' if mark == ',' else 'point'}" + (f" in {unit}" if unit else "")


# --- reading ----------------------------------------------------------------------------------------------------------


def read_numbers(column: pd.Series, form: str) -> tuple[np.ndarray, np.ndarray]:
    """Read texts as numbers: ``$1,234.50``, ``(12)`` (negative), ``45.2 %`` (45.2), ``1 234``, ``1e3``, ``13.1M``;
    with a decimal comma ``3,14`` and ``1.234,50``.

    Parameters
    ----------
    column
        Texts (N,); other types are converted to text. Missing values and `MISSING_WORDS` have no number.
    form
        The decimal mark, ``.`` or ``,``, optionally with a space and the unit (``. kg``); or ``m:ss``,
        ``h:mm:ss``, ``duration`` (seconds), ``feet`` (inches). With a unit, other units are not read; without, any
        currency and percent are.

    Returns
    -------
    tuple
        Numbers (N,) float64, NaN where there is none, and a mask (N,) bool of unreadable texts.
    """
    parts = [_read(part, form) for part in in_chunks(column)]
    return np.concatenate([numbers for numbers, _ in parts]), np.concatenate([wrong for _, wrong in parts])


def is_missing(texts: pd.Series) -> np.ndarray:
    """Mask (N,) bool of texts (N,) among `MISSING_WORDS`."""
    missing: np.ndarray = texts.str.strip().str.lower().isin(MISSING_WORDS).to_numpy(bool)
    return missing


def _read(column: pd.Series, form: str) -> tuple[np.ndarray, np.ndarray]:
    codes, distinct = pd.factorize(column)
    texts = _plain(distinct)
    if form in _SHAPES:
        values = _of_shape(texts, form)
    else:
        mark, _, unit = form.partition(" ")
        parts = _parts(texts, mark)
        values = np.where(parts.in_unit(unit), parts.numbers * parts.factors(unit), np.nan)
    wrong = ~is_missing(texts) & ~np.isfinite(values)
    values[wrong] = np.nan  # 1e999
    return np.append(values, np.nan)[codes], np.append(wrong, False)[codes]  # code -1: missing


def _plain(values: object) -> pd.Series:
    return pd.Series(values).astype("str").str.strip()


def _of_shape(texts: pd.Series, form: str) -> np.ndarray:
    return np.array([_SHAPES[form].read(text) for text in texts], dtype=float)


class _Parts(NamedTuple):
    """Parts of texts (n,): numbers (float64, NaN where unreadable), units and scales (empty where absent)."""

    numbers: np.ndarray
    units: np.ndarray
    scales: np.ndarray

    def in_unit(self, unit: str) -> np.ndarray:
        """Mask (n,) bool of numbers in a unit; percent must be written everywhere or nowhere."""
        if not unit:
            return np.array([not each or _is_money(each) or each == "%" for each in self.units], dtype=bool)
        bare = (self.units == "") & (unit != "%")
        named: np.ndarray = bare | (self.units == unit)
        return named

    def factors(self, unit: str) -> np.ndarray:
        """Factors (n,) float64 of the scales."""
        return np.array([1.0 if not each or each == unit else _SCALES[each] for each in self.scales])


def _parts(texts: pd.Series, mark: str) -> _Parts:
    found = pc.extract_regex(pa.array(texts, pa.string()), _PATTERNS[mark])
    before, number, behind = (pc.struct_field(found, name) for name in ("before", "number", "behind"))
    number = pc.replace_substring_regex(number, rf"[{'.' if mark == ',' else ','}'\x{{2019}}]|{_SPACE}", "")
    values = pc.replace_substring(number, ",", ".").cast(pa.float64()).to_numpy(zero_copy_only=False)
    beside = pd.DataFrame({"before": before.to_pandas(), "behind": behind.to_pandas()}).fillna("")
    codes = beside.groupby([*beside], sort=False).ngroup().to_numpy()  # few: parse each pair once
    distinct = [_beside(*pair) for pair in beside.drop_duplicates().to_numpy(str)]
    each = pd.DataFrame(distinct, columns=["sign", "unit", "scale"]).iloc[codes]
    signs = each["sign"].to_numpy(np.float64)
    return _Parts(values * signs, each["unit"].to_numpy(object), each["scale"].to_numpy(object))


def _beside(before: str, behind: str) -> tuple[float, str, str]:
    """Sign, unit and scale from the text before and after a number; the sign is NaN if that text is invalid."""
    found = _BEHIND.fullmatch(behind.removesuffix(")"))
    money = before.strip(f"(<>≤≥~≈+{_MINUS} \t\N{NO-BREAK SPACE}\u2009\u202f")
    if found is None or ("(" in before) != behind.endswith(")") or (money and found["money"]):
        return np.nan, "", ""
    sign = -1.0 if {*before} & {"(", *_MINUS} else 1.0
    units = [_unit(each) for each in (money, found["unit"] or "", found["money"] or "")]
    return sign, " ".join(filter(None, units)), (found["scale"] or "").lower()


def _unit(text: str) -> str:
    """A unit in one spelling: years as year, Kg as kg."""
    plain = text.strip().rstrip(".").lower()
    return plain.removesuffix("s") if len(plain) > 3 and plain.isalpha() else plain


def _is_money(unit: str) -> bool:
    return unit.upper() in ("RS", *_CODES.split("|")) or bool({*unit} & {*_SYMBOLS})


# --- which format a column has ----------------------------------------------------------------------------------------


class NumberFormat(NamedTuple):
    """Format of a column's texts.

    `form` is for `read_numbers`, None if the texts are not numbers; `reason` says why numbers stay text or what was
    guessed, else it is empty.
    """

    form: str | None
    reason: str = ""


def find_number_format(texts: pd.Series, mark: DecimalMark | None = None) -> NumberFormat:
    """The format in which nearly all texts (N,) are numbers; the decimal `mark` of other columns breaks ties."""
    rows = _plain(texts)
    rows = rows[~is_missing(rows)]
    if rows.empty:
        return NumberFormat(None)
    counts = rows.value_counts()
    distinct, weights = pd.Series(counts.index, dtype="str"), counts.to_numpy()
    ways = {each: _parts(distinct, each) for each in _PATTERNS}
    chosen = _demanded(ways, weights) or ("," if _may_be_thousands(distinct) else mark or ".")
    parts = ways[chosen]
    read = ~np.isnan(parts.numbers)
    if weights[read].sum() >= (1 - MOST_UNREADABLE) * weights.sum():
        return _with_unit(chosen, parts, np.where(read, weights, 0))
    shares = {name: weights[~np.isnan(_of_shape(distinct, name))].sum() / weights.sum() for name in _SHAPES}
    name = max(shares, key=lambda each: shares[each])
    if shares["m:ss"] and shares["h:mm:ss"] and shares["m:ss"] + shares["h:mm:ss"] >= 1 - MOST_UNREADABLE:
        return NumberFormat(None, "times with two and with three parts, of which nothing tells what the two are")
    return NumberFormat(name if shares[name] >= 1 - MOST_UNREADABLE else None)


def _with_unit(mark: str, parts: _Parts, weights: np.ndarray) -> NumberFormat:
    """The format of numbers by the text after them."""
    units = pd.Series(weights).groupby(parts.units).sum()
    units = units[units > 0].sort_values(ascending=False, kind="stable")
    bare, units = int(units.get("", 0)), units.drop("", errors="ignore")
    scales = {each for each, weight in zip(parts.scales, weights, strict=True) if each and weight}
    if units.sum() <= MOST_UNREADABLE * weights.sum():  # only occasional words after numbers
        only = next(iter(scales)) if len(scales) == 1 else ""
        return NumberFormat(f"{mark} {only}" if only in _UNITS_RATHER else mark)
    unit, total = str(units.index[0]), weights.sum()
    if unit == "%" and bare > MOST_UNREADABLE * total:
        return NumberFormat(None, "numbers with and without %: 5% and 0.05 may be the same")
    if units.iloc[1:].sum() > MOST_UNREADABLE * total:
        few = ", ".join(map(str, units.index[:4]))
        return NumberFormat(None, f"numbers in several units ({few})" if len(units) <= 4 else "")
    return NumberFormat(f"{mark} {unit}", f"{bare:,} without the unit" if bare else "")


def demanded_mark(texts: pd.Series) -> DecimalMark | None:
    """The decimal mark under which more texts (N,) are numbers; None for a tie."""
    rows = _plain(texts.drop_duplicates())
    return _demanded({mark: _parts(rows, mark) for mark in _PATTERNS}, np.ones(len(rows)))


def _demanded(ways: Mapping[str, _Parts], weights: np.ndarray) -> DecimalMark | None:
    point, comma = (weights[np.isnan(ways[mark].numbers)].sum() for mark in (".", ","))
    return None if point == comma else "," if comma < point else "."


def _may_be_thousands(distinct: pd.Series) -> bool:
    """Whether 6.611 beside 850 means six thousand; among fractions some would be shorter, or a bare number larger."""
    whole = pd.to_numeric(distinct[~distinct.str.contains(r"[.,]", regex=True)], errors="coerce").abs()
    dotted = distinct[distinct.str.contains(".", regex=False)]
    grouped = len(dotted) > 0 and bool(dotted.str.match(_DOTS_OF_THOUSANDS).all())
    return grouped and len(whole) > 0 and bool((whole < 1000).all())
