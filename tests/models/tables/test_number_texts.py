import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from unfreeze.models.tables import reading
from unfreeze.models.tables.number_texts import MISSING_WORDS, decimal_mark, read_numbers

STYLES = {
    "plain": "{sign}{whole}.{fraction}",
    "thousands": "{sign}{grouped}.{fraction}",
    "dollars": "{sign}${grouped}.{fraction}",
    "sign after the dollar": "${sign}{grouped}.{fraction}",
    "euros behind": "{sign}{grouped}.{fraction} €",
    "a code": "{sign}USD {grouped}.{fraction}",
    "percent": "{sign}{whole}.{fraction}%",
    "percent with space": "  {sign}{whole}.{fraction} % ",
}


@given(
    style=st.sampled_from(sorted(STYLES)),
    separator=st.sampled_from([",", " ", "\u00a0", "\u202f", "'"]),
    mark=st.sampled_from([".", ","]),
    whole=st.integers(0, 10**12),
    fraction=st.text("0123456789", min_size=1, max_size=6),
    negative=st.booleans(),
    parentheses=st.booleans(),
)
def test_a_number_in_any_style_is_read_as_that_number(
    style: str, separator: str, mark: str, whole: int, fraction: str, negative: bool, parentheses: bool
) -> None:
    sign = "-" if negative and not parentheses else ""
    text = STYLES[style].format(sign=sign, whole=whole, grouped=f"{whole:,}", fraction=fraction)
    text = f"({text.strip()})" if negative and parentheses else text
    # The two marks change places; any other separator stands for the one of thousands.
    thousands = separator if separator != "," else "." if mark == "," else ","
    text = text.translate({ord("."): mark, ord(","): thousands})
    (number,), (wrong,) = read_numbers(pd.Series([text]), mark)
    assert not wrong
    assert number == float(f"{'-' if negative else ''}{whole}.{fraction}")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_what_python_writes_is_read_back(number: float) -> None:
    assert read_numbers(pd.Series([repr(number)]), ".")[0][0] == number


@given(st.lists(st.text(min_size=1, max_size=12).filter(lambda text: not any(map(str.isdigit, text))), min_size=1))
def test_words_are_never_numbers(words: list[str]) -> None:
    for mark in (".", ","):
        numbers, wrong = read_numbers(pd.Series(words), mark)
        assert np.isnan(numbers).all()
        assert wrong.tolist() == [word.strip().lower() not in MISSING_WORDS for word in words]


@pytest.mark.parametrize("text", [*sorted(MISSING_WORDS), " NA ", "N/A", "Unknown", None])
def test_words_for_a_missing_value_are_no_mistake(text: str | None) -> None:
    numbers, wrong = read_numbers(pd.Series(["1", text], dtype=object), ".")
    assert np.isnan(numbers).tolist() == [False, True]
    assert not wrong.any()


NO_NUMBERS = (
    *("2013-01-05", "12:30", "1.2.3", "12 km", "A12", "1,23,4", "1,2345", "+-5", "-$-5", "(5", "5)"),
    *("0,123", "12,34", "1e999", "5 5", "1,234,56", "10%%", "$", "%"),
)


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_what_only_resembles_a_number_is_none(text: str) -> None:
    numbers, wrong = read_numbers(pd.Series([text]), ".")
    assert wrong.all()
    assert np.isnan(numbers).all()


@pytest.mark.parametrize(
    ("texts", "mark"),
    [
        (["1,234", "5,678"], "."),
        (["1,234", "3,14"], ","),
        (["0,123", "0,456"], ","),
        (["1.234.567", "1.234"], ","),
        (["1.234,50"], ","),
        (["1,234.50", "7"], "."),
        (["1.5", "?"], "."),
        (["12,34,567"], "."),
        ([], "."),
    ],
)
def test_the_comma_is_decimal_only_if_the_column_demands_it(texts: list[str], mark: str) -> None:
    assert decimal_mark(pd.Series(texts, dtype="str")) == mark


def test_in_chunks_the_numbers_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    column = pd.Series(["$1", None, "x", "2,5", "-", "1,000"])
    whole = read_numbers(column, ".")
    monkeypatch.setattr(reading, "CHUNK_ROWS", 2)
    for one, other in zip(whole, read_numbers(column, "."), strict=True):
        np.testing.assert_array_equal(one, other)
