"""What a run has logged so far, read back."""

import json
from typing import Any

from unfreeze.tasks.tracking.server import client, get_run


def history(run_id: str, metric: str) -> tuple[list[float], list[float]]:
    """Steps and values of a metric, in the order of the steps; both empty if the run has none of that name."""
    logged = sorted((each.step, each.timestamp, each.value) for each in client().get_metric_history(run_id, metric))
    return [float(step) for step, _, _ in logged], [float(value) for _, _, value in logged]


def splits_of(run_id: str) -> dict[str, int]:
    """Rows of ``train``, ``valid`` and ``test`` of the run's data set; empty before it is known."""
    inputs = get_run(run_id).inputs.dataset_inputs
    splits: dict[str, int] = json.loads(inputs[-1].dataset.profile or "{}") if inputs else {}
    return splits


def version_of_run(run_id: str) -> Any | None:
    """The latest registered version that the run made, as MLflow has it; None if there is none."""
    versions = client().search_model_versions(f"run_id = '{run_id}'")
    latest = max(versions, key=lambda each: int(each.version), default=None)
    # The search leaves aliases out.
    return None if latest is None else client().get_model_version(latest.name, latest.version)


def describe_version(name: str, number: str, text: str) -> None:
    """Replace the description of a registered version."""
    client().update_model_version(name, number, text)
