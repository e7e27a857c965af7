"""A table's spec bound to its prepared files: makes the learner and the batches."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from unfreeze.models.table_specs import TrainTables
from unfreeze.models.tables.batches import TableBatches, read_encoded
from unfreeze.models.tables.encoding import Encoded, TableEncoder, embedding_width
from unfreeze.models.tables.metrics import table_metrics
from unfreeze.models.tables.network import TableHead, build_table_network
from unfreeze.models.training.allocator import ready_device
from unfreeze.models.training.batches import Batches
from unfreeze.models.training.learner import Learner
from unfreeze.models.training.losses import CLASSES, cross_entropy, squared_error, values
from unfreeze.models.training.network import Network
from unfreeze.models.training.precision import pick_precision


class TableRecipe:
    """A spec, an encoder and the encoded rows.

    Parameters
    ----------
    params
        The whole spec.
    encoder
        Path of the fitted encoder's JSON.
    files
        ``encoded`` (rows as the network takes them) and ``split`` (row numbers, an ``.npz`` of train and valid).
    """

    def __init__(self, params: TrainTables, encoder: Path, files: Mapping[str, Path]) -> None:
        self.params, self.encoder = params, TableEncoder.from_json(encoder.read_text())
        self.device = ready_device(params.device)
        self.precision = pick_precision(params.precision, self.device)
        self._encoded = files["encoded"]
        with np.load(files["split"]) as split:
            self.rows = {name: split[name] for name in ("train", "valid")}

    def learner(self) -> Learner:
        """A learner with a new network, seeded by the spec."""
        params, encoder = self.params, self.encoder
        metrics: dict[str, Any] = table_metrics(encoder.task, params.metrics)
        network = network_of(params, encoder)
        targets = self._batches("train").targets
        if encoder.task == "classification":
            loss = cross_entropy(params.optimizer, targets.numpy(), len(encoder.classes), self.device)
            outputs = CLASSES
        else:
            loss, outputs = squared_error, values(params.data.log_target)
            cast(TableHead, network.head).start_at(targets.mean(dim=0).float())
        return Learner(network, params.optimizer, loss, self.device, self.precision, params.seed, metrics, outputs)

    def batches(self, position: int, activations: Mapping[Any, Path]) -> tuple[Batches, Batches]:
        """Training and validation batches, the same in every stage."""
        return self._batches("train"), self._batches("valid")

    def encoded(self, split: str) -> tuple[Encoded, np.ndarray]:
        """All rows of a split, and their targets as `TableEncoder.targets` gives them."""
        encoded, targets = read_encoded(self._encoded)
        return encoded.rows(self.rows[split]), targets[self.rows[split]]

    def _batches(self, split: str) -> TableBatches:
        return TableBatches(self._encoded, self.rows[split], self.device, self.params.optimizer.batch_size)


def network_of(params: TrainTables, encoder: TableEncoder) -> Network:
    """The network that fits an encoder's columns, with new weights."""
    model = params.model
    sizes = [
        (categories, model.embedding_sizes.get(name, embedding_width(categories, model.embedding_rule)))
        for name, categories in encoder.sizes()
    ]
    is_regression = encoder.task == "regression"
    y_range = encoder.target_range() if is_regression and model.y_range else None
    outputs = len(encoder.target_names) if is_regression else len(encoder.classes)
    return build_table_network(sizes, len(encoder.continuous), outputs, y_range, model, params.seed)
