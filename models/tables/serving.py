"""A trained table model as a folder of plain files, and the predictor that reads it.

MLflow loads it through `_load_pyfunc`; nothing here imports MLflow, so the folder can be served without it.
"""

import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import torch
from pandas.api import types

from unfreeze.models.errors import UserError
from unfreeze.models.settings.tables import TableDataSpec, TrainTables
from unfreeze.models.store.model_folder import TEMPERATURE, load_networks, loading, read_description, save_model_folder
from unfreeze.models.tables.columns.calendar import Calendar
from unfreeze.models.tables.columns.encoding import Encoded, TableEncoder
from unfreeze.models.tables.columns.number_texts import example_of
from unfreeze.models.tables.network import network_of
from unfreeze.models.tables.preparing.prepare import Joined, assemble, with_date_parts
from unfreeze.models.tables.preparing.row_reader import RawColumns, RowReader, TrainedTypes, plainly_named
from unfreeze.models.tables.reading.frames import open_table, require
from unfreeze.models.tables.trees import Trees
from unfreeze.models.targets.conformal import answers, kept_scores
from unfreeze.models.targets.predictions import Chunk, unseen_note
from unfreeze.models.training.batches import put_together
from unfreeze.models.training.network import Network, State
from unfreeze.models.training.precision import Precision, pick_device, pick_precision

CPU_BLOCK, ACCELERATOR_BLOCK = 256, 8192
"""Rows per forward pass, the last one padded: matrix products round differently for other row counts, and a prediction
would depend on the rows beside it."""


def save_table_model(
    folder: Path,
    states: Sequence[State],
    params: TrainTables,
    encoder: TableEncoder,
    joins: Sequence[Joined],
    raw: RawColumns,
    calendar: Calendar | None = None,
    trees: Trees | None = None,
    calibration: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Write weights, trees, encoder, spec, the joined tables and the calendar into `folder`.

    The spec includes the findings of the training (see `infer_roles`).
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "encoder.json").write_text(encoder.to_json())
    described = []
    for number, joined in enumerate(joins):
        file = f"join-{number}.feather"
        joined.frame.to_feather(folder / file)
        described.append({"name": joined.name, "on": joined.on, "file": file})
    if calendar is not None:
        calendar.save(folder / "calendar.feather")
    if trees is not None:
        trees.save(folder)
    about = {"modality": "tables", "params": params.model_dump(mode="json"), "raw": asdict(raw)}
    description = {**about, "joins": described, "trees": trees is not None, **calibration}
    save_model_folder(folder, states, description)


def example_rows(frame: pd.DataFrame, data: TableDataSpec) -> pd.DataFrame:
    """A synthetic row with the columns and types of a table and none of its values."""

    def value(column: pd.Series) -> pd.Series:
        if types.is_datetime64_any_dtype(column):
            return pd.Series([pd.Timestamp("2000-01-01", tz=column.dt.tz)], dtype=column.dtype)
        if str(column.name) in data.date:
            return pd.Series(["2000-01-01"], dtype=column.dtype if types.is_string_dtype(column) else object)
        if types.is_numeric_dtype(column):  # including booleans
            return pd.Series([0], dtype=column.dtype)
        form = data.numbers.get(str(column.name))
        return pd.Series(["text" if form is None else example_of(form)], dtype=object)

    return pd.DataFrame({name: value(frame[name]) for name in frame.columns})


def predict_encoded(
    network: Network, encoded: Encoded, device: torch.device, precision: Precision | None = None
) -> torch.Tensor:
    """Outputs (N, C) float32 on the CPU for encoded rows, computed in float32 unless a precision is given.

    A row's outputs are bit-identical regardless of the rows beside it.
    """
    network.eval()
    precision = precision or Precision(device.type, torch.float32, torch.float32)
    block = CPU_BLOCK if device.type == "cpu" else ACCELERATOR_BLOCK

    def parts() -> Iterator[tuple[torch.Tensor, ...]]:
        for start in range(0, max(len(encoded), 1), block):
            part = encoded.rows(np.arange(start, min(start + block, len(encoded))))
            fill = [(0, block - len(part)), (0, 0)]
            categories, numbers = (
                torch.from_numpy(np.pad(each, fill)).to(device) for each in (part.categorical, part.continuous)
            )
            yield (network((categories.long(), numbers))[: len(part)].float(),)

    with torch.inference_mode(), precision.autocast(training=False):
        (outputs,) = put_together(parts(), len(encoded))
    return outputs


def predictions_of(
    encoder: TableEncoder, outputs: Sequence[torch.Tensor], trees: Trees | None, rows: Encoded
) -> np.ndarray:
    """Averaged predictions of networks and trees: values (N, T) in their own scale, or probabilities (N, C), float64.

    Parameters
    ----------
    outputs
        Of each network, see `predict_encoded`; averaged first among networks, then with the trees.
    """
    target = encoder.target
    networks = [target.average([target.predictions(each) for each in outputs])] if outputs else []
    trained = [] if trees is None else [encoder.predictions(trees.predict(rows))]
    return target.average([*networks, *trained])


class TablePredictor:
    """Predictor for raw rows from a folder of `save_table_model`; matches the evaluation exactly."""

    def __init__(self, folder: Path, device: str = "auto") -> None:
        with loading(folder):
            about = read_description(folder)
            self.params = TrainTables(**about["params"])
            self.encoder = TableEncoder.from_json((folder / "encoder.json").read_text())
            self.target = self.encoder.target
            self.joins = [
                Joined(each["name"], pd.read_feather(folder / each["file"]), each["on"]) for each in about["joins"]
            ]
            self.raw = RawColumns(**about["raw"])
            keys = [joined.frame[joined.on] if joined.on else joined.frame for joined in self.joins]
            self.types = TrainedTypes.of(self.encoder, keys, self.params.data, self.raw)
            kept = folder / "calendar.feather"
            self.calendar = Calendar.load(kept, self.params.data) if kept.exists() else None
            self.device = pick_device(device)
            self.precision = pick_precision(self.params.precision, self.device)
            self.temperature, self.scores = float(about.get(TEMPERATURE, 1.0)), kept_scores(about)
            self.trees = Trees.load(folder, self.encoder) if about["trees"] else None
            networks = load_networks(folder, lambda: network_of(self.params, self.encoder))
            self.networks = [network.to(self.device) for network in networks]
            if not networks and self.trees is None:
                raise UserError("its description has neither networks nor trees; train and register it again")

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Predictions as a frame (see `conformal.answers`); see `predictions`."""
        return answers(self.target, self.predictions(model_input), self.scores, params)

    def predictions(self, rows: pd.DataFrame) -> np.ndarray:
        """Values (N, T) or probabilities (N, C) float64 of rows with the raw columns of the main table.

        Rows may come as pandas reads the training file: with extra columns, gaps, categoricals, and numbers where the
        training had text, or the reverse.

        Raises
        ------
        UserError
            For missing columns, unreadable values, and rows whose event features cannot be computed.
        """
        frame, unusable = self.types.apply(plainly_named(rows))
        if not unusable:
            frame, unusable = self.assemble(frame)
        if unusable:
            row, reason = min(unusable.items())
            raise UserError(f"row {row}: {reason}")
        results, unseen = self._answers(frame)
        for name, positions in unseen.items():
            warnings.warn(unseen_note(name, len(positions), len(frame)), stacklevel=3)
        return results

    @property
    def target_names(self) -> list[str]:
        """Columns of the target."""
        return list(self.encoder.target_names)

    def actual(self, rows: pd.DataFrame) -> np.ndarray:
        """Targets of raw rows, see `Target.actual`.

        Raises
        ------
        UserError
            If a target is missing or of the wrong kind.
        """
        require(rows, self.target_names, "rows to evaluate")
        return self.target.actual(torch.from_numpy(self.encoder.targets(plainly_named(rows))))

    def assemble(self, frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[int, str]]:
        """Raw rows with joined columns and event features, and row -> why these cannot be computed."""
        require(frame, self.raw.needed, "rows to predict")
        data = self.params.data
        assembled = assemble(frame, self.joins, data, False, self.calendar, self.raw.lenient)
        return assembled.frame, assembled.unknown

    def results(self, frame: pd.DataFrame) -> np.ndarray:
        """Values (N, T) in the targets' scale, or probabilities (N, C), float64, for rows from `assemble`."""
        return self._answers(frame)[0]

    def _answers(self, frame: pd.DataFrame) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """`results`, and the rows with unseen categories by column, see `TableEncoder.unseen`."""
        frame = with_date_parts(frame, self.params.data)
        encoded = self.encoder.transform(frame)
        outputs = [predict_encoded(network, encoded, self.device, self.precision) for network in self.networks]
        results = predictions_of(self.encoder, outputs, self.trees, encoded)
        return self.target.tempered(results, self.temperature), self.encoder.unseen(frame, encoded)

    def chunks(
        self, source: Mapping[str, Any], size: int, first: int, tta: bool | None
    ) -> Generator[Chunk, None, None]:
        """Predict a table's file from row `first`, `size` rows at a time.

        Unreadable rows are reported. Event features need the whole table in memory.
        """
        reader = RowReader(open_table(Path(source["path"])), self.types)

        def read(start: int, end: int) -> tuple[pd.DataFrame, dict[int, str]]:
            frame, errors = reader.read(start, end)
            frame, unknown = self.assemble(frame)
            return frame, {**unknown, **errors}

        whole = read(0, source["rows"]) if self.calendar is not None else None
        for start in range(first, source["rows"], size):
            end = min(start + size, source["rows"])
            if whole is None:
                frame, errors = read(start, end)
            else:
                frame = whole[0].iloc[start:end].reset_index(drop=True)
                errors = {row - start: why for row, why in whole[1].items() if start <= row < end}
            rows = np.setdiff1d(np.arange(end - start), list(errors))
            results, unseen = self._answers(frame)
            counts = {name: len(np.intersect1d(found, rows)) for name, found in unseen.items()}
            yield Chunk(range(start, end), rows, results[rows], errors, counts)

    def text_columns(self) -> list[str]:
        """File columns to read as text, because they were text in training."""
        return self.types.text_columns()


def _load_pyfunc(data_path: str) -> TablePredictor:
    """Entry point for ``mlflow.pyfunc.load_model``."""
    return TablePredictor(Path(data_path))
