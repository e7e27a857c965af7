"""Which checkpoints runs have, and their removal: once a run is finished nothing continues from them."""

from collections.abc import Sequence
from typing import NamedTuple

from unfreeze.tasks.machine.notices import log_info
from unfreeze.tasks.tracking.operations import CHECKPOINTS, LATEST_CHECKPOINT, remove_checkpoints
from unfreeze.tasks.tracking.server import client, experiments


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
