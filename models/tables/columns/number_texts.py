"""Numbers that a table holds as text: with units, multipliers, separators of thousands, or a decimal comma."""

import re
import unicodedata
from collections.abc import Callable, Mapping
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
"""Texts that stand for a missing value in a column of numbers, whatever their case."""
MOST_UNREADABLE = 0.05
"""Share of the texts that may be no number, or no date, in a column of these."""

_SPACE = r"[\s\x{00A0}\x{2009}\x{202F}]"
_CODES = "USD|EUR|GBP|JPY|CHF|CNY|INR|CAD|AUD|NZD|SEK|NOK|DKK|PLN|CZK|HUF|BRL|MXN|ZAR|KRW|TRY"
_CURRENCY = rf"(?:[A-Z]{{0,3}}\p{{Sc}}|{_CODES}|Rs\.?)"
_SIGN = r"[+\-\x{2212}]"
_APOSTROPHE = r"['\x{2019}]"
_SCALES = {"k": 1e3, "thousand": 1e3, "lakh": 1e5, "crore": 1e7} | {
    **dict.fromkeys(("m", "mn", "mio", "million"), 1e6),
    **dict.fromkeys(("b", "bn", "mrd", "billion"), 1e9),
}
"""Words behind a number that multiply it."""
_UNITS_RATHER = ("m", "b")
"""Scales that are a unit where a column has no other: metres and bytes."""
_ORDINALS = ("st", "nd", "rd", "th")


def _pattern(mark: DecimalMark) -> str:
    decimal, thousands = (r"\.", ",") if mark == "." else (",", r"\.")
    fraction = rf"(?:{decimal}\d*)?"
    exponent = r"(?:[eE][+-]?\d+)?"
    # A group of three begins with no 0: 0,123 is a fraction. Groups of two before it are Indian: 12,34,567.
    groups = "|".join(rf"(?:{separator}\d{{3}})+" for separator in (thousands, _SPACE, _APOSTROPHE))
    grouped = rf"[1-9]\d{{0,2}}(?:{groups}){fraction}|[1-9]\d?(?:{thousands}\d\d)+{thousands}\d{{3}}{fraction}"
    number = rf"{grouped}|\d+{fraction}{exponent}|{decimal}\d+{exponent}"
    scale = rf"(?P<scale>(?i:{'|'.join(sorted(_SCALES, key=len, reverse=True))}))\b\.?"
    unit = rf"%|{_CURRENCY}|[\p{{L}}°\x{{2032}}\x{{2033}}µ][^\d()]{{0,14}}[²³]?"
    return (
        rf"^(?P<open>\(?){_SPACE}*[<>≤≥~≈]?{_SPACE}*(?P<sign>{_SIGN}?){_SPACE}*"
        rf"(?:(?P<before>{_CURRENCY}){_SPACE}*(?P<after>{_SIGN}?))?{_SPACE}*"
        rf"(?P<number>{number})\+?{_SPACE}*(?:{scale}{_SPACE}*(?P<money>(?:{_CURRENCY})?)|(?P<unit>(?:{unit})?))"
        rf"{_SPACE}*\+?{_SPACE}*(?P<close>\)?)$"
    )


_PATTERNS: Mapping[str, str] = {".": _pattern("."), ",": _pattern(",")}
# Every text with a separator of thousands has it before three digits.
_GROUPED = {".": r"^[+-]?[1-9]\d{0,2}(?:,\d{3})+$", ",": r"^[+-]?[1-9]\d{0,2}(?:\.\d{3})+$"}

# --- texts of other shapes --------------------------------------------------------------------------------------------

_LETTERS = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}


def _roman(text: str) -> float:
    digits = [_LETTERS[letter] for letter in text]
    return float(sum(-one if one < after else one for one, after in zip(digits, [*digits[1:], 0], strict=True)))


def _sum_of(*weights: int) -> Callable[[str], float]:
    """A reader of texts of several numbers, which are added with their weights."""

    def read(text: str) -> float:
        parts = zip(weights, re.findall(r"[\d.]+", text), strict=False)
        total = sum(weight * float(part) for weight, part in parts)
        return -total if text.startswith("-") else total

    return read


class _Shape(NamedTuple):
    pattern: re.Pattern[str]
    read: Callable[[str], float]
    example: str
    what: str


_SHAPES: Mapping[str, _Shape] = {
    "m:ss": _Shape(re.compile(r"-?\d+:[0-5]\d(\.\d+)?"), _sum_of(60, 1), "0:00", "times such as 12:30 as 60 x 12 + 30"),
    "h:mm:ss": _Shape(
        re.compile(r"-?\d+:[0-5]\d:[0-5]\d(\.\d+)?"), _sum_of(3600, 60, 1), "0:00:00", "times in seconds"
    ),
    "duration": _Shape(
        re.compile(r"(\d{1,6}(\.\d+)?\s*(d|days?|h|hours?|m|min|s|sec)\s*)+", re.IGNORECASE),
        lambda text: pd.Timedelta(text.lower()).total_seconds(),
        "0 s",
        "durations in seconds",
    ),
    "feet": _Shape(
        re.compile(r"\d+\s*(['\u2032\u2019]|ft)\s*(\d+(\.\d+)?\s*([\"\u2033\u201d]|''|in)?)?"),
        _sum_of(12, 1),
        "0'0",
        "feet and inches in inches",
    ),
    "roman": _Shape(
        re.compile(r"(?=.)M{0,3}(CM|CD|D?C{0,3})(XC|XL|L?X{0,3})(IX|IV|V?I{0,3})"), _roman, "I", "Roman numerals"
    ),
}
"""Formats of numbers other than decimal ones."""


def check_number_format(form: str, where: str) -> None:
    """Raise a `UserError` that names `where` unless it is a format that `read_numbers` takes."""
    if form not in _SHAPES and not re.fullmatch(r"[.,]( \S.*)?", form):
        raise UserError(
            f"{where}: {form!r} is no format of numbers; take the decimal mark (. or ,), or the mark, a space and the "
            f"unit ('. kg'), or one of {', '.join(_SHAPES)}"
        )


def example_of(form: str) -> str:
    """A text that is a number in that format."""
    unit = form.partition(" ")[2]
    return _SHAPES[form].example if form in _SHAPES else f"0 {unit}".strip()


def describe_format(form: str) -> str:
    """A format in words."""
    if form in _SHAPES:
        return _SHAPES[form].what
    mark, _, unit = form.partition(" ")
    return f"numbers with a decimal {'comma' if mark == ',' else 'point'}" + (f" in {unit}" if unit else "")


# --- reading ----------------------------------------------------------------------------------------------------------


def read_numbers(column: pd.Series, form: str) -> tuple[np.ndarray, np.ndarray]:
    """Texts as numbers: ``$1,234.50``, ``(12)`` (negative), ``45.2 %`` (45.2), ``1 234``, ``1e3``, ``13.1M``; with a
    decimal comma ``3,14`` and ``1.234,50``.

    Parameters
    ----------
    column
        Texts (N,); values of other types are taken as they are written. Those missing, and `MISSING_WORDS`, have no
        number.
    form
        The decimal mark, ``.`` or ``,``, which may be followed by a space and the unit (``. kg``); or ``m:ss``,
        ``h:mm:ss``, ``duration`` (seconds), ``feet`` (inches), ``roman``. With a unit, numbers in another are not
        read; without, any currency and percent are.

    Returns
    -------
    tuple
        Numbers (N,) float64, NaN where there is none; and whether a text is there that is no number (N,) bool.
    """
    parts = [_read(part, form) for part in in_chunks(column)]
    return np.concatenate([numbers for numbers, _ in parts]), np.concatenate([wrong for _, wrong in parts])


def _read(column: pd.Series, form: str) -> tuple[np.ndarray, np.ndarray]:
    codes, distinct = pd.factorize(column)
    texts = _plain(distinct)
    if form in _SHAPES:
        values = _of_shape(texts, form)
    else:
        mark, _, unit = form.partition(" ")
        parts = _parts(texts, mark)
        values = np.where(parts.in_unit(unit), parts.numbers * parts.factors(unit), np.nan)
    wrong = ~_is_missing(texts) & ~np.isfinite(values)
    values[wrong] = np.nan  # 1e999
    return np.append(values, np.nan)[codes], np.append(wrong, False)[codes]  # code -1: missing


def _plain(values: object) -> pd.Series:
    """Texts without space around them, digits of all scripts and full width as 0 to 9."""
    texts = pd.Series(values).astype("str").str.strip()
    foreign = {letter for text in texts if not text.isascii() for letter in text}
    digits = {ord(each): str(unicodedata.decimal(each)) for each in foreign if unicodedata.category(each) == "Nd"}
    return texts.str.translate(digits) if digits else texts


def _is_missing(texts: pd.Series) -> np.ndarray:
    missing: np.ndarray = texts.str.lower().isin(MISSING_WORDS).to_numpy(bool)
    return missing


def _of_shape(texts: pd.Series, form: str) -> np.ndarray:
    shape = _SHAPES[form]
    return np.array([shape.read(text) if shape.pattern.fullmatch(text) else np.nan for text in texts], dtype=float)


class _Parts(NamedTuple):
    """Texts (n,) taken apart: numbers float64, NaN where there is none; unit and scale behind, empty where absent."""

    numbers: np.ndarray
    units: np.ndarray
    scales: np.ndarray

    def in_unit(self, unit: str) -> np.ndarray:
        """Whether a number is in that unit, (n,) bool; percent must be written everywhere or nowhere."""
        if not unit:
            return np.array([not each or _is_money(each) or each == "%" for each in self.units], dtype=bool)
        bare = (self.units == "") & (unit != "%")
        named: np.ndarray = bare | (self.units == unit)
        return named

    def factors(self, unit: str) -> np.ndarray:
        """What the scales multiply with, (n,) float64."""
        return np.array([1.0 if not each or each == unit else _SCALES[each.lower()] for each in self.scales])


def _parts(texts: pd.Series, mark: str) -> _Parts:
    found = pc.extract_regex(pa.array(texts, pa.string()), _PATTERNS[mark])
    group = {
        name: pc.struct_field(found, name)
        for name in ("open", "close", "sign", "after", "before", "number", "scale", "money", "unit")
    }
    twice = pc.and_(pc.not_equal(group["sign"], ""), pc.not_equal(group["after"], ""))
    money_twice = pc.and_(pc.not_equal(group["before"], ""), pc.not_equal(group["money"], ""))
    balanced = pc.equal(pc.equal(group["open"], ""), pc.equal(group["close"], ""))
    sound = pc.and_(balanced, pc.invert(pc.or_(twice, money_twice))).fill_null(False)
    number = pc.if_else(sound, group["number"], None)
    number = pc.replace_substring_regex(number, rf"[{'.' if mark == ',' else ','}]|{_SPACE}|{_APOSTROPHE}", "")
    values = pc.replace_substring(number, ",", ".").cast(pa.float64()).to_numpy(zero_copy_only=False)
    minus = [pc.is_in(group[name], pa.array(["-", "\N{MINUS SIGN}"])) for name in ("sign", "after")]
    negative = pc.or_(pc.not_equal(group["open"], ""), pc.or_(*minus)).fill_null(False).to_numpy(zero_copy_only=False)
    beside = [pc.fill_null(group[name], "").to_pylist() for name in ("before", "unit", "money")]
    units = [" ".join(filter(None, map(_unit, each))) for each in zip(*beside, strict=True)]
    scales = np.array(pc.fill_null(group["scale"], "").to_pylist(), dtype=object)
    return _Parts(np.where(negative, -values, values), np.array(units, dtype=object), scales)


def _unit(text: str) -> str:
    """A unit in one spelling: years as year, Kg as kg; none for the ending of 1st."""
    plain = text.strip().rstrip(".").lower()
    plain = plain.removesuffix("s") if len(plain) > 3 and plain.isalpha() else plain
    return "" if plain in _ORDINALS else plain


def _is_money(unit: str) -> bool:
    """Whether a unit is a currency."""
    plain = unit.upper()
    return plain == "RS" or plain in _CODES.split("|") or any(unicodedata.category(each) == "Sc" for each in unit)


# --- which format a column has ----------------------------------------------------------------------------------------


class NumberFormat(NamedTuple):
    """How the texts of a column are read.

    `form` is for `read_numbers`, None for texts that are no numbers; `reason` why numbers stay text, or what is a
    guess; empty where there is nothing to say.
    """

    form: str | None
    reason: str = ""


def find_number_format(texts: pd.Series, mark: DecimalMark | None = None) -> NumberFormat:
    """The format in which nearly all of the texts (N,) are numbers; a `mark` that other columns have decides ties."""
    rows = _plain(texts)
    rows = rows[~_is_missing(rows)]
    if rows.empty:
        return NumberFormat(None)
    counts = rows.value_counts()
    distinct, weights = pd.Series(counts.index, dtype="str"), counts.to_numpy()
    ways = {each: _parts(distinct, each) for each in _PATTERNS}
    chosen = _decimal_mark(distinct, weights, ways, mark)
    parts = ways[chosen]
    read = ~np.isnan(parts.numbers)
    if weights[read].sum() >= (1 - MOST_UNREADABLE) * weights.sum():
        return _with_unit(chosen, parts, np.where(read, weights, 0))
    shares = {name: weights[~np.isnan(_of_shape(distinct, name))].sum() / weights.sum() for name in _SHAPES}
    name = max(shares, key=lambda each: shares[each])
    if shares["m:ss"] and shares["h:mm:ss"] and shares["m:ss"] + shares["h:mm:ss"] >= 1 - MOST_UNREADABLE:
        return NumberFormat(None, "times with two and with three parts, of which nothing tells what the two are")
    if shares[name] < 1 - MOST_UNREADABLE or (name == "roman" and not _counts_in_roman(distinct)):
        return NumberFormat(None)
    return NumberFormat(name)


def _with_unit(mark: str, parts: _Parts, weights: np.ndarray) -> NumberFormat:
    """The format of numbers by what stands behind them."""
    units = pd.Series(weights).groupby(parts.units).sum()
    units = units[units > 0].sort_values(ascending=False, kind="stable")
    bare, units = int(units.get("", 0)), units.drop("", errors="ignore")
    scales = {each for each, weight in zip(parts.scales, weights, strict=True) if each and weight}
    if units.sum() <= MOST_UNREADABLE * weights.sum():  # a word behind a number here and there
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
    """The decimal mark with which more of the texts (N,) are numbers; None if it makes no difference."""
    rows = _plain(texts.drop_duplicates())
    return _demanded({mark: _parts(rows, mark) for mark in _PATTERNS}, np.ones(len(rows)))


def _demanded(ways: Mapping[str, _Parts], weights: np.ndarray) -> DecimalMark | None:
    missed = {mark: weights[np.isnan(parts.numbers)].sum() for mark, parts in ways.items()}
    if missed["."] == missed[","]:
        return None
    return "," if missed[","] < missed["."] else "."


def _decimal_mark(
    distinct: pd.Series, weights: np.ndarray, ways: Mapping[str, _Parts], elsewhere: DecimalMark | None
) -> DecimalMark:
    """The mark that the texts demand.

    Where both read all of them, 6.611 beside 850 is six thousand: of decimal fractions some would end in 0 and be
    shorter, and whole numbers would not all be below a thousand.
    """
    if (demanded := _demanded(ways, weights)) is not None:
        return demanded
    bare = distinct[~distinct.str.contains(r"[.,]", regex=True)]
    dotted = distinct[distinct.str.contains(".", regex=False)]
    if len(dotted) and dotted.str.match(_GROUPED[","]).all():
        whole = pd.to_numeric(bare, errors="coerce").abs()
        if len(whole) and (whole < 1000).all():
            return ","
    return elsewhere or "."


def _counts_in_roman(distinct: pd.Series) -> bool:
    """Whether numerals are counted in: M, L and XL are sizes, and C and D are grades."""
    numbers = _of_shape(distinct, "roman")
    return len(distinct) > 2 and np.nanmax(numbers) <= 50 and bool(distinct.isin(["II", "III", "IV", "VI"]).any())
