import errno
from contextlib import suppress
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import given, strategies as st

from unfreeze.models.errors import UserError
from unfreeze.models.tables.reading import frames as reading, text_files
from unfreeze.models.tables.reading.frames import (
    column_types,
    count_up_to,
    open_file,
    open_table,
    to_frame,
    write_feather,
    write_frame,
)


def read(tmp_path: Path, content: str | bytes) -> pa.Table:
    source = tmp_path / "table.csv"
    source.write_bytes(content.encode() if isinstance(content, str) else content)
    write_feather(source, tmp_path / "table.feather")
    return open_table(tmp_path / "table.feather")


def names_of(path: Path) -> list[str]:
    return open_file(path, names_only=True).names


def types(table: pa.Table) -> list[str]:
    return [str(column_type).removeprefix("large_") for column_type in table.schema.types]


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
    monkeypatch.setattr(text_files, "_BLOCK_BYTES", 1 << 14)
    rows = "".join(f"0,{number}\n" for number in range(20_000)) + "a,0.5\n" + "0,1\n" * 10
    table = read(tmp_path, "StateHoliday,value\n" + rows)
    assert len(table["StateHoliday"].chunks) > 3
    assert types(table) == ["string", "double"]
    assert table["StateHoliday"][0].as_py() == "0"
    holiday, value = column_types(table)
    assert holiday["note"] == "numbers and text, so text: row 20002 holds 'a'"
    assert value["note"] == ""


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (["01234", "98765"], "string"),
        (["007", "123"], "string"),
        (["00123", ""], "string"),
        (["01", "12"], "int64"),
        (["01234", "7"], "int64"),
        (["123", "456"], "int64"),
        (["0.50", "1.25"], "double"),
        (["-01", "123"], "int64"),
    ],
)
def test_digits_of_one_length_with_leading_zeros_are_a_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: list[str], wanted: str
) -> None:
    monkeypatch.setattr(text_files, "_BLOCK_BYTES", 16)
    table = read(tmp_path, "code,other\n" + "".join(f"{value},1\n" for value in values * 5))
    assert types(table) == [wanted, "int64"]
    if wanted == "string":
        assert table["code"].to_pylist() == [value or None for value in values * 5]
        assert column_types(table)[0]["note"] == "digits of one length with leading zeros: a code, so text"


def test_missing_is_what_is_missing_for_pandas(tmp_path: Path) -> None:
    words = ["None", "<NA>", "NA", "n/a", "null", "NULL", "nan", "NaN", "#N/A", "N/A", "", "none", "?"]
    content = "kind,other\n" + "".join(f"{word},1\n" for word in words)
    table = read(tmp_path, content)
    assert table["kind"].is_null().to_pylist() == pd.read_csv(tmp_path / "table.csv")["kind"].isna().tolist()


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
        (b"a,b\n1,2\n1\n", "row 3: 1 field instead of 2"),
        ("a,café\n1,".encode() + b"caf\xe9\n", "line 2: not UTF-8 text, though other lines are"),
        (b"a;b\n1;2\n1;2;3\n", "row 3: 3 fields instead of 2: '1;2;3'; quote values that contain semicolons"),
    ],
)
def test_a_csv_file_that_is_no_table_is_refused_with_its_place(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path, content)
    assert "table.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_columns_may_be_separated_otherwise_where_the_header_has_no_comma(tmp_path: Path, separator: str) -> None:
    lines = ["day,a,b", '1,"x,y",2.5', "2,z,3"]
    expected = read(tmp_path, "\n".join(lines)).to_pydict()
    other = [line.replace(",", separator).replace(f"x{separator}y", "x,y") for line in lines]
    assert read(tmp_path, "\n".join(other)).to_pydict() == expected


def test_a_header_with_commas_is_separated_by_them_whatever_its_names_hold(tmp_path: Path) -> None:
    assert read(tmp_path, "a|b|c,d\n1,2\n").column_names == ["a|b|c", "d"]


def test_a_header_of_twenty_thousand_columns_is_read(tmp_path: Path) -> None:
    names = [f"column{number}" for number in range(20_000)]
    (tmp_path / "wide.csv").write_text(",".join(names) + "\n")
    assert names_of(tmp_path / "wide.csv") == names


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".feather"])
def test_names_of_columns_are_read_without_rows(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"table{suffix}"
    frame = pd.DataFrame({"a": [1], " b": ["x"]})
    {".csv": frame.to_csv, ".parquet": frame.to_parquet, ".feather": frame.to_feather}[suffix](file)
    write_feather(file, tmp_path / "read.feather")
    assert names_of(file) == open_table(tmp_path / "read.feather").column_names


def test_a_quote_that_is_never_closed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "_BLOCK_BYTES", 1 << 14)
    with pytest.raises(UserError, match="quote is never closed"):
        read(tmp_path, 'a,b\n1,"x\n' + "1,2\n" * 10_000)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        write_feather(tmp_path / "absent.csv", tmp_path / "table.feather")


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    (tmp_path / "table.json").write_text("a\n1\n")
    with pytest.raises(UserError, match=r"unknown suffix '.json'; save the table as CSV"):
        write_feather(tmp_path / "table.json", tmp_path / "table.feather")


@pytest.mark.parametrize("suffix", ["parquet", "feather"])
def test_a_damaged_file_is_refused(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / f"table.{suffix}"
    source.write_text("not a table at all")
    with pytest.raises(UserError, match="is not a readable"):
        write_feather(source, tmp_path / "target.feather")
    with pytest.raises(UserError, match="is not a readable feather"):
        open_table(source)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's device that is always full")
@pytest.mark.parametrize("suffix", ["csv", "parquet", "feather"])
def test_a_full_disk_is_not_blamed_on_the_file_that_is_read(tmp_path: Path, suffix: str) -> None:
    source, target = tmp_path / f"table.{suffix}", tmp_path / "target.feather"
    rows = pd.DataFrame({"price": [1.5, 2.5]})
    {"csv": rows.to_csv, "parquet": rows.to_parquet, "feather": rows.to_feather}[suffix](source)
    target.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_feather(source, target)
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table({"a": pa.array([], pa.int64())}), "columns but no rows"),
        (pa.table([[1], [2]], names=["a", "a"]), "several columns are called a"),
        (pa.table({"a": [[1, 2]]}), "no usable column: a: values of type list"),
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


def test_a_feather_file_with_a_type_that_arrow_does_not_have_is_refused_with_its_name(tmp_path: Path) -> None:
    pa.feather.write_feather(pa.table({"a": pa.array([1], pa.int8())}), str(tmp_path / "whole.feather"))
    whole, refused = (tmp_path / "whole.feather").read_bytes(), 0
    for place in (place for place, byte in enumerate(whole) if byte == 8):
        damaged = tmp_path / "damaged.feather"
        damaged.write_bytes(whole[:place] + b"\x04" + whole[place + 1 :])  # an integer of four bits, in one of them
        try:
            pa.ipc.open_file(str(damaged)).read_all()
        except pa.ArrowNotImplementedError:
            refused += 1
            with pytest.raises(UserError, match=r"damaged\.feather"):
                names_of(damaged)
        except (pa.ArrowException, OSError):
            pass
    assert refused


def test_a_file_with_a_column_whose_name_is_not_text_is_refused_with_its_name(tmp_path: Path) -> None:
    file = tmp_path / "damaged.feather"
    pa.feather.write_feather(pa.table({"price": [1, 2]}), str(file), compression="uncompressed")
    file.write_bytes(file.read_bytes().replace(b"price", b"pri\xee\x00"))
    for read in (names_of, lambda path: write_feather(path, tmp_path / "out.feather")):
        with pytest.raises(UserError, match=r"damaged\.feather is not a readable feather file"):
            read(file)


def test_no_library_prints_anything_about_a_damaged_feather_file(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "damaged.feather"
    pa.feather.write_feather(pa.table({"name": ["a", "bb", "ccc"]}), str(source), "uncompressed")
    whole = source.read_bytes()
    for place in range(len(whole)):
        source.write_bytes(whole[:place] + b"\x7f" + whole[place + 1 :])
        with suppress(UserError):
            write_feather(source, tmp_path / "out.feather")
    assert capfd.readouterr().err == ""
