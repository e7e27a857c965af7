"""A trained table network as a folder of plain files, and the predictor that reads it.

MLflow loads it through `_load_pyfunc`; nothing here imports MLflow, so the folder can be served alone.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from unfreeze.models.model_folder import class_frame, load_networks, read_description, save_model_folder
from unfreeze.models.table_specs import TableDataSpec, TrainTables
from unfreeze.models.tables.assemble import Joined, assemble, with_date_parts
from unfreeze.models.tables.batches import FORWARD_SIZE
from unfreeze.models.tables.encoding import Encoded, TableEncoder
from unfreeze.models.tables.recipe import network_of
from unfreeze.models.training.losses import CLASSES, values
from unfreeze.models.training.network import Network
from unfreeze.models.training.precision import Precision, pick_device, pick_precision


def save_table_model(
    folder: Path,
    network: Network,
    params: TrainTables,
    encoder: TableEncoder,
    joins: Sequence[Joined],
    snapshots: Sequence[Mapping[str, torch.Tensor]] = (),
) -> None:
    """Write weights, encoder, spec and the joined tables into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "encoder.json").write_text(encoder.to_json())
    described = []
    for number, joined in enumerate(joins):
        file = f"join-{number}.feather"
        joined.frame.to_feather(folder / file)
        described.append({"name": joined.name, "on": joined.on, "file": file})
    description = {"params": params.model_dump(mode="json"), "joins": described}
    save_model_folder(folder, network, description, snapshots)


def example_rows(frame: pd.DataFrame, data: TableDataSpec) -> pd.DataFrame:
    """A row with the columns and types of a table and none of its values: what a model's example shows.

    Parameters
    ----------
    frame
        Rows of the main table.
    data
        Says which columns are dates.
    """

    def value(column: pd.Series) -> pd.Series:
        if pd.api.types.is_datetime64_any_dtype(column):
            return pd.Series([pd.Timestamp("2000-01-01", tz=column.dt.tz)], dtype=column.dtype)
        if str(column.name) in data.date:
            return pd.Series(["2000-01-01"], dtype=column.dtype if pd.api.types.is_string_dtype(column) else object)
        if pd.api.types.is_numeric_dtype(column):  # booleans among them
            return pd.Series([0], dtype=column.dtype)
        return pd.Series(["text"], dtype=object)

    return pd.DataFrame({name: value(frame[name]) for name in frame.columns})


def predict_encoded(
    network: Network, encoded: Encoded, device: torch.device, precision: Precision | None = None
) -> torch.Tensor:
    """Outputs (N, C) float32 on the CPU of encoded rows, computed in float32 unless a precision is given."""
    network.eval()
    results = []
    with torch.inference_mode(), precision.autocast(training=False) if precision else nullcontext():
        for start in range(0, max(len(encoded), 1), FORWARD_SIZE):  # no rows give no outputs, but of the right width
            part = slice(start, start + FORWARD_SIZE)
            categories = torch.from_numpy(encoded.categorical[part].astype(np.int64)).to(device)
            numbers = torch.from_numpy(encoded.continuous[part]).to(device)
            results.append(network((categories, numbers)).float().cpu())
    return torch.cat(results)


class TablePredictor:
    """Predicts from raw rows exactly as the evaluation did.

    Parameters
    ----------
    folder
        What `save_table_model` wrote.
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    """

    def __init__(self, folder: Path, device: str = "auto") -> None:
        about = read_description(folder)
        self.params = TrainTables(**about["params"])
        self.encoder = TableEncoder.from_json((folder / "encoder.json").read_text())
        self.joins = [
            Joined(each["name"], pd.read_feather(folder / each["file"]), each["on"]) for each in about["joins"]
        ]
        self.device = pick_device(device)
        self.precision = pick_precision(self.params.precision, self.device)
        networks = load_networks(folder, lambda: network_of(self.params, self.encoder))
        self.networks = [network.to(self.device) for network in networks]

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Predictions for rows with the raw columns of the main table, in their order.

        Returns
        -------
        pandas.DataFrame
            Regression: a column per target. Classification: ``class``, ``probability`` and ``probabilities``.

        Raises
        ------
        UserError
            For missing columns and dates that cannot be read.
        """
        frame, _ = assemble(model_input.reset_index(drop=True), self.joins, self.params.data, training=False)
        return self.predict_assembled(frame)

    def predict_assembled(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Predictions for rows that are joined already and have their events; see `predict`."""
        results = self.results(frame)
        if self.encoder.task == "regression":
            return pd.DataFrame(results, columns=self.encoder.target_names)
        return class_frame(self.encoder.classes, results)

    def results(self, frame: pd.DataFrame) -> np.ndarray:
        """Values (N, T) in the targets' scale, or probabilities (N, C), float64, of rows as `assemble` makes them."""
        data = self.params.data
        encoded = self.encoder.transform(with_date_parts(frame, data))
        kind = values(data.log_target) if self.encoder.task == "regression" else CLASSES
        results = [
            kind.predictions(predict_encoded(network, encoded, self.device, self.precision))
            for network in self.networks
        ]
        return np.asarray(np.mean(results, axis=0))


def _load_pyfunc(data_path: str) -> TablePredictor:
    """Entry point for ``mlflow.pyfunc.load_model``."""
    return TablePredictor(Path(data_path))
