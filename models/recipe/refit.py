"""Refit a network on training and validation rows after its validation."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from unfreeze.models.errors import choose
from unfreeze.models.recipe.training_data import TrainingData
from unfreeze.models.settings import Stage
from unfreeze.models.store.workspace import Workspace
from unfreeze.models.training.batches import Batches
from unfreeze.models.training.learner import Learner
from unfreeze.models.training.loop import train_epoch
from unfreeze.models.training.network import State
from unfreeze.models.training.schedules import SCHEDULES, steps_per_epoch

Results = Sequence[Mapping[str, Any]]
"""Result of every stage, see `unfreeze.models.recipe.run.Train`."""


def trained_again(data: TrainingData, results: Results, workspace: Workspace) -> Iterator[State]:
    """Repeat the training from the same initial weights without validation; yields the weights after every stage.

    Parameters
    ----------
    data
        With the validation rows among the training rows, see `TrainingData.with_all_rows`.
    results
        Provide each stage's lr, and the epochs up to the weights it kept.
    workspace
        Where precomputed activations are kept.
    """
    learner = data.learner()
    for position, (stage, result) in enumerate(zip(data.params.recipe, results, strict=True)):
        activations = data.precompute(learner, position, workspace)
        learner.prepare(stage, position, result["lr"] or 0.0)
        if stage.regression:
            learner.network.head.load_state_dict(data.regressed_head(activations))
        _train(learner, data.batches(position, "train", activations), stage, result["kept_epochs"])
        with learner.averaged():
            yield learner.state()


def trained_on(data: TrainingData, state: State, results: Results, share: float) -> State:
    """Train the weights for one more cycle of the last stage, on all rows.

    Parameters
    ----------
    data
        With the validation rows among the training rows.
    state
        Weights trained without the validation rows.
    results
        Of every stage.
    share
        Factor on the last stage's lr.
    """
    learner, position = data.learner(), len(results) - 1
    stage = data.params.recipe[position]
    learner.network.load_state_dict(state)
    learner.prepare(stage, position, share * (results[position]["lr"] or 0.0))
    _train(learner, data.batches(position, "train", {}), stage, stage.cycle_len)
    with learner.averaged():
        return learner.state()


def _train(learner: Learner, train: Batches, stage: Stage, epochs: int) -> None:
    per_epoch = steps_per_epoch(len(train), train.batch_size)
    schedule = choose(SCHEDULES, stage.schedule, "schedule")(stage.cycle_len * per_epoch, stage.cycle_mult)
    for epoch in range(epochs):
        for _ in train_epoch(learner, train, schedule, epoch * per_epoch):
            pass
        learner.progress.epoch += 1
