import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from unfreeze.models.errors import UserError
from unfreeze.models.tables.preparing.sources import join_many_to_one, keep_where, parse_join

# Joins

SALES = pd.DataFrame({"store": [2, 1, 2, 9], "sales": [5, 6, 7, 8]}, index=[10, 11, 12, 13])
STORES = pd.DataFrame({"store": [1, 2, 3], "kind": ["a", "b", "c"], "sales": [1, 2, 3]})


def test_a_join_keeps_the_rows_their_order_and_their_index() -> None:
    joined = join_many_to_one(SALES, STORES, ["store"], "stores")
    assert joined.index.tolist() == [10, 11, 12, 13]
    assert joined["kind"].fillna("none").tolist() == ["b", "a", "b", "none"]
    assert joined["sales"].tolist() == [5, 6, 7, 8]
    assert joined["sales_stores"].fillna(0).tolist() == [2, 1, 2, 0]


def test_a_join_without_columns_takes_those_that_both_have() -> None:
    joined = join_many_to_one(SALES, STORES.drop(columns="sales"), None, "stores")
    assert list(joined.columns) == ["store", "sales", "kind"]


@given(left=st.lists(st.integers(0, 5), min_size=1), right=st.sets(st.integers(0, 5), min_size=1))
def test_a_join_gives_each_row_the_value_of_its_key(left: list[int], right: set[int]) -> None:
    frame = pd.DataFrame({"key": left})
    other = pd.DataFrame({"key": sorted(right), "value": [key * 10 for key in sorted(right)]})
    values = join_many_to_one(frame, other, None, "other")["value"]
    assert values.fillna(-1).tolist() == [key * 10 if key in right else -1 for key in left]


@pytest.mark.filterwarnings("error")
def test_whole_numbers_have_no_partner_among_others() -> None:
    frame = pd.DataFrame({"key": [1, 2]})
    other = pd.DataFrame({"key": [1.0, 2.5], "value": [1, 2]})
    assert join_many_to_one(frame, other, None, "other")["value"].fillna(0).tolist() == [1, 0]


def test_a_missing_key_has_no_partner() -> None:
    frame = pd.DataFrame({"key": ["a", None]})
    other = pd.DataFrame({"key": ["a", None, None], "value": [1, 2, 3]})
    assert join_many_to_one(frame, other, None, "other")["value"].fillna(0).tolist() == [1, 0]


@pytest.mark.parametrize("keys", [[1, 2], ["a", "b"], pd.to_datetime(["2015-01-01", "2015-01-02"])])
@pytest.mark.parametrize("unknown", [None, np.nan, pd.NaT])
def test_rows_of_which_none_has_a_key_can_be_joined(keys: list[object], unknown: object) -> None:
    frame = pd.DataFrame({"key": [unknown, unknown], "value": [1, 2]}, index=[5, 4])
    joined = join_many_to_one(frame, pd.DataFrame({"key": keys, "kind": ["x", "y"]}), None, "other")
    assert joined.index.tolist() == [5, 4]
    assert joined["value"].tolist() == [1, 2]
    assert joined["kind"].isna().all()


def test_a_row_whose_key_is_unknown_gets_missing_values() -> None:
    joined = join_many_to_one(pd.DataFrame({"store": [99]}), STORES, None, "stores")
    assert joined["kind"].isna().tolist() == [True]


def test_keys_that_occur_twice_are_named() -> None:
    twice = pd.DataFrame({"store": [1, 1, 2, 2, 3, 3, 4, 4], "kind": list("abcdefgh")})
    with pytest.raises(UserError, match=r"4 keys .*\(store 1; store 2; store 3\), which would multiply rows"):
        join_many_to_one(SALES, twice, ["store"], "twice")


@pytest.mark.parametrize(
    ("right", "on", "message"),
    [
        (STORES.astype({"store": str}), ["store"], "store holds numbers in the main table but text in stores"),
        (STORES.rename(columns={"store": "Store"}), ["store"], "in stores: .* no column 'store'; did you mean Store"),
        (STORES, ["shop"], "in the main table: the table has no column 'shop'; did you mean|it has: store"),
        (pd.DataFrame({"other": [1]}), None, "share no column"),
        (STORES.assign(store=np.nan), ["store"], "store has no value in any row of stores"),
        (STORES.assign(sales_stores=1), ["store"], "sales_stores.*; rename a column"),
    ],
)
def test_a_join_that_cannot_work_is_refused(right: pd.DataFrame, on: list[str] | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        join_many_to_one(SALES, right, on, "stores")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("store.csv", ("store.csv", None)),
        (" store.csv on Store ", ("store.csv", ["Store"])),
        ("a/b.parquet on Store,Open date", ("a/b.parquet", ["Store", "Open date"])),
        ("depends on me/store.csv", ("depends on me/store.csv", None)),
        ("depends on me/store.csv on A , B", ("depends on me/store.csv", ["A", "B"])),
    ],
)
def test_a_join_names_its_file_and_perhaps_its_columns(text: str, expected: tuple[str, list[str] | None]) -> None:
    assert parse_join(text) == expected


@pytest.mark.parametrize("text", ["", " ", "store.csv on ", "store.csv on A,", " on A"])
def test_a_join_without_file_or_column_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="write FILE, or FILE on COLUMN"):
        parse_join(text)


# Conditions

ROWS = pd.DataFrame(
    {
        "Open": [1, 0, 1, 1],
        "Sales": [10.0, 20.0, np.nan, 40.0],
        "state name": ["a", "b", None, "a b"],
        "day": pd.to_datetime(["2015-01-01", "2015-01-02", "2015-01-03", None]),
        "flag": [True, False, True, False],
    }
)


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ("Open == 1", [0, 2, 3]),
        ("Open==1.0", [0, 2, 3]),
        ("Sales > 10", [1, 3]),
        ("Sales >= 10", [0, 1, 3]),
        ("Sales <2e1", [0]),
        ("Sales <= 20", [0, 1]),
        ("Sales != 10", [1, 2, 3]),
        ("state name == a", [0]),
        ("state name==a", [0]),
        ("state name != a", [1, 2, 3]),
        ("state name == 'a b'", [3]),
        ('state name == "a b"', [3]),
        ("day >= 2015-01-02", [1, 2]),
        ("day != 2015-01-02", [0, 2, 3]),
        ("flag == true", [0, 2]),
        ("flag == 0", [1, 3]),
    ],
)
def test_a_condition_keeps_the_rows_for_which_it_holds(condition: str, kept: list[int]) -> None:
    frame, rejected = keep_where(ROWS, [condition])
    assert frame.index.tolist() == kept
    assert rejected == [{"reason": f"{condition} does not hold", "rows": 4 - len(kept)}]


def test_each_condition_counts_the_rows_that_those_before_it_kept() -> None:
    frame, rejected = keep_where(ROWS, ["Open == 1", "Sales > 0", "Open >= 0"])
    assert frame.index.tolist() == [0, 3]
    assert [entry["rows"] for entry in rejected] == [1, 1, 0]


def test_no_condition_keeps_everything() -> None:
    frame, rejected = keep_where(ROWS, [])
    assert frame is ROWS
    assert rejected == []


def test_moments_with_a_time_zone_are_compared_in_it() -> None:
    frame = ROWS.assign(day=ROWS["day"].dt.tz_localize("America/New_York"))
    assert keep_where(frame, ["day == 2015-01-02"])[0].index.tolist() == [1]


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("opne == 1", "no column 'opne'; did you mean Open"),
        ("sales > 1", "no column 'sales'; did you mean Sales"),
        ("Open", "write COLUMN"),
        ("Open = 1", "write COLUMN"),
        ("Open === 1", "write COLUMN"),
        ("Open =< 1", "write COLUMN"),
        ("Open ==", "write COLUMN"),
        ("== 1", "write COLUMN"),
        ("Sales > many", "Sales holds numbers, which 'many' is not"),
        ("Sales < inf", "Sales holds numbers, which 'inf' is not"),
        ("day > yes", "day holds dates, which 'yes' is not"),
        ("flag == maybe", "which 'maybe' is not"),
        ("Open == 7", "holds for none of 4 rows"),
        ("__import__('os').system('x') == 1", "no column"),
    ],
)
def test_a_condition_that_cannot_be_used_is_refused(condition: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        keep_where(ROWS, [condition])
