"""Tables in files that know their types: Parquet and feather."""

import errno
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import polars as pl
import polars.selectors as cs
import pyarrow as pa
import pyarrow.parquet

from unfreeze.models.errors import UserError, one_line
from unfreeze.models.tables.time_zones import with_known_zones

_FULL_DISK = re.compile(rf"(?i)err(?:or|no) ({errno.ENOSPC}|{errno.EDQUOT})\b")
"""How polars and pyarrow tell of one: only the number in the text is the same everywhere."""


def write_columnar(source: Path, target: Path, report: Callable[[int, int], None]) -> None:
    """Write a Parquet or feather file as a feather file of plain types; `report` gets rows done and rows in all."""
    try:
        columns = columnar_types(source)
        if source.suffix.lower() != ".parquet":
            _check_batches(source)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            readable = with_known_zones(source, dict(columns), Path(folder) / "known.feather")
            _convert(source, readable, target, report)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, pa.ArrowException, OSError) as error:
        if (full := _FULL_DISK.search(str(error))) is not None:
            raise OSError(int(full[1]), os.strerror(int(full[1])), str(target)) from error
        raise _unreadable(source, error) from error


def columnar_types(source: Path) -> list[tuple[str, pa.DataType]]:
    """Names and types of the columns."""
    # By pyarrow: polars fails in its own ways where names repeat.
    try:
        if source.suffix.lower() == ".parquet":
            schema = pa.parquet.read_schema(source)
        else:
            schema = pa.ipc.open_file(pa.memory_map(str(source))).schema
        return [(field.name, field.type) for field in schema]
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _unreadable(source, error) from error


def _convert(source: Path, readable: Path, target: Path, report: Callable[[int, int], None]) -> None:
    scan: Callable[..., pl.LazyFrame] = pl.scan_parquet if readable.suffix.lower() == ".parquet" else pl.scan_ipc
    rows = scan(readable, glob=False, hive_partitioning=False).with_columns(
        (cs.categorical() | cs.enum() | cs.time() | cs.by_dtype(pl.Null)).cast(pl.String),
        cs.decimal().cast(pl.Float64),
        cs.date().cast(pl.Datetime("us")),
    )
    plain = rows.select(cs.numeric() | cs.boolean() | cs.datetime() | cs.string()).collect_schema()
    for name, dtype in rows.collect_schema().items():
        if name not in plain:
            raise UserError(f"{source}, column {name}: values of type {dtype} cannot be used; save it without them")
    if (total := rows.select(pl.len()).collect().item()) == 0:
        raise UserError(f"{source} has columns but no rows")
    report(0, total)
    rows.sink_ipc(target, compression="uncompressed", compat_level=pl.CompatLevel.oldest())
    report(total, total)


def _check_batches(source: Path) -> None:
    # Threads of polars panic over a damaged file, and print where, before the error is caught.
    with pa.memory_map(str(source)) as file:
        reader = pa.ipc.open_file(file)
        for number in range(reader.num_record_batches):
            reader.get_batch(number).validate(full=True)


def _unreadable(source: Path, error: BaseException) -> UserError:
    form = "Parquet" if source.suffix.lower() == ".parquet" else "feather"
    return UserError(f"{source} is not a readable {form} file ({one_line(error)}); save it again")
