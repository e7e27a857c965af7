"""Types of a text file's columns: the narrowest of whole numbers, numbers and text that fits all rows."""

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

MISSING = [*pyarrow.csv.ConvertOptions().null_values, "None", "<NA>"]
"""Texts for missing values, the same as in pandas."""

_TYPES = (pa.int64(), pa.float64(), pa.string())  # narrowest first
_NUMBER = r"^\s*[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|inf(inity)?)\s*$"
_SHORTEST_CODE = 3
"""Least digits of a code; shorter ones with leading zeros are months and hours, except in the target column."""
_SPECIAL_DOTS = r"^[+-]?(?:[1-9]\d{0,2}(?:\.\d{3})+|(?:19|20)\d\d\.(?:0[1-9]|1[0-2]))$"
"""Ambiguous numbers: 6.611 may be thousands, and 2019.10 a month."""
_FIRST = 1_000  # values tested before the whole block


class TextType:
    """Type of one column, found block by block.

    Parameters
    ----------
    is_text
        Whether it is always text: the name 007 must not become a number.
    verbatim
        Whether leading zeros are kept and, in a text column, words such as None: in a target they may be classes.
    first_row
        Number of the first row of values, for notes.
    """

    def __init__(self, is_text: bool = False, verbatim: bool = False, first_row: int = 2) -> None:
        self._verbatim, self._shortest = verbatim, 2 if verbatim else _SHORTEST_CODE
        self._known: pa.DataType | None = pa.string() if is_text else None
        self._row, self._note = first_row, ""
        self._lengths: set[int] = set()
        self._is_padded = False
        self._has_dots: bool | None = None  # unknown before the first value with a dot

    def see(self, values: pa.Array) -> None:
        """Take the texts of a block into account."""
        values, before = values if self._verbatim else without_words(values), self._known
        if values.null_count < len(values):
            candidates = _TYPES[_TYPES.index(before) if before else 0 :]
            self._known = next(wider for wider in candidates if self._fits(values, wider))
        if before != self._known == pa.string():
            self._note = _why_text(before, values, self._row)
        if self._known == pa.int64() and (len(self._lengths) < 2 or self._verbatim):
            self._see_zeros(values)
        if self._known == pa.float64() and self._has_dots is not False:
            self._see_dots(values)
        self._row += len(values)

    def _fits(self, values: pa.Array, wanted: pa.DataType) -> bool:
        numbers = _numbers(values, wanted)
        # Arrow reads nan as a number, leaving no word to name.
        is_word = (
            self._verbatim and wanted == pa.float64() and numbers is not None and pc.any(pc.is_nan(numbers)).as_py()
        )
        return numbers is not None and not is_word

    def _see_zeros(self, values: pa.Array) -> None:
        lengths = pc.utf8_length(values)
        self._lengths |= set(pc.unique(lengths.drop_null()).to_pylist())
        padded = pc.and_(pc.starts_with(values, "0"), pc.greater(lengths, 1))
        self._is_padded = self._is_padded or bool(pc.any(padded).as_py())

    def _see_dots(self, values: pa.Array) -> None:
        for part in (values.slice(0, _FIRST), values):
            dotted = part.filter(pc.match_substring(part, "."))
            if len(dotted) and self._has_dots is not False:
                self._has_dots = bool(pc.all(pc.match_substring_regex(dotted, _SPECIAL_DOTS)).as_py())

    @property
    def type(self) -> pa.DataType:
        """The narrowest type that fits all blocks so far."""
        return pa.string() if self._is_code or self._is_dotted else self._known or pa.string()

    @property
    def note(self) -> str:
        """Why a column of numbers is text, else empty."""
        if self._is_code:
            return "digits of one length with leading zeros: a code, so text"
        return "a dot before three digits, or before a month, in every number" if self._is_dotted else self._note

    @property
    def _is_code(self) -> bool:
        one_length = self._verbatim or len(self._lengths) == 1
        is_padded = self._is_padded and one_length and max(self._lengths) >= self._shortest
        return is_padded and self._known == pa.int64()

    @property
    def _is_dotted(self) -> bool:
        return bool(self._has_dots) and self._known == pa.float64()

    def cast(self, values: pa.Array) -> pa.Array:
        """Convert the texts of a block to the type."""
        if self._verbatim and self.type == pa.string():
            return values
        return _numbers(without_words(values), self.type)


def without_words(values: pa.Array) -> pa.Array:
    """Replace words for missing values in texts (N,) by missing values."""
    words = pc.is_in(values, pa.array(MISSING))
    return pc.if_else(words, None, values) if pc.any(words).as_py() else values


def _numbers(values: pa.Array, wanted: pa.DataType) -> pa.Array | None:
    """Convert text to numbers; None if any value does not fit."""
    try:
        return values.cast(wanted)
    except pa.ArrowInvalid:
        pass  # rarely caused by spaces or a plus: retry without them
    trimmed = pc.utf8_ltrim(pc.utf8_trim_whitespace(values), "+")
    try:
        return pc.if_else(pc.equal(trimmed, ""), None, trimmed).cast(wanted)
    except pa.ArrowInvalid:
        return None


def _why_text(known: pa.DataType | None, values: pa.Array, first_row: int) -> str:
    numbers = pc.match_substring_regex(values, _NUMBER, ignore_case=True)
    if known is None and not pc.any(numbers).as_py():
        return ""
    position = max(pc.index(numbers, False).as_py(), 0)
    return f"numbers and text, so text: row {first_row + position} holds {str(values[position].as_py())[:40]!r}"
