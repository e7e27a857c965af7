"""When and under which name a run's checkpoints are kept."""

import time
from pathlib import Path

from safetensors import SafetensorError

from unfreeze.models.training.checkpoints import save_checkpoint
from unfreeze.models.training.learner import Learner
from unfreeze.tasks import tracking
from unfreeze.tasks.machine.notices import log_notice
from unfreeze.tasks.tracking.operations import SLOTS
from unfreeze.tasks.tracking.stored_checkpoints import drop_checkpoints
from unfreeze.tasks.tracking.training_run import Run

SECONDS_BETWEEN_CHECKPOINTS = 90
"""An epoch that takes longer is saved in its middle as well: metrics reach MLflow with checkpoints."""


class CheckpointWriter:
    """Saves a learner's state into its MLflow run, from where it can be resumed on any machine.

    Parameters
    ----------
    run_id
        The MLflow run.
    learner
        Saved as it is at each call.
    log
        Metrics that lead up to a checkpoint, kept with it.
    """

    def __init__(self, run_id: str, learner: Learner, log: tracking.MetricLog) -> None:
        self.run_id, self.learner, self._log, self._saved = run_id, learner, log, time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether the last checkpoint is old."""
        return time.monotonic() - self._saved > SECONDS_BETWEEN_CHECKPOINTS

    def save(self, name: str | None = None) -> None:
        """Save under `name` for good, or without one in the place of the checkpoint before the last.

        A full disk does not end the training; a line says that the checkpoint is missing.
        """
        self._saved = time.monotonic()

        def write(path: Path) -> None:
            save_checkpoint(self.learner, path)

        try:
            tracking.save_checkpoint(self.run_id, write, name, self._log)
        except (OSError, SafetensorError) as error:
            log_notice(f"warning: the checkpoint cannot be written ({error}); the training continues without it")


def drop_resumption(run: Run) -> None:
    """Remove what a finished run would be resumed from; checkpoints of cycles stay if the spec asks for them.

    Not while something of the run waits for MLflow: `unfreeze clean` does it later.
    """
    if not tracking.wait_until_delivered(run.id):
        return
    names = tracking.artifacts(run.id, tracking.CHECKPOINTS)
    if run.params.tracking.cycle_checkpoints:
        names = [name for name in names if Path(name).name in SLOTS]
    drop_checkpoints(run.id, names)
