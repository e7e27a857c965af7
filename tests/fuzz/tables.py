"""Tables: their files byte by byte, and what columns of all sorts are taken for, up to the encoded rows."""

import csv
import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from hypothesis import strategies as st

from tests.fuzz.endings import Kind
from tests.fuzz.mutations import ODD, near, words
from unfreeze.models.settings.overrides import build_spec
from unfreeze.models.settings.tables import TableDataSpec
from unfreeze.models.tables.preparing.prepare import Joined, prepare
from unfreeze.models.tables.reading.frames import column_types, open_table, to_frame, write_feather

NAMES = ["id", "day", "shop", "price", "sales", "code", "split", "text", " x", "x ", "", "column 2", "Day", "day_month"]

# --- files


def _files() -> dict[str, list[bytes]]:
    frame = pd.DataFrame(
        {
            "day": pd.date_range("2024-01-01", periods=4),
            "shop": pd.Categorical(["a", "b", None, "a"]),
            "code": ["007", "008", "009", "010"],
            "price": [1.5, np.nan, np.inf, -2],
            "open": [True, False, True, True],
            "count": [1, 2, 3, 2**60],
        }
    )
    rare = pa.table(
        {
            "decimal": pa.array([1, 2], pa.decimal128(5, 2)),
            "day": pa.array([1, 2], pa.date32()),
            "time": pa.array([1, 2], pa.time64("us")),
            "none": pa.nulls(2),
            "zone": pa.array([1, 2], pa.timestamp("ns", "Europe/Berlin")),
            "large": pa.array(["a", None], pa.large_string()),
        }
    )
    nested = pa.table({"list": [[1], [2, 3]], "struct": [{"a": 1}, None], "bytes": [b"a", b"b"]})
    feathers, parquets = [], []
    for table in (pa.Table.from_pandas(frame), rare, nested):
        for compression in ("uncompressed", "lz4"):
            content = io.BytesIO()
            pa.feather.write_feather(table, content, compression=compression)
            feathers.append(content.getvalue())
        content = io.BytesIO()
        pa.parquet.write_table(table, content)
        parquets.append(content.getvalue())
    texts = [
        frame.to_csv(index=False).encode(),
        frame.to_csv(index=False, sep=";").encode("utf-16"),
        'a,b\n1,"x\ny"\n2,é\n'.encode(),
        "a,b\r\n1,2\r\n+3, 4 \r\n".encode("utf-8-sig"),
        b"a,a,b\n1,2,3\n",
        b"a\n\n\n1\n",
    ]
    return {".csv": texts, ".feather": feathers, ".parquet": parquets}


def run_file(case: tuple[str, bytes, list[str]], folder: Path) -> None:
    """Read a file as a training and a prediction do."""
    suffix, content, text = case
    source, target = folder / f"table{suffix}", folder / "read.arrow"
    source.write_bytes(content)
    write_feather(source, target, text=text)
    table = open_table(target)
    table.validate(full=True)
    described = column_types(table)
    frame = to_frame(table, folder)
    assert len(described) == frame.shape[1]
    assert len(frame) == table.num_rows > 0


_CELLS = st.one_of(st.sampled_from(ODD), words, st.integers().map(str), st.floats().map(str))
_TEXTS = st.integers(1, 4).flatmap(
    lambda width: st.lists(st.lists(_CELLS, min_size=width, max_size=width), min_size=1, max_size=6)
)


def _csv(rows: list[list[str]], quoting: int) -> bytes:
    text = io.StringIO()
    csv.writer(text, quoting=quoting, escapechar="\\").writerows(rows)
    return text.getvalue().encode(errors="replace")


_FILES = st.one_of(
    *(st.tuples(st.just(suffix), near(contents)) for suffix, contents in _files().items()),
    st.tuples(st.just(".csv"), st.builds(_csv, _TEXTS, st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]))),
)

# --- columns


def _dates(form: str) -> Callable[[random.Random, int], str]:
    def one(chance: random.Random, row: int) -> str:
        return (pd.Timestamp("2023-01-25") + pd.Timedelta(days=chance.randrange(90), hours=row)).strftime(form)

    return one


STYLES: dict[str, Callable[[random.Random, int], str]] = {
    "number": lambda chance, row: f"{chance.gauss(100, 30):.2f}",
    "huge": lambda chance, row: f"{chance.gauss(0, 1):.3f}e{chance.randrange(-300, 300)}",
    "whole": lambda chance, row: str(chance.randrange(40)),
    "large": lambda chance, row: str(2**62 + chance.randrange(9)),
    "comma": lambda chance, row: f"{chance.uniform(0, 2000):,.2f}".translate(str.maketrans(",.", ".,")),
    "money": lambda chance, row: f"${chance.uniform(0, 2000):,.2f}",
    "weight": lambda chance, row: f"{chance.randrange(2000):,} {chance.choice(['kg', 'kg', 'lb'])}",
    "scaled": lambda chance, row: f"{chance.uniform(0, 99):.1f}{chance.choice('kM')}+",
    "dots": lambda chance, row: f"{chance.randrange(9000):,}".replace(",", "."),
    "feet": lambda chance, row: f"{chance.randrange(4, 7)}'{chance.randrange(12)}\"",
    "spent": lambda chance, row: f"{chance.randrange(9)}h {chance.randrange(60)}m",
    "roman": lambda chance, row: chance.choice(["I", "II", "IV", "M"]),
    "none": lambda chance, row: chance.choice(["None", "0", "1"]),
    "percent": lambda chance, row: f"{chance.randrange(100)} %",
    "bool": lambda chance, row: chance.choice(["True", "False"]),
    "few": lambda chance, row: chance.choice(["a", "b", "c"]),
    "padded": lambda chance, row: f"{chance.randrange(99):05d}",
    "row": lambda chance, row: str(row),
    "words": lambda chance, row: " ".join(chance.choice(["red", "green", "blue", str(row)]) for _ in range(5)),
    "split": lambda chance, row: chance.choice(["train", "train", "valid", "test"]),
    "constant": lambda chance, row: "1",
    "empty": lambda chance, row: "",
    "gaps": lambda chance, row: chance.choice(["", "1.5", "2"]),
    **{
        form: _dates(form)
        for form in (
            *("%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y", "%Y%m%d", "%Y-%m-%dT%H:%M:%S%z", "%b %d %Y"),
            *("%d/%m/%y", "%b-%y", "%Y%m", "%Y.%m", "%G-W%V", "%s", "%H:%M", "%d%b%Y:%H:%M:%S", "%I:%M %p %m/%d/%y"),
        )
    },
}
FORMATS = ["ISO 8601", "%d/%m/%y", "%d/%m/%y to 2031", "unix ms", "quarter", "%Q"]
_COLUMNS = st.lists(
    st.tuples(
        st.one_of(st.sampled_from(NAMES), st.sampled_from(NAMES), words),
        st.sampled_from(list(STYLES)),
        st.integers(0, 99),
        st.dictionaries(st.integers(0, 39), st.sampled_from(ODD), max_size=2),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda column: column[0].strip(),
)
_CONDITIONS = st.builds(
    lambda name, comparison, value: f"{name} {comparison} {value}",
    st.sampled_from(NAMES),
    st.sampled_from(["==", "!=", "<", ">=", "=", "in"]),
    st.one_of(st.sampled_from([*ODD, "a", "50", "2023-03-01"]), words),
)


def _settings(columns: list[Any]) -> st.SearchStrategy[dict[str, Any]]:
    names = [name.strip() or f"column {position}" for position, (name, *_) in enumerate(columns, start=1)]
    some = st.lists(st.sampled_from(names), max_size=2, unique=True)
    return st.fixed_dictionaries(
        {
            "target": st.one_of(
                st.just(names[-1:]),
                st.just(names[-1:]),
                st.lists(st.sampled_from([*names, "gone"]), min_size=1, max_size=2),
            )
        },
        optional={
            "task": st.sampled_from(["regression", "classification"]),
            "log_target": st.booleans(),
            "date": some,
            "time_of_day": st.booleans(),
            "cyclic": st.booleans(),
            "drop": some,
            "where": st.lists(_CONDITIONS, max_size=2),
            "categorical": some,
            "continuous": some,
            "numbers": st.dictionaries(
                st.sampled_from([*names, "gone"]), st.sampled_from([".", ", €", "feet", "m:ss", "x"]), max_size=1
            ),
            "date_formats": st.dictionaries(st.sampled_from([*names, "gone"]), st.sampled_from(FORMATS), max_size=1),
            "date_from": st.dictionaries(words, some, max_size=1),
            "group": some,
            "events": some,
            "rolling": some,
            "split": st.sampled_from(["last_days", "last_rows", "random", "group", "column"]),
            "split_column": st.sampled_from([*names, "gone"]),
            "valid_days": st.sampled_from([1, 10, 3650]),
            "test_days": st.sampled_from([0, 5, 3650]),
            "fold": st.sampled_from([0, 1, 1000]),
            "valid_fraction": st.sampled_from([0.2, 0.5, 1e-9, 0.999]),
            "test_fraction": st.sampled_from([0, 0.3]),
        },
    )


def _frame_of(columns: list[Any], rows: int, folder: Path, name: str) -> pd.DataFrame:
    made = []
    for title, style, number, odd in columns:
        chance = random.Random(number)
        made.append([title, *(odd.get(row, STYLES[style](chance, row)) for row in range(rows))])
    source = folder / f"{name}.csv"
    source.write_bytes(_csv([list(row) for row in zip(*made, strict=True)], csv.QUOTE_ALL))
    write_feather(source, folder / f"{name}.arrow")
    return to_frame(open_table(folder / f"{name}.arrow"), folder)


def run_columns(case: tuple[tuple[list[Any], dict[str, Any]], int, list[Any]], folder: Path) -> None:
    """Prepare a table of columns of all sorts, joined to another one perhaps."""
    (columns, settings), rows, other = case
    frame = _frame_of(columns, rows, folder, "table")
    joins = [Joined("other", _frame_of(other, 3, folder, "other"), None)] if other else []
    prepared = prepare(frame, joins, build_spec(TableDataSpec, settings))
    assert len(prepared.encoded) == len(prepared.targets) == len(prepared.frame)
    assert min(len(prepared.train), len(prepared.valid)) > 0
    assert np.isfinite(prepared.encoded.continuous).all()
    prepared.encoder.from_json(prepared.encoder.to_json())


_PREPARED = st.tuples(
    _COLUMNS.flatmap(lambda columns: st.tuples(st.just(columns), _settings(columns))),
    st.one_of(st.just(40), st.integers(1, 60)),
    st.one_of(st.just([]), st.just([]), st.just([]), _COLUMNS),
)

FILES = Kind(
    "table files",
    st.tuples(_FILES, st.lists(st.sampled_from(["a", "code"]), max_size=1)).map(lambda case: (*case[0], case[1])),
    run_file,
    share=12,
    found=[(".csv", b'a,b\n1\x00"x\ny"\n2,\xc3\xa9\n', [])],
)
COLUMNS = Kind(
    "tables",
    _PREPARED,
    run_columns,
    share=0.7,
    places=lambda case: [""],
    found=[
        (([("a", "number", 0, {}), ("id", "huge", 0, {})], {"target": ["id"], "task": "regression"}), 40, []),
        (([("a", "%s", 7, {}), ("b", "%m/%d/%Y", 75, {})], {"target": ["b"]}), 40, []),
    ],
)
KINDS = [FILES, COLUMNS]
