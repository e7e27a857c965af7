"""Runs that are part of one under way, such as a sweep's trials: they have a key before MLflow gives them an id."""

from collections.abc import Mapping
from typing import Any

from mlflow.entities import Param
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

from unfreeze.models.errors import UserError
from unfreeze.tasks.machine.environment import tracking_store
from unfreeze.tasks.tracking.server import client, experiments
from unfreeze.tasks.tracking.spool import CHILD

KEY, WHOLE = "unfreeze.key", "mlflow.parentRunId"
"""Tags of a run that is part of another: its key, and the id of the other."""
MAX_PARAMS = 100  # MLflow's limit for one call

_ids: dict[tuple[str, str], str] = {}
"""(store, key) -> id of the run, as far as this process has looked."""


def make_run(experiment: str, name: str, params: list[list[str]], tags: Mapping[str, str], began: int | None) -> str:
    """Create a running run in an experiment (by id) with params, pairs of name and text; returns its id."""
    mlflow_client = client()
    run = mlflow_client.create_run(experiment, start_time=began, run_name=name, tags=dict(tags))
    log_params(str(run.info.run_id), params)
    return str(run.info.run_id)


def log_params(run_id: str, params: list[list[str]]) -> None:
    """Log params, pairs of name and text; those that the run has may be logged again as they are."""
    for start in range(0, len(params), MAX_PARAMS):
        client().log_batch(run_id, params=[Param(*each) for each in params[start : start + MAX_PARAMS]])


def make_child(run_id: str, body: Mapping[str, Any]) -> None:
    """Create the run of a key, unless it is there: the tag with the key comes into being with the run."""
    known = find_child(body[CHILD])
    if known is not None:
        log_params(known, body["params"])
        return
    tags = {**body["tags"], KEY: body[CHILD], WHOLE: run_id}
    made = make_run(body["experiment"], body["name"], body["params"], tags, body["time"])
    _ids[tracking_store(), body[CHILD]] = made


def drop_doubles(key: str, run_id: str) -> None:
    """Remove runs of a key but for the one that is used: a request that hung may have made another one later."""
    mlflow_client = client()
    for run in mlflow_client.search_runs(list(experiments().values()), f"tags.`{KEY}` = '{key}'"):
        if run.info.run_id != run_id:
            mlflow_client.delete_run(run.info.run_id)


def child_id(key: str) -> str:
    """Id of the run with that key.

    Raises
    ------
    MlflowException
        If there is none (``RESOURCE_DOES_NOT_EXIST``), or MLflow does not answer.
    """
    found = find_child(key)
    if found is None:
        raise MlflowException(f"MLflow has no run with the key {key}", RESOURCE_DOES_NOT_EXIST)
    return found


def require_child(key: str) -> str:
    """As `child_id`; `UserError` if there is none."""
    found = find_child(key)
    if found is None:
        raise UserError(f"MLflow does not have run {key} yet; `unfreeze sync` delivers what waits for it")
    return found


def find_child(key: str) -> str | None:
    """Id of the run with that key; None if MLflow has none."""
    known = _ids.get((tracking_store(), key))
    if known is None:
        runs = client().search_runs(list(experiments().values()), f"tags.`{KEY}` = '{key}'", max_results=1)
        if not runs:
            return None
        known = _ids[tracking_store(), key] = str(runs[0].info.run_id)
    return known
