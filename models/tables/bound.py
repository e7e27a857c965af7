"""A spec bound to its prepared table: network, trees, their predictions, and the rows of each split."""

import json
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unfreeze.models.recipe.training_data import SPLITS, Activations, Candidate, Prepared, TrainingData
from unfreeze.models.settings.tables import TrainTables
from unfreeze.models.tables.batches import TableBatches, read_encoded
from unfreeze.models.tables.columns.encoding import Encoded, TableEncoder
from unfreeze.models.tables.network import network_of
from unfreeze.models.tables.preparing.row_reader import RawColumns
from unfreeze.models.tables.preparing.splits import row_blocks, time_blocks
from unfreeze.models.tables.reading.frames import open_table, to_frame
from unfreeze.models.tables.serving import predict_encoded, predictions_of
from unfreeze.models.tables.trees import Trees, filled
from unfreeze.models.training.batches import Batches
from unfreeze.models.training.learner import Learner
from unfreeze.models.training.network import Network
from unfreeze.models.training.precision import pick_precision, ready_device
from unfreeze.models.training.schedules import planned


class BoundTable(TrainingData):
    """A spec, an encoder and the encoded rows.

    `prepared` has the files ``frame``, ``encoded``, ``encoder``, ``split``, ``columns``, ``notes``, ``calendar``,
    ``main`` and ``join-N``. The data settings in `params` include the findings.
    """

    batch_sizes = (32, 256)

    def __init__(self, params: TrainTables, prepared: Prepared) -> None:
        self.prepared = prepared
        columns = json.loads(self._file("columns").read_text())
        self.raw = RawColumns(**columns["raw"])
        params = params.model_copy(update={"data": params.data.model_copy(update=columns["found"])})
        self.encoder = TableEncoder.from_json(self.kept_file.read_text())
        self.device = ready_device(params.device)
        self.precision = pick_precision(params.precision, self.device)
        with np.load(self._file("split")) as split:
            self.rows = {name: split[name] for name in SPLITS}
        self.target = self.encoder.target.weighed(params.optimizer, partial(self.targets, "train"))
        self.params = planned(params, len(self.rows["train"]), *self.batch_sizes)

    def _file(self, name: str) -> Path:
        return Path(self.prepared.files[name])

    def network(self) -> Network:
        """A new network."""
        return network_of(self.params, self.encoder)

    def targets(self, split: str) -> np.ndarray:
        """Targets of a split, as in `TableEncoder.targets`."""
        _, targets = read_encoded(self._file("encoded"))
        return np.asarray(targets[self.rows[split]])

    def encoded(self, split: str) -> tuple[Encoded, np.ndarray]:
        """All rows of a split, and their targets."""
        encoded, targets = read_encoded(self._file("encoded"))
        return encoded.rows(self.rows[split]), targets[self.rows[split]]

    def batches(self, position: int, split: str, activations: Activations) -> Batches:
        """Batches of a split, the same in every stage."""
        return TableBatches(self._file("encoded"), self.rows[split], self.device, self.batch_size)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """All rows before encoding, with targets and dates; numbers stay in the mapped file, read-only."""
        return to_frame(open_table(self._file("frame")))

    @property
    def kept_file(self) -> Path:
        """The encoder of columns."""
        return self._file("encoder")

    def dates(self, split: str) -> pd.Series | None:
        """First date column for the rows of a split, or None."""
        dates = self.params.data.date
        return self.frame[dates[0]].iloc[self.rows[split]] if dates and dates[0] in self.frame else None

    def blocks(self, split: str) -> np.ndarray | None:
        """Blocks by weeks or days of the first date column; without dates by series, or runs of rows in time order;
        None if there is only one block.
        """
        dates, groups = self.dates(split), self.params.data.group
        if dates is not None:
            blocks = time_blocks(dates)
        elif groups:
            blocks = self.frame[groups].iloc[self.rows[split]].groupby(groups, dropna=False).ngroup().to_numpy()
        elif self.params.data.split == "last_rows":
            blocks = row_blocks(len(self.rows[split]))
        else:
            return None
        return blocks if len(blocks) and (blocks != blocks[0]).any() else None

    @cached_property
    def trees(self) -> Trees:
        """Gradient-boosted trees, fitted on the training rows."""
        return self.fit_trees(len(self.rows["train"]), later=self.encoded("valid") if self.in_time else None)

    @property
    def in_time(self) -> bool:
        """Whether the validation rows come after the training rows."""
        return self.params.data.split in ("last_days", "last_rows")

    def fit_trees(self, rows: int, **how: Any) -> Trees:
        """Fit trees on the training rows, with the default settings for a number of `rows`."""
        settings = filled(self.params.boosting, rows)
        about: dict[str, Any] = {"settings": settings, "class_weights": self.target.class_weights, **how}
        return Trees.fit(self.encoder, *self.encoded("train"), self.params.seed, **about)

    def answers(self, learner: Learner, candidate: Candidate, rows: Encoded) -> np.ndarray:
        """Predictions for any rows, as in `predictions`."""
        outputs = learner.of_members(
            candidate.states, lambda: predict_encoded(learner.network, rows, learner.device, learner.precision)
        )
        predictions = predictions_of(self.encoder, outputs, candidate.parts.get("trees"), rows)
        return self.target.tempered(predictions, candidate.temperature)
