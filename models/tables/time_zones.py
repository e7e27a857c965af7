"""Columns of times whose zone polars cannot read, such as +05:30, in Parquet and feather files."""

from collections.abc import Mapping
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from unfreeze.models.errors import UserError


def with_known_zones(source: Path, columns: Mapping[str, pa.DataType], copy: Path) -> Path:
    """The file itself or, where polars does not know a zone, a feather file with the wall clock of that zone.

    The zone would be left out later in any case, see `unfreeze.models.tables.dates`.

    Parameters
    ----------
    source
        A Parquet or feather file.
    columns
        Its columns' types, by name.
    copy
        Where the other file is written, batch by batch, if one is needed.

    Raises UserError where nobody knows a zone, and what pyarrow raises where the file is damaged.
    """
    zones = {name: kind for name, kind in columns.items() if pa.types.is_timestamp(kind) and kind.tz}
    unknown = {name: kind for name, kind in zones.items() if not _is_known(kind.tz)}
    if not unknown:
        return source
    for name, kind in unknown.items():
        try:
            pc.local_timestamp(pa.scalar(0, kind))
        except pa.ArrowInvalid:
            raise UserError(
                f"{source}, column {name}: there is no time zone {kind.tz!r}; save it with one such as Europe/Berlin "
                "or +02:00, or without a zone"
            ) from None
    from pyarrow.dataset import dataset  # takes half a second to import, and hardly any file needs it

    values = {name: pc.field(name) for name in columns}
    rows = dataset(source, format="parquet" if source.suffix.lower() == ".parquet" else "ipc")
    scanner = rows.scanner(columns=values | {name: pc.local_timestamp(values[name]) for name in unknown})
    with pa.OSFile(str(copy), "wb") as file, pa.ipc.new_file(file, scanner.projected_schema) as writer:
        for batch in scanner.to_batches():
            writer.write_batch(batch)
    return copy


def _is_known(zone: str) -> bool:
    try:
        pl.Series([0]).cast(pl.Datetime("us", zone))
    except pl.exceptions.ComputeError:
        return False
    return True
