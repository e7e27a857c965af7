"""A trained table network as a folder of plain files, and the predictor that reads it.

MLflow loads it through `_load_pyfunc`; nothing here imports MLflow, so the folder can be served alone.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from models.errors import UserError
from models.table_specs import TrainTables
from models.tables.assemble import Joined, assemble, with_date_parts
from models.tables.encoding import Encoded, TableEncoder
from models.tables.recipe import network_of
from models.training.losses import CLASSES, values
from models.training.network import Network
from models.training.precision import pick_device

FORMAT_VERSION = 1
ROWS_AT_ONCE = 8192


def save_table_model(
    folder: Path, network: Network, params: TrainTables, encoder: TableEncoder, joins: Sequence[Joined]
) -> None:
    """Write weights, encoder, spec and the joined tables into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    (folder / "encoder.json").write_text(encoder.to_json())
    described = []
    for number, joined in enumerate(joins):
        file = f"join-{number}.feather"
        joined.frame.to_feather(folder / file)
        described.append({"name": joined.name, "on": joined.on, "file": file})
    about = {"format": FORMAT_VERSION, "params": params.model_dump(mode="json"), "joins": described}
    (folder / "model.json").write_text(json.dumps(about, indent=1))


def predict_encoded(network: Network, encoded: Encoded, device: torch.device) -> torch.Tensor:
    """Outputs (N, C) float32 on the CPU of encoded rows."""
    network.eval()
    results = []
    with torch.inference_mode():
        for start in range(0, len(encoded.categorical), ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
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
        about = json.loads((folder / "model.json").read_text())
        if about["format"] != FORMAT_VERSION:
            raise UserError(f"{folder}: model format {about['format']}, but this release reads {FORMAT_VERSION}")
        self.params = TrainTables(**about["params"])
        self.encoder = TableEncoder.from_json((folder / "encoder.json").read_text())
        self.joins = [
            Joined(each["name"], pd.read_feather(folder / each["file"]), each["on"]) for each in about["joins"]
        ]
        self.device = pick_device(device)
        network = network_of(self.params, self.encoder)
        network.load_state_dict(load_file(folder / "model.safetensors"))
        self.network = network.eval().to(self.device)

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
        data = self.params.data
        frame, _ = assemble(model_input.reset_index(drop=True), self.joins, data, training=False)
        outputs = predict_encoded(self.network, self.encoder.transform(with_date_parts(frame, data)), self.device)
        if self.encoder.task == "regression":
            predictions = values(data.log_target).predictions(outputs)
            return pd.DataFrame(predictions, columns=self.encoder.target_names)
        probabilities = CLASSES.predictions(outputs)
        return pd.DataFrame(
            {
                "class": [self.encoder.classes[number] for number in probabilities.argmax(1)],
                "probability": probabilities.max(1),
                "probabilities": probabilities.tolist(),
            }
        )


def _load_pyfunc(data_path: str) -> TablePredictor:
    """Entry point for ``mlflow.pyfunc.load_model``."""
    return TablePredictor(Path(data_path))
