"""The MLflow server: client, experiments and page addresses."""

import json
import logging
import os
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import mlflow
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy import NullPool, create_engine

from unfreeze.models.errors import UserError
from unfreeze.models.settings.names import safe_name
from unfreeze.tasks.machine.environment import home, make_home, tracking_store
from unfreeze.tasks.machine.notices import in_run, log_notice
from unfreeze.tasks.machine.servers import SECONDS_TO_ANSWER, no_mlflow, require_mlflow
from unfreeze.tasks.machine.storage import storage_trouble, unreadable_database
from unfreeze.tasks.tracking.folder import folder_of

WORKFLOW = "workflowType=machine_learning"
"""Part of every address; without it MLflow's page first asks whether to train models or build agents."""
VIEW = "unfreeze"
"""Key of the shared view of an experiment's table of runs."""
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
"""Tag of an experiment that stores that view, the only way to preset the columns of MLflow's page (3.17)."""
NAME, CREATED, DURATION = "attributes.`Run Name`", "runDateAndNestInfo", "duration"
"""Columns that the page always shows."""
METRICS = ("valid/accuracy", "valid/f1", "valid/rmspe", "valid/loss", "baseline/accuracy")
COLUMN_WIDTHS = {
    NAME: 300,  # the page would cut names at 190
    CREATED: 140,
    **{f"metrics.`{name}`": 125 for name in METRICS},
    "attributes.`Dataset`": 220,
    "attributes.`Models`": 170,
    "tags.`unfreeze.kind`": 120,
    "tags.`unfreeze.decision`": 120,
    DURATION: 80,
}
"""Columns of the table of runs from the left -> widths in pixels; the first ones fit a laptop's window."""


# It also logs a traceback of every error that it raises, such as those of a full disk.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)

UNKNOWN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""MLflow's errors for an unknown id."""
SECONDS_TO_UNLOCK = 30.0
"""How long a command waits at its start for a locked local database."""


_answered: set[str] = set()
"""Addresses of servers that have answered this process, whose later outages are waited for."""


def client() -> MlflowClient:
    """A client of the tracking server in ``MLFLOW_TRACKING_URI``; a fresh SQLite store is set up once.

    Raises
    ------
    UserError
        If a server that has never answered this process does not answer; MLflow alone would retry for minutes.
    """
    uri = os.environ["MLFLOW_TRACKING_URI"]
    mlflow.set_tracking_uri(uri)
    if not uri.startswith("sqlite"):
        if uri not in _answered:
            require_answer()
        return MlflowClient(uri)
    make_home()
    # Processes that create the same SQLite store simultaneously fail, so they take turns.
    with FileLock(home() / "mlflow.lock"):
        return MlflowClient(uri)


def require_answer(seconds_to_unlock: float = SECONDS_TO_UNLOCK) -> None:
    """Raise `UserError` if MLflow does not answer, `NoAnswerError` if it may later.

    A server has 4 s. A local database, which another process may lock for longer, has half a minute.
    """
    require_mlflow()
    uri, began, told = os.environ["MLFLOW_TRACKING_URI"], time.monotonic(), False
    is_local = uri.startswith("sqlite")
    if is_local and (trouble := unreadable_database("mlflow.db")):
        raise UserError(trouble)  # MLflow itself would retry for minutes
    while True:
        try:
            if is_local:
                client().search_experiments(max_results=1)
            elif uri.startswith(("postgresql", "mysql")):
                _connect(uri)
            _answered.add(uri)
            return
        except Exception as error:  # from any library involved
            reason = reason_of(_root(error))
            if is_local and "locked" not in reason and (trouble := storage_trouble(error)):
                raise UserError(trouble) from error  # waiting does not help
        if time.monotonic() - began > (seconds_to_unlock if is_local else SECONDS_TO_ANSWER):
            raise no_mlflow(reason)
        if is_local and not told and seconds_to_unlock == SECONDS_TO_UNLOCK:
            log_notice(f"MLflow at {tracking_store()} does not answer ({reason}); trying for {SECONDS_TO_UNLOCK:.0f} s")
            told = True
        time.sleep(1)


def _connect(uri: str) -> None:
    """Connect to a database server once; MLflow alone would retry for minutes."""
    limits = ("connect_timeout", "read_timeout") if uri.startswith("mysql") else ("connect_timeout",)
    arguments = dict.fromkeys(limits, int(SECONDS_TO_ANSWER))
    create_engine(uri, connect_args=arguments, poolclass=NullPool).connect().close()


def _root(error: BaseException) -> BaseException:
    """The root cause of an error, which says more than the libraries in between."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return error


def reason_of(error: BaseException) -> str:
    """An error's message in one line."""
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."


def experiment_id(name: str) -> str:
    """Id of the experiment, created if missing; `UserError` if it was deleted."""
    mlflow_client = client()
    experiment = mlflow_client.get_experiment_by_name(name)
    if experiment is None:
        local = os.environ["MLFLOW_TRACKING_URI"].startswith("sqlite")
        location = (home() / "mlflow-artifacts" / safe_name(name)).as_uri() if local else None
        try:
            return str(mlflow_client.create_experiment(name, artifact_location=location, tags={VIEW_TAG: _view()}))
        except MlflowException:  # meanwhile created by another process
            experiment = mlflow_client.get_experiment_by_name(name)
            if experiment is None:
                raise
    if experiment.lifecycle_stage == "deleted":
        raise UserError(f"tracking.experiment: {name!r} was deleted in MLflow; restore it there or choose another name")
    return str(experiment.experiment_id)


def experiments() -> dict[str, str]:
    """Name -> id of every experiment that is not deleted."""
    return {each.name: str(each.experiment_id) for each in client().search_experiments(max_results=1000)}


def get_run(run_id: str) -> Any:
    """The MLflow run of a key or id; `UserError` if it is unknown or the server does not answer."""
    folder = folder_of(run_id)
    known = None if folder is None else folder.published().get("id")
    if folder is not None and known is None:
        raise UserError(f"MLflow does not have run {run_id} yet; `unfreeze sync` publishes it")
    mlflow_client = client()
    try:
        try:
            return mlflow_client.get_run(known or run_id)
        except MlflowException as error:
            if error.error_code not in UNKNOWN or (found := find_by_key(run_id)) is None:
                raise
            return mlflow_client.get_run(found)
    except MlflowException as error:
        if error.error_code not in UNKNOWN:
            raise UserError(f"MLflow at {tracking_store()} does not answer: {reason_of(error)}") from error
        raise UserError(
            f"run {run_id!r} is not in MLflow at {tracking_store()}; "
            "copy the id from the MLflow page or from the run's last lines"
        ) from error


def find_by_key(key: str, but: str = "") -> str | None:
    """MLflow's id of the run with this ``unfreeze.key``, ignoring the run `but`; None if there is no other."""
    if not key.isalnum():
        return None
    found = client().search_runs(list(experiments().values()), f"tags.`unfreeze.key` = '{key}'", max_results=2)
    return next((str(run.info.run_id) for run in found if run.info.run_id != but), None)


def page(run_id: str, experiment: str | None = None) -> str | None:
    """Address of the run's page; None for a store without a server. Requests a missing experiment id from MLflow.

    ``UNFREEZE_MLFLOW_PAGE`` is the server's address for browsers if it differs from the tracking URI.
    """
    uri = os.environ.get("UNFREEZE_MLFLOW_PAGE") or os.environ["MLFLOW_TRACKING_URI"]
    if not uri.startswith("http"):
        return None
    if (folder := folder_of(run_id)) is not None:
        shown = folder.published()
        if "id" not in shown:
            return None
        run_id, experiment = shown["id"], shown["experiment"]
    experiment = experiment or get_run(run_id).info.experiment_id
    return f"{uri.rstrip('/')}/#/experiments/{experiment}/runs/{run_id}?{WORKFLOW}"


def artifact_page(run_id: str, name: str) -> str:
    """Address of an artifact on MLflow's page; without a server only the part after the server's address."""
    server = (page(run_id) or "").partition("/#")[0]
    info = get_run(run_id).info
    return f"{server}/#/experiments/{info.experiment_id}/runs/{info.run_id}/artifacts/{name}?{WORKFLOW}"


def runs_page(server: str, experiment: str) -> str:
    """Address of an experiment's table of runs, with our columns; `experiment` is an id."""
    return f"{server.rstrip('/')}/#/experiments/{experiment}/runs?{WORKFLOW}&viewStateShareKey={VIEW}"


def experiments_page(server: str) -> str:
    """Address of the experiments, past the page about language models that the server opens with."""
    return f"{server.rstrip('/')}/#/experiments?{WORKFLOW}"


def models_page(server: str) -> str:
    """Address of the model registry."""
    return f"{server.rstrip('/')}/#/models?{WORKFLOW}"


def _view() -> str:
    """The value of `VIEW_TAG`; all other settings have defaults on the page."""
    selected = [column for column in COLUMN_WIDTHS if column not in (NAME, CREATED, DURATION)]
    columns = {"selectedColumns": selected, "columnOrder": list(COLUMN_WIDTHS), "columnWidths": COLUMN_WIDTHS}
    return json.dumps({**columns, "viewMaximized": True})


def local_file(run_id: str, name: str) -> Path | None:
    """The file of an artifact if artifacts are stored on this machine, else None."""
    place = urlsplit(get_run(run_id).info.artifact_uri)
    return Path(url2pathname(place.path)) / name if place.scheme in ("", "file") else None


def mlflow_command() -> str:
    """The command that shows the tracking store in a browser."""
    return f"mlflow server --host 127.0.0.1 --port 5000 --backend-store-uri {tracking_store()}"


def mlflow_link(run_id: str) -> str:
    """Markdown with a link to the run in MLflow, or without a server the command that starts one."""
    address, folder = page(run_id), folder_of(run_id)
    shown = run_id if folder is None else folder.shown_id
    command = f"Run `{shown}` in `{tracking_store()}`. To look at it:\n\n    {mlflow_command()}"
    return f"## MLflow\n\n{f'[Open the run in MLflow]({address})' if address else command}"


def show_mlflow_link(run_id: str) -> None:
    """Show a link to the run in MLflow on the Prefect page."""
    if not in_run():
        return
    from prefect import Task
    from prefect.artifacts import create_markdown_artifact

    from unfreeze.tasks.machine.page import show

    markdown = mlflow_link(run_id)

    def place() -> None:
        show(lambda: create_markdown_artifact(markdown, key="mlflow-run", description="The run in MLflow"))

    # In a task, because the flow run's own artifacts come first on its page, in any order; only the report should.
    link: Any = Task(place, name="link", task_run_name="link to MLflow")
    link()


def pages(run_id: str, experiment: str | None = None) -> dict[str, str]:
    """Pages of a run: addresses of known servers, else the commands that start them.

    Without `experiment`, its id is requested from MLflow.
    """
    from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL

    prefect = PREFECT_UI_URL.value() if PREFECT_API_URL.value() else None
    return {"MLflow": page(run_id, experiment) or mlflow_command(), "Prefect": prefect or "unfreeze up"}
