"""The model of a table that is kept, fitted anew on training and validation rows."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from unfreeze.models.budget import steps_per_epoch
from unfreeze.models.errors import choose
from unfreeze.models.tables.trees import Trees
from unfreeze.models.training.loop import train_epoch
from unfreeze.models.training.network import State
from unfreeze.models.training.schedules import SCHEDULES
from unfreeze.models.training_data import Candidate

if TYPE_CHECKING:
    from unfreeze.models.tables.data import TableData


def refit(data: "TableData", candidate: Candidate, results: Sequence[Mapping[str, Any]]) -> Candidate:
    """The candidate with trees and network fitted on training and validation rows.

    The trees are fitted as before. The network takes the steps that it took until its kept weights, epoch by epoch,
    from the same initial weights. The encoder stays: a category of validation rows alone is still unseen.

    Parameters
    ----------
    results
        Of every stage, see `unfreeze.models.recipe.Train`.
    """
    rows = np.union1d(data.rows["train"], data.rows["valid"])
    parts = dict(candidate.parts)
    if "trees" in parts:
        encoded, targets = data.encoded_rows(rows)
        parts["trees"] = Trees.fit(data.encoder, encoded, targets, data.params.seed, settings=data.params.boosting)
    states = [_trained(data, rows, results)] if candidate.states else []
    return replace(candidate, states=states, parts=parts, judged=candidate)


def _trained(data: "TableData", rows: np.ndarray, results: Sequence[Mapping[str, Any]]) -> State:
    """Weights of a network that is trained on rows (n,) int64 for the epochs and with the lrs of the results."""
    learner, train = data.learner(), data.batches_of(rows)
    per_epoch = steps_per_epoch(len(train), train.batch_size)
    for position, (stage, result) in enumerate(zip(data.params.recipe, results, strict=True)):
        learner.prepare(stage, position, result["lr"])
        schedule = choose(SCHEDULES, stage.schedule, "schedule")(stage.cycle_len * per_epoch, stage.cycle_mult)
        for epoch in range(result["kept_epochs"]):
            for _ in train_epoch(learner, train, schedule, epoch * per_epoch):
                pass
            learner.progress.epoch += 1
    with learner.averaged():
        return learner.state()
