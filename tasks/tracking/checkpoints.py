"""Which of a run's checkpoints a training continues from: the latest, or the one before if that one is damaged."""

from unfreeze.models.training.checkpoints import Checkpoint, DamagedCheckpointError, load_checkpoint
from unfreeze.tasks.tracking.files import artifacts, fetch
from unfreeze.tasks.tracking.operations import CHECKPOINTS, LATEST_CHECKPOINT
from unfreeze.tasks.tracking.server import get_run


def usable_checkpoint(run_id: str) -> tuple[Checkpoint | None, list[str]]:
    """The run's latest checkpoint that can be used, and what is wrong with later ones.

    Returns
    -------
    tuple
        The checkpoint, None if there is none; and a line for each that is damaged or missing.
    """
    latest = get_run(run_id).data.tags.get(LATEST_CHECKPOINT)
    if latest is None:
        return None, []
    checkpoint, problem = _loaded(run_id, latest)
    if checkpoint is not None:
        return checkpoint, []
    problems, usable = [problem], list[tuple[int, int, str, Checkpoint]]()
    for name in artifacts(run_id, CHECKPOINTS):
        if name != latest:
            checkpoint, problem = _loaded(run_id, name)
            if checkpoint is None:
                problems.append(problem)
            else:
                usable.append((checkpoint.stage, checkpoint.position["step"], name, checkpoint))
    if not usable:
        return None, problems
    stage, step, name, checkpoint = max(usable, key=lambda each: each[:3])
    return checkpoint, [*problems, f"{name} is used instead, from stage {stage + 1} after step {step:,}"]


def _loaded(run_id: str, name: str) -> tuple[Checkpoint | None, str]:
    path = fetch(run_id, name)
    if path is None:
        return None, f"checkpoint {name} of run {run_id} is missing"
    try:
        return load_checkpoint(path), ""
    except DamagedCheckpointError as error:
        return None, f"checkpoint {name} of run {run_id} is damaged: {error}"
