"""The table modality: prepare, bind, load and compare."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from unfreeze.models.errors import UserError
from unfreeze.models.evaluation.comparison import Comparison
from unfreeze.models.evaluation.drift import table_drift
from unfreeze.models.evaluation.results import Explanation
from unfreeze.models.recipe.modality import Modality, ModelVersion
from unfreeze.models.recipe.training_data import SPLITS, Prepared
from unfreeze.models.settings.predict import Explain, Predict
from unfreeze.models.settings.tables import TableDataSpec, TrainTables, completed
from unfreeze.models.store.model_folder import judged_folder
from unfreeze.models.store.paths import irregular_kind
from unfreeze.models.store.workspace import Derived, Workspace, key_of
from unfreeze.models.tables.batches import write_encoded
from unfreeze.models.tables.columns.roles import Role
from unfreeze.models.tables.data import TableData, open_joins
from unfreeze.models.tables.explain import explain_rows
from unfreeze.models.tables.preparing.prepare import prepare
from unfreeze.models.tables.preparing.sources import (
    hash_sources,
    is_flights,
    local_sources,
    parse_join,
    source_paths,
)
from unfreeze.models.tables.preparing.splits import row_blocks, time_blocks
from unfreeze.models.tables.reading.flights import flights_frame
from unfreeze.models.tables.reading.frames import (
    READABLE,
    column_types,
    file_notes,
    files_of,
    is_table,
    open_table,
    table_name,
    to_frame,
    write_feather,
    write_frame,
)
from unfreeze.models.tables.serving import TablePredictor
from unfreeze.models.targets import check_metrics

TABLE_VERSION = 6
"""Part of the cache key; increase it when the same files and settings would give other rows."""


class Tables(Modality):
    """Rows of a table, with one label or several numbers each."""

    name, spec, suffix, rows = "tables", TrainTables, "table", "rows"
    loader = "unfreeze.models.tables.serving"
    requirements = (
        *("torch", "safetensors", "pydantic", "numpy", "pandas", "pyarrow", "scikit-learn", "matplotlib"),
        *("filelock", "lightgbm", "xxhash"),
    )
    # Chunks of 1,024 rows would take twelve times as long.
    chunk, key = 65_536, pa.field("row", pa.int64())

    def complete(self, params: TrainTables) -> TrainTables:
        """Add the date column of the flights table."""
        return completed(params)

    def check(self, params: TrainTables) -> None:
        """Reject metrics that do not exist."""
        task = params.data.task
        check_metrics(["classification", "regression"] if task == "auto" else [task], params.metrics, params.select)

    # --- preparation

    def prepare(self, params: TrainTables, workspace: Workspace, earlier: Path | None = None) -> Prepared:
        """Read the tables once, join, add features, split, and encode by statistics of the training rows."""
        data = params.data
        local = local_sources(source_paths(data), workspace)
        contents = workspace.step(f"list tables of {data.source}", lambda: hash_sources(local))
        targets = {data.source: data.target}  # possible classes stay as written
        tables = {
            path: _read(path, local[path], content, workspace, (), targets.get(path, ()))
            for path, content in contents.items()
        }
        main, joins = tables[data.source], [tables[path] for path in source_paths(data)[1:]]
        joined = [(tables[path].stem, table_name(path), on) for path, on in map(parse_join, data.join)]
        # Moving a file does not change the key.
        key = key_of(main.stem, joined, data.model_dump(exclude={"source", "join"}), TABLE_VERSION)
        suffixes = {"frame": ".arrow", "encoded": ".arrow", "encoder": ".json", "split": ".npz"}
        suffixes |= {"columns": ".json", "notes": ".json"}
        if data.events or data.rolling:
            suffixes["calendar"] = ".feather"
        files = {name: Derived("prepared", f"{key}-{name}", suffix) for name, suffix in suffixes.items()}
        built = workspace.derive("prepare table", files, lambda wanted: _write(wanted, main, joins, data, workspace))
        with np.load(built["split"]) as split:
            sizes = {name: len(split[name]) for name in SPLITS}
        built |= {"main": main, **{f"join-{number}": path for number, path in enumerate(joins)}}
        return Prepared(self.name, key, key, {name: str(path) for name, path in built.items()}, sizes)

    def bind(self, params: TrainTables, prepared: Prepared) -> TableData:
        """Bind the spec to its table."""
        return TableData(params, prepared)

    def look(self, params: TrainTables, workspace: Workspace) -> list[Path]:
        """Files of the main table and those joined to it."""
        return [
            file for path in local_sources(source_paths(params.data), workspace).values() for file in files_of(path)
        ]

    # --- the trained model

    def load(self, folder: Path, device: str = "auto") -> TablePredictor:
        """Load a model folder."""
        return TablePredictor(folder, device)

    def list_source(
        self, params: Predict, model: str, folder: Path, workspace: Workspace, without: Sequence[Path]
    ) -> dict[str, Any]:
        """Read a table file once; columns that were text in training are read as text."""
        if params.tta is not None:
            raise UserError(f"tta: {model} predicts rows of a table; test-time augmentation is for images")
        local = local_sources([params.source], workspace)
        if not is_flights(params.source):
            _check_file(params.source, local[params.source], model)
        texts = TablePredictor(folder, "cpu").text_columns()
        path = _read(params.source, local[params.source], hash_sources(local)[params.source], workspace, texts)
        table = open_table(path)
        for note in file_notes(table)[0]:
            workspace.log(f"{params.source}: {note}")
        return {"path": str(path), "rows": table.num_rows, "content": path.stem}

    def explain(self, params: Explain, model: str, folder: Path, workspace: Workspace) -> Explanation:
        """Explain by permutation importance and SHAP, on the rows of one file."""
        if len(params.source) > 1:
            raise UserError(f"source: {model} predicts rows of a table; give one file, not {len(params.source)}")
        listed = self.list_source(Predict(source=params.source[0]), model, folder, workspace, ())
        return explain_rows(TablePredictor(folder, params.device), open_table(Path(listed["path"])))

    def compare(self, data: Any, champion: ModelVersion, challenger: ModelVersion, margin: float = 0.0) -> Comparison:
        """Compare both models on test rows (without any, validation rows) that the champion has not seen.

        With dates these are later than its training rows. Weeks and the series of `data.group` are resampled whole.

        Raises
        ------
        UserError
            If no such row is left.
        """
        spec: TableDataSpec = data.params.data
        split = "test" if len(data.rows["test"]) else "valid"
        frame = data.frame.iloc[data.rows[split]].reset_index(drop=True)
        # A champion was selected on its validation rows, so a test excludes them too.
        until = champion.tags.get(f"data.{'validated' if split == 'test' else 'trained'}_until")
        if until is not None and spec.split in ("auto", "last_days"):
            frame = frame[frame[spec.date[0]] > pd.Timestamp(until)].reset_index(drop=True)
        if frame.empty:
            raise UserError("no validation row is later than those that the champion was trained on; add rows")
        folders = [each.folder if split == "test" else judged_folder(each.folder) for each in (champion, challenger)]
        predictors = [TablePredictor(folder) for folder in folders]
        target = predictors[1].target
        # A column that was text for the champion may now hold numbers, or the reverse.
        typed = [each.types.apply(frame)[0] for each in predictors]
        before, after = (each.target.frame(each.results(rows)) for each, rows in zip(predictors, typed, strict=True))
        actual = frame[list(target.columns) or spec.target[0]].to_numpy()
        return target.compare(actual, before, after, margin=margin, blocks=blocks_of(frame, spec))

    def drift(self, data: Any, champion: ModelVersion, reference: pd.DataFrame) -> tuple[pd.DataFrame, str]:
        """Compare column distributions with the champion's."""
        every = np.concatenate([data.rows[split] for split in SPLITS])
        sample = data.sample(every)
        return table_drift(reference, sample), f"{len(sample):,} of {len(every):,} rows were compared"


def blocks_of(frame: pd.DataFrame, data: TableDataSpec) -> list[np.ndarray]:
    """Blocks of related rows, by series and by time; groupings with a single block are dropped."""
    ways = []
    if data.group:
        ways.append(frame.groupby(data.group, dropna=False).ngroup().to_numpy())
    if data.date and data.date[0] in frame:
        ways.append(time_blocks(frame[data.date[0]]))
    if data.split == "last_rows":
        ways.append(row_blocks(len(frame)))
    return [way for way in ways if len(np.unique(way)) > 1]


def _check_file(source: str, file: Path, model: str) -> None:
    """Check a file for prediction."""
    wanted = f"{model} predicts the rows of a table: {READABLE}"
    if not file.exists():
        raise UserError(f"source: {source!r} does not exist in {Path.cwd()}; {wanted}")
    if (kind := irregular_kind(file)) is None:
        kind = "a folder without Parquet files" if file.is_dir() else "a file of another kind"
        if is_table(file):
            return
    raise UserError(f"source: {source!r} is {kind}; {wanted}")


def _read(
    path: str, file: Path, content: str, workspace: Workspace, texts: Sequence[str] = (), verbatim: Sequence[str] = ()
) -> Path:
    """Convert a table once to a memory-mappable feather file; see `write_feather`."""

    def read(wanted: dict[str, Path]) -> None:
        if is_flights(path):
            frame, rejected = flights_frame()
            write_frame(frame, wanted["table"])
            for entry in rejected:
                workspace.log(f"rejected: {entry['reason']}: {entry['rows']:,} rows")
            return
        with workspace.progress(f"Reading {file.name}") as advance:
            write_feather(file, wanted["table"], advance, texts, verbatim)

    files = {"table": Derived("tables", key_of(content, list(texts), list(verbatim), TABLE_VERSION))}
    return workspace.derive(f"read {path}", files, read)["table"]


def _write(
    wanted: dict[str, Path], main: Path, joins: Sequence[Path], data: TableDataSpec, workspace: Workspace
) -> None:
    """Prepare a table and write its `wanted` files."""
    table = open_table(main)
    prepared = prepare(to_frame(table, next(iter(wanted.values())).parent), open_joins(data, joins), data)
    if "frame" in wanted:
        write_frame(prepared.frame, wanted["frame"])
    if "encoded" in wanted:
        write_encoded(prepared.encoded, prepared.targets, wanted["encoded"])
    if "encoder" in wanted:
        wanted["encoder"].write_text(prepared.encoder.to_json())
    if "split" in wanted:
        with wanted["split"].open("wb") as file:
            np.savez(file, train=prepared.train, valid=prepared.valid, test=prepared.test)
    if "columns" in wanted:
        found = prepared.data.model_dump(exclude={"source", "join"})  # the files may have moved since
        wanted["columns"].write_text(json.dumps({"found": found, "raw": asdict(prepared.raw)}))
    if "notes" in wanted:
        notes = {"types": column_types(table), "rejected": prepared.rejected, "warnings": prepared.warnings}
        read = {data.source: table} | {
            path: open_table(file) for path, file in zip(source_paths(data)[1:], joins, strict=True)
        }
        notes["files"] = [f"{path}: {note}" for path, each in read.items() for note in file_notes(each)[0]]
        left_out = [
            Role(name, "left out", reason, "") for each in read.values() for name, reason in file_notes(each)[1].items()
        ]
        notes |= {"roles": [role._asdict() for role in [*prepared.roles, *left_out]], "readings": prepared.readings}
        wanted["notes"].write_text(json.dumps(notes, default=str))
    if "calendar" in wanted and prepared.calendar is not None:
        prepared.calendar.save(wanted["calendar"])
    sizes = f"{len(prepared.train):,} training, {len(prepared.valid):,} validation and {len(prepared.test):,} test rows"
    workspace.log(f"{sizes}, {len(prepared.encoder.columns())} columns")
