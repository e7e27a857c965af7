"""When and under which name a run's checkpoints are kept."""

import tempfile
from pathlib import Path

from unfreeze.models.training.checkpoints import save_checkpoint
from unfreeze.models.training.learner import Learner
from unfreeze.tasks import tracking
from unfreeze.tasks.tracking.checkpoints import drop_checkpoints
from unfreeze.tasks.tracking.training_run import Run

SLOTS = ("last-a.safetensors", "last-b.safetensors")
"""Checkpoints between cycle ends take turns, so that the one the run points at is never overwritten."""


class CheckpointWriter:
    """Saves a learner's state into its MLflow run, from where it can be resumed on any machine.

    Parameters
    ----------
    run_id
        The MLflow run.
    learner
        Saved as it is at each call.
    """

    def __init__(self, run_id: str, learner: Learner) -> None:
        self.run_id, self.learner = run_id, learner
        current = tracking.tags_of(run_id).get("unfreeze.checkpoint", "")
        self._turn = 1 if current.endswith(SLOTS[0]) else 0

    def save(self, name: str | None = None) -> None:
        """Save under `name` for good, or without one in the place of the checkpoint before the last."""
        if name is None:
            name, self._turn = SLOTS[self._turn], 1 - self._turn
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            save_checkpoint(self.learner, path)
            tracking.save_checkpoint(self.run_id, path)


def drop_resumption(run: Run) -> None:
    """Remove what a finished run would be resumed from; checkpoints of cycles stay if the spec asks for them."""
    names = tracking.artifacts(run.id, tracking.CHECKPOINTS)
    if run.params.tracking.cycle_checkpoints:
        names = [name for name in names if Path(name).name in SLOTS]
    drop_checkpoints(run.id, names)
