"""Which of a run's checkpoints a training continues from: the latest, or the one before if that one is damaged.

Once a run is finished nothing continues from them, and they are removed.
"""

from collections.abc import Sequence
from typing import NamedTuple

from unfreeze.models.training.checkpoints import Checkpoint, DamagedCheckpointError, load_checkpoint
from unfreeze.tasks.prefect_run.notices import log_info
from unfreeze.tasks.tracking.files import artifacts, fetch
from unfreeze.tasks.tracking.operations import CHECKPOINTS, LATEST_CHECKPOINT, remove_checkpoints
from unfreeze.tasks.tracking.server import client, experiments, get_run


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


def drop_checkpoints(run_id: str, names: Sequence[str]) -> None:
    """Remove checkpoints, by their artifacts' names, of a run that is finished; it does not fail if MLflow is away."""
    if not names:
        return
    try:
        remove_checkpoints(run_id, names)
    except Exception as error:
        log_info(f"checkpoints of run {run_id} could not be removed ({error}); `unfreeze clean` removes them")


class StoredCheckpoints(NamedTuple):
    """A run's checkpoints: their artifacts' names, their bytes, and whether nothing can continue from them."""

    run_id: str
    names: list[str]
    size: int
    is_over: bool


def stored_checkpoints() -> list[StoredCheckpoints]:
    """Of every run that can be resumed, or could be until it was finished; none that a spec asks to keep."""
    found, mlflow_client = [], client()
    tagged = f"tags.`{LATEST_CHECKPOINT}` LIKE '{CHECKPOINTS}/%'"
    for run in mlflow_client.search_runs(list(experiments().values()), tagged, max_results=10_000):
        files = mlflow_client.list_artifacts(run.info.run_id, CHECKPOINTS)
        if run.data.params.get("tracking.cycle_checkpoints") == "True":
            files = [file for file in files if "-cycle-" not in file.path]
        # A trial is finished and keeps its weights, in case it is the best.
        is_over = run.info.status == "FINISHED" and run.data.tags.get("unfreeze.kind", "").startswith("train-")
        size = sum(file.file_size or 0 for file in files)
        found.append(StoredCheckpoints(run.info.run_id, [file.path for file in files], size, is_over))
    return found


def _loaded(run_id: str, name: str) -> tuple[Checkpoint | None, str]:
    path = fetch(run_id, name)
    if path is None:
        return None, f"checkpoint {name} of run {run_id} is missing"
    try:
        return load_checkpoint(path), ""
    except DamagedCheckpointError as error:
        return None, f"checkpoint {name} of run {run_id} is damaged: {error}"
