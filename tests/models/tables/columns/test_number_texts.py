import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from unfreeze.models.errors import UserError
from unfreeze.models.tables.columns.number_texts import (
    MISSING_WORDS,
    check_number_format,
    demanded_mark,
    example_of,
    find_number_format,
    read_numbers,
)
from unfreeze.models.tables.reading import frames as reading

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


FORMATS = (
    (["1,234", "5,678"], ".", [1234, 5678]),
    (["1,234", "3,14"], ",", [1.234, 3.14]),
    (["0,123", "0,456"], ",", [0.123, 0.456]),
    (["1.234.567", "1.234"], ",", [1234567, 1234]),
    (["1.234,50"], ",", [1234.5]),
    (["1,234.50", "7"], ".", [1234.5, 7]),
    (["1.5", "?"], ".", [1.5, np.nan]),
    # Six thousand beside 850: of fractions some would be shorter, and whole numbers would not all be below a thousand.
    (["6.611", "850", "12.400"], ",", [6611, 850, 12400]),
    (["6.61", "850"], ".", [6.61, 850]),
    (["6.611", "8.500"], ".", [6.611, 8.5]),
    (["6.611", "1850"], ".", [6.611, 1850]),
    (["10,000+", "500,000+", "5+"], ".", [10_000, 500_000, 5]),
    (["13.1M", "850k", "1.2B"], ".", [13_100_000, 850_000, 1_200_000_000]),
    (["850k", "12k"], ".", [850_000, 12_000]),
    (["€110.5M", "€850K"], ". €", [110_500_000, 850_000]),
    (["1,5 Mio. €", "2 Mrd. €"], ", €", [1_500_000, 2_000_000_000]),
    (["110 kg", "90kg", "85.5 KG"], ". kg", [110, 90, 85.5]),
    (["45m", "30m"], ". m", [45, 30]),
    (["5 years", "1 year", "10+ years", "< 1 year"], ". year", [5, 1, 10, 1]),
    (["12 km/h", "30 km/h"], ". km/h", [12, 30]),
    (["25°C", "30 °C"], ". °c", [25, 30]),
    (["100 m²", "80 m²"], ". m²", [100, 80]),
    (["$1,234.50", "-$3", "(4)"], ". $", [1234.5, -3, -4]),
    (["45%", "50 %"], ". %", [45, 50]),
    (["+5", "-3"], ".", [5, -3]),
    (["5'11\"", "6'0\"", "5' 7", "5ft 2in"], "feet", [71, 72, 67, 62]),
    (["12:30", "1:05", "-0:30"], "m:ss", [750, 65, -30]),
    (["1:02:30", "0:00:05.5"], "h:mm:ss", [3750, 5.5]),
    (["2h 50m", "45m", "1 day"], "duration", [10200, 2700, 86400]),
)


@pytest.mark.parametrize(("texts", "form", "numbers"), FORMATS)
def test_the_format_of_a_column_is_found_and_reads_it(texts: list[str], form: str, numbers: list[float]) -> None:
    column = pd.Series(texts, dtype="str")
    assert find_number_format(column).form == form
    np.testing.assert_allclose(read_numbers(column, form)[0], numbers)


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (["85 kg", "187 lb"], "numbers in several units (kg, lb)"),
        (["$5", "€5"], "numbers in several units ($, €)"),
        (["45%", "0.5"], "numbers with and without %"),
        (["12:30", "1:02:30"], "times with two and with three parts"),
        (["I", "II", "IV"], ""),
        (["1st", "2nd", "3rd"], "numbers in several units (nd, rd, st)"),
        (["A12", "B7"], ""),
        (["Room 5", "Room 7"], ""),
        (["10-20", "20-30"], ""),
        (["1.2.3", "2.0.1"], ""),
        (["2013-01-05", "2014-02-06"], ""),
        (["2019-Q3", "2020-Q1"], ""),
    ],
)
def test_texts_of_which_no_single_format_is_sure_stay_text(texts: list[str], reason: str) -> None:
    form, said = find_number_format(pd.Series(texts * 5))
    assert form is None
    assert reason in said
    assert bool(reason) == bool(said)


def test_the_decimal_mark_of_other_columns_decides_what_one_leaves_open() -> None:
    column = pd.Series(["6.611", "8.500"])
    assert demanded_mark(column) is None
    assert find_number_format(column, ",").form == ","
    assert demanded_mark(pd.Series(["3,14"])) == ","


def test_with_a_unit_no_other_is_read() -> None:
    numbers, wrong = read_numbers(pd.Series(["85 kg", "85", "187 lb", "85 g", "?"]), ". kg")
    assert numbers[:2].tolist() == [85, 85]
    assert wrong.tolist() == [False, False, True, True, False]


@pytest.mark.parametrize("form", ["", ";", ".kg", "kg", "hours", "m:s"])
def test_a_format_that_is_none_is_named(form: str) -> None:
    with pytest.raises(UserError, match=r"^data.numbers: price: .* is no format of numbers; take the decimal mark"):
        check_number_format(form, "data.numbers: price")


@pytest.mark.parametrize("form", [".", ",", ". kg", ", €", "m:ss", "h:mm:ss", "duration", "feet"])
def test_every_format_reads_its_example(form: str) -> None:
    check_number_format(form, "")
    assert np.isfinite(read_numbers(pd.Series([example_of(form)]), form)[0]).all()


def test_in_chunks_the_numbers_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    column = pd.Series(["$1", None, "x", "2,5", "-", "1,000"])
    whole = read_numbers(column, ".")
    monkeypatch.setattr(reading, "CHUNK_ROWS", 2)
    for one, other in zip(whole, read_numbers(column, "."), strict=True):
        np.testing.assert_array_equal(one, other)
