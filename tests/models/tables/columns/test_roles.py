import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from unfreeze.models.errors import UserError
from unfreeze.models.settings.tables import TableDataSpec
from unfreeze.models.tables.columns import formats
from unfreeze.models.tables.columns.roles import Found, infer_roles
from unfreeze.models.tables.preparing.prepare import Joined, prepare

ROWS = 200
RANDOM = np.random.default_rng(0)
AMOUNT = RANDOM.uniform(1, 9000, ROWS).round(2)
TARGET = RANDOM.normal(size=ROWS)


def found_in(column: list[object] | np.ndarray | pd.Series, name: str = "it", **data: object) -> Found:
    frame = pd.DataFrame({name: column, "other": RANDOM.normal(size=ROWS), "target": TARGET})
    return infer_roles(frame, TableDataSpec(target=["target"], **data))[1]


def role_of(column: list[object] | np.ndarray | pd.Series, name: str = "it", **data: object) -> str:
    """The role, or ``plain`` for what is left to the encoder."""
    found = found_in(column, name, **data).roles
    return found[name].role if name in found else "plain"


NUMBERS = {
    "dollars": [f"${value:,.2f}" for value in AMOUNT],
    "percent": [f"{value:.1f}%" for value in AMOUNT],
    "decimal comma": [f"{value:.2f}".replace(".", ",") for value in AMOUNT],
    "question marks": [*map(str, AMOUNT[2:]), "?", "?"],
    "dashes": ["-", *map(str, AMOUNT[1:])],
    "a few typing errors": [*map(str, AMOUNT[4:]), "ten", "12 km", "n.n.", "x"],
    "codes of currencies": [f"{value:.0f} EUR" for value in AMOUNT],
}


@pytest.mark.parametrize("style", NUMBERS)
def test_numbers_in_text_become_numbers(style: str) -> None:
    frame, found = infer_roles(pd.DataFrame({"it": NUMBERS[style], "target": TARGET}), TableDataSpec(target=["target"]))
    units = {"dollars": ". $", "percent": ". %", "decimal comma": ",", "codes of currencies": ". eur"}
    assert found.data.numbers == {"it": units.get(style, ".")}
    assert found.lenient == (["it"] if style == "a few typing errors" else [])
    unread = {"question marks": 2, "dashes": 1, "a few typing errors": 4}.get(style, 0)
    assert frame["it"].count() == ROWS - unread
    np.testing.assert_allclose(frame["it"].dropna(), AMOUNT[unread:], atol=0.51)
    assert (found.roles["it"].role, found.roles["it"].flag) == ("number", "--data.categorical it")


def test_what_cannot_be_read_is_counted_and_shown() -> None:
    reason = found_in(NUMBERS["a few typing errors"]).roles["it"].reason
    assert "4 of 200 values cannot be read ('ten', '12 km', 'n.n.') and are missing" in reason


WORDS = {
    "words": list(RANDOM.choice(["red", "green", "blue"], ROWS)),
    "too many words among numbers": [*map(str, AMOUNT[11:]), *["about ten"] * 11],
    "one number only": ["5"] * 100 + ["?"] * 100,
    "codes with leading zeros": [f"{number:05d}" for number in RANDOM.integers(0, 30, ROWS)],
    "sizes": list(RANDOM.choice(["10-20", "20-50", "50+"], ROWS)),
}


@pytest.mark.parametrize("kind", WORDS)
def test_other_text_stays_text(kind: str) -> None:
    assert found_in(WORDS[kind]).data.numbers == {}
    assert role_of(WORDS[kind]) == ("left out" if kind == "too many words among numbers" else "plain")  # each its own


@given(st.lists(st.text("abcdefgh xyz.,-$%()", min_size=1), min_size=ROWS, max_size=ROWS))
def test_words_never_become_numbers(words: list[str]) -> None:
    assert found_in(words).data.numbers == {}


def test_zip_codes_are_categories_by_name_or_by_their_zeros() -> None:
    zips = RANDOM.integers(10_000, 99_999, 60)[RANDOM.integers(0, 60, ROWS)]
    assert role_of(zips, "zip_code") == role_of(zips, "customer_id") == "category"
    assert role_of([str(number) for number in zips], "PostCode"[:4] + "code") == "plain"
    assert found_in(zips, "zip").data.categorical == ["zip"]
    assert role_of(zips, "zip", continuous=["zip"]) == "plain"


IDS = {
    "id": (RANDOM.permutation(ROWS) + 1000, "id by its name"),
    "PassengerId": (np.arange(ROWS) * 7, "id by its name"),
    "customerid": (RANDOM.permutation(10**6)[:ROWS], "id by its name"),
    "area_code": (RANDOM.permutation(10**6)[:ROWS], "code by its name"),
    "column 1": (RANDOM.permutation(ROWS), "row number by its name"),
    "place": (np.arange(ROWS), "counts the rows"),
    "backward": (np.arange(ROWS)[::-1].astype(float), "counts the rows"),
    "key": ([f"k{number:04x}" for number in range(ROWS)], "hardly any two rows share"),
    "title": ([f"t{number if number % 20 else 0}" for number in range(ROWS)], "hardly any two rows share"),
    "note": ([f"this is what person {number % 150} wrote here" for number in range(ROWS)], "free text"),
}


@pytest.mark.parametrize("name", IDS)
def test_ids_row_numbers_and_free_text_are_left_out(name: str) -> None:
    values, reason = IDS[name]
    found = found_in(values, name)
    assert found.data.drop == [name]
    assert reason in found.roles[name].reason
    setting = "continuous" if reason in ("row number by its name", "counts the rows") else "categorical"
    assert found.roles[name].flag == f"--data.{setting} {name}"
    assert found_in(values, name, **{setting: [name]}).data.drop == []


KEPT = {
    "id": AMOUNT,  # fractions: a measurement, whatever its name
    "year": np.arange(ROWS) + 1800,
    "number_of_inhabitants": RANDOM.permutation(10**6)[:ROWS],
    "weight": RANDOM.permutation(10**4)[:ROWS],
    "paid": RANDOM.permutation(10**4)[:ROWS],
    "reading": np.cumsum(RANDOM.integers(1, 99, ROWS)),
    "distance": np.arange(ROWS) + 18,
    "t": np.arange(ROWS),
}


def test_a_code_that_is_the_same_in_every_row_is_left_out_as_such() -> None:
    frame = pd.DataFrame({"area": AMOUNT, "code": [7] * ROWS, "target": TARGET})
    lines = [str(role) for role in prepare(frame, [], TableDataSpec(target=["target"])).roles]
    assert "code: left out, the same value in every row" in lines


@pytest.mark.parametrize("name", KEPT)
def test_measurements_are_never_mistaken_for_ids(name: str) -> None:
    assert role_of(KEPT[name], name) == "plain"


DAYS = pd.date_range("2022-01-01", periods=ROWS)
DATES = {
    "ISO": DAYS.strftime("%Y-%m-%d"),
    "with times": DAYS.strftime("%Y-%m-%d %H:%M:%S"),
    "American": DAYS.strftime("%m/%d/%Y"),
    "German": DAYS.strftime("%d.%m.%Y"),
    "months as words": DAYS.strftime("%d %b %Y"),
    "whole numbers": DAYS.strftime("%Y%m%d").astype(int),
    "digits as text": DAYS.strftime("%Y%m%d"),
    "times": DAYS,
    "a few typing errors": pd.Series(DAYS.strftime("%Y-%m-%d")).where(np.arange(ROWS) > 3, "unclear"),
    "missing ones": pd.Series(DAYS.strftime("%Y-%m-%d")).where(np.arange(ROWS) > 90),
}


@pytest.mark.parametrize("style", DATES)
def test_dates_are_found(style: str) -> None:
    found = found_in(pd.Series(DATES[style]))
    assert found.data.date == ["it"]
    assert found.roles["it"].role == "date"
    assert found.data.numbers == {}


NO_DATES = {
    "years": [str(1900 + number % 100) for number in range(ROWS)],
    "times of day": [f"{number % 24:02d}:15" for number in range(ROWS)],
    "counts": list(range(20_130_100, 20_130_100 + ROWS)),  # 20130132 is no day
    "words": ["may", "march"] * 100,
}


@pytest.mark.parametrize("kind", NO_DATES)
def test_what_only_resembles_dates_is_none(kind: str) -> None:
    assert found_in(NO_DATES[kind]).data.date == []


def test_dates_of_which_nobody_knows_the_order_are_categories_and_say_so() -> None:
    found = found_in([f"0{1 + number % 9}/0{1 + number % 7}/2020" for number in range(ROWS)])
    assert found.data.date == []
    assert "nothing tells whether" in found.roles["it"].reason


def test_the_only_feature_is_never_left_out() -> None:
    alone = pd.DataFrame({"x": np.arange(ROWS), "target": TARGET})
    assert infer_roles(alone, TableDataSpec(target=["target"]))[1].data.drop == []
    frame = pd.DataFrame({"x": np.arange(ROWS), "area": AMOUNT, "target": TARGET})
    assert infer_roles(frame, TableDataSpec(target=["target"]))[1].data.drop == ["x"]


def test_settings_win_over_what_would_be_found() -> None:
    frame = pd.DataFrame({"price": NUMBERS["dollars"], "id": range(ROWS), "day": DATES["ISO"], "target": TARGET})
    stated = TableDataSpec(target=["target"], categorical=["price", "id", "day"])
    after, found = infer_roles(frame, stated)
    assert found.data == stated
    pd.testing.assert_frame_equal(after, frame)


def test_a_stated_decimal_mark_wins() -> None:
    texts = [f"1,{number:03d}" for number in range(ROWS)]
    stated = TableDataSpec(target=["target"], numbers={"it": ","})
    frame, _ = infer_roles(pd.DataFrame({"it": texts, "target": TARGET}), stated)
    assert frame["it"].tolist() == [float(text.replace(",", ".")) for text in texts]
    with pytest.raises(UserError, match=r"data\.numbers: the table has no column 'ti'"):
        infer_roles(frame, TableDataSpec(target=["target"], numbers={"ti": ","}))


def test_a_target_of_numbers_in_text_is_a_regression_unless_it_is_to_be_classified() -> None:
    frame = pd.DataFrame({"feature": AMOUNT, "price": NUMBERS["dollars"]})
    table = prepare(frame, [], TableDataSpec(target=["price"]))
    assert table.encoder.task == "regression"
    np.testing.assert_allclose(table.targets[:, 0], AMOUNT, rtol=1e-6)
    few = frame.assign(price=["$1", "$2"] * 100)
    assert prepare(few, [], TableDataSpec(target=["price"], task="classification")).encoder.classes == ["$1", "$2"]


def test_only_a_sample_of_a_long_column_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "SAMPLE_ROWS", 40)
    assert found_in(NUMBERS["dollars"]).data.numbers == {"it": ". $"}
    assert found_in(DATES["ISO"]).data.date == ["it"]
    late = [*map(str, range(100)), *map(str, range(100))]
    assert role_of([f"k{text}" for text in late], "key") == "plain", "distinct in the sample, but not in the column"


def test_every_column_has_a_line_with_its_role_its_reason_and_the_flag_that_changes_it() -> None:
    frame = pd.DataFrame(
        {
            "id": range(ROWS),
            "price": NUMBERS["a few typing errors"],
            "town": RANDOM.choice(["Bonn", "Ulm"], ROWS),
            "rooms": RANDOM.integers(1, 6, ROWS),
            "area": AMOUNT,
            "same": ["x"] * ROWS,
            "secret": AMOUNT,
            "shop": [1, 2] * (ROWS // 2),
            "sold": TARGET,
        }
    )
    shops = pd.DataFrame({"shop": [1, 2], "opened": ["2001-02-03", "2014-05-06"]})
    stated = TableDataSpec(target=["sold"], drop=["secret"])
    prepared = prepare(frame, [Joined("shops", shops, None)], stated)
    lines = [str(role) for role in prepared.roles]
    price = ", ".join(f"'{each['value']}' is {each['read as']}" for each in prepared.readings[:2])
    assert lines == [
        (
            "rows: split at random, 20% of the rows validate: opened is a date, but the rows are no series in its "
            "order (else --data.date opened: the last days validate)"
        ),
        "sold: target, regression of its numbers (else --data.task classification)",
        "id: left out, an id by its name, 200 values in 200 rows (else --data.categorical id)",
        (
            f"price: number, text of numbers with a decimal point ({price}); 4 of 200 values cannot be read "
            "('ten', '12 km', 'n.n.') and are missing (else --data.categorical price)"
        ),
        "town: category, text with 2 values (else --data.drop town)",
        "rooms: category, whole numbers with 5 values (else --data.continuous rooms)",
        "area: number, it has many values or fractions (else --data.categorical area)",
        "same: left out, the same value in every row",
        "secret: left out, as data.drop says",
        "shop: category, whole numbers with 2 values (else --data.continuous shop)",
        (
            "opened: date, its values are dates, written as ISO 8601 ('2001-02-03' is 2001-02-03, "
            "'2014-05-06' is 2014-05-06) (else --data.categorical opened)"
        ),
    ]


def test_ids_that_are_left_out_move_no_row_and_stay_beside_the_predictions() -> None:
    frame = pd.DataFrame({"id": range(ROWS), "area": AMOUNT, "sold": TARGET})
    found = prepare(frame, [], TableDataSpec(target=["sold"]))
    stated = prepare(frame, [], TableDataSpec(target=["sold"], categorical=["id"]))
    assert found.valid.tolist() == stated.valid.tolist()
    assert "id" in found.frame
    assert found.encoder.columns() == ["area"]


@pytest.mark.parametrize("word", ["NA", "?", "None"])
def test_a_word_as_frequent_as_the_numbers_of_a_target_is_asked_about(word: str) -> None:
    target = [["0", "1", word][row % 3] for row in range(ROWS)]
    frame = pd.DataFrame({"x": AMOUNT, "target": target})
    with pytest.raises(UserError, match=r"target 'target': .* in 33% of the rows, beside 0, 1, may be a class or"):
        infer_roles(frame, TableDataSpec(target=["target"]))
    assert infer_roles(frame, TableDataSpec(target=["target"], task="classification"))[0]["target"].tolist() == target
    read = infer_roles(frame, TableDataSpec(target=["target"], numbers={"target": "."}))[0]["target"]
    assert read.isna().sum() == target.count(word)
