"""What is known of a run by its key or MLflow's id, and its tags and input data.

Logging to a run with a folder here commits to that folder, which is published; logging to any other run goes to MLflow
at once.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mlflow.entities import Metric, RunTag

from unfreeze.tasks.tracking.folder import RunFolder, folder_of
from unfreeze.tasks.tracking.publisher import commit
from unfreeze.tasks.tracking.server import client, get_run

FINGERPRINT = "data.fingerprint"
"""Tag: hash of the images with their labels, or of the tables, independent of the split."""


def folder_here(run_id: str) -> RunFolder:
    """The folder of a run that must have one, such as a run under way."""
    folder = folder_of(run_id)
    assert folder is not None, run_id
    return folder


def state_of_run(run_id: str) -> str:
    """``RUNNING``, ``FINISHED``, ``FAILED`` or ``KILLED``."""
    folder = folder_of(run_id)
    return str(get_run(run_id).info.status) if folder is None else folder.state


def tags_of(run_id: str) -> dict[str, str]:
    """Tags of a run."""
    folder = folder_of(run_id)
    return dict(get_run(run_id).data.tags if folder is None else folder.tags)


def metrics_of(run_id: str) -> dict[str, tuple[int, float]]:
    """Metric -> its latest step and value."""
    folder = folder_of(run_id)
    if folder is not None:
        return dict(folder.known)
    return {each.key: (int(each.step), float(each.value)) for each in get_run(run_id).data._metric_objs}


def ids_of(run_id: str) -> dict[str, str | None]:
    """MLflow's ``run_id`` and ``experiment_id``; the key and None before MLflow has the run."""
    folder = folder_of(run_id)
    if folder is None:
        info = get_run(run_id).info
        return {"run_id": str(info.run_id), "experiment_id": str(info.experiment_id)}
    return {"run_id": folder.shown_id, "experiment_id": folder.published().get("experiment")}


def history(run_id: str, metric: str) -> tuple[list[float], list[float]]:
    """Steps and values of a metric, ordered by step; both empty if the run has no such metric."""
    run_id = get_run(run_id).info.run_id
    logged = sorted((each.step, each.timestamp, each.value) for each in client().get_metric_history(run_id, metric))
    return [float(step) for step, _, _ in logged], [float(value) for _, _, value in logged]


def splits_of(run_id: str) -> dict[str, int]:
    """Numbers of ``train``, ``valid`` and ``test`` rows of the run's data set; empty before it is known."""
    inputs = get_run(run_id).inputs.dataset_inputs
    splits: dict[str, int] = json.loads(inputs[-1].dataset.profile or "{}") if inputs else {}
    return splits


def log_tags(run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags of a run."""
    if (folder := folder_of(run_id)) is not None:
        commit(folder, tags=dict(tags))
    else:
        client().log_batch(get_run(run_id).info.run_id, tags=[RunTag(*each) for each in tags.items()])


def log_rows(run_id: str, rows: Sequence[Sequence[Any]]) -> None:
    """Log metrics, each a name, value, time in milliseconds and step."""
    if not rows:
        return
    if (folder := folder_of(run_id)) is not None:
        commit(folder, rows=rows)
    else:
        client().log_batch(get_run(run_id).info.run_id, metrics=[Metric(*row) for row in rows])


def log_data_set(run_id: str, name: str, digest: str, source: str, profile: Mapping[str, Any]) -> None:
    """Log the data set as the run's input; `digest` covers images, labels and split."""
    described = {"source": json.dumps({"uri": source}), "profile": json.dumps(dict(profile))}
    commit(folder_here(run_id), data={"name": name, "digest": digest[:8], "source_type": "local", **described})
