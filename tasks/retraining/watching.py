"""Scheduling of retrainings: one per model at a time, and one when a source has new data."""

import hashlib
from datetime import UTC, datetime

from prefect import task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, FlowFilter, FlowRunFilter
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.context import FlowRunContext
from prefect.events import Event, Resource
from prefect.variables import Variable

from unfreeze.models.recipe.modality import modality_of
from unfreeze.models.settings import Training
from unfreeze.models.settings.retrain import Retrain, Watch
from unfreeze.tasks.machine.notices import log_info, log_notice
from unfreeze.tasks.machine.page import artifact_key
from unfreeze.tasks.retraining.training import is_new, name_of, training_like
from unfreeze.tasks.steps.prepare import prepare_handle
from unfreeze.tasks.steps.workspace import FlowWorkspace
from unfreeze.tasks.tracking import registry

NEW_DATA, RESOURCE = "unfreeze.new-data", "unfreeze.model"
"""Event about a model with new data, and its kind of resource; see `tasks/service/automations.yaml`."""


class NotNow(Exception):
    """Skip this run (not an error)."""


def require_turn(model: str) -> None:
    """End this flow run if an earlier one of its flow, for the same model, has not ended.

    Prefect's own concurrency limits count a dead process until the server learns of its death, which is never if the
    server died with it; here the next command ends flow runs of dead processes.

    Raises
    ------
    NotNow
        If there is such a flow run.
    """
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or context.flow is None:
        return
    own, states = context.flow_run.id, [StateType.RUNNING, StateType.PAUSED, StateType.CANCELLING]
    with get_client(sync_client=True) as client:
        begun = _since(client.read_flow_run(own))
        others = client.read_flow_runs(
            flow_filter=FlowFilter.model_validate({"name": {"any_": [context.flow.name]}}),
            flow_run_filter=FlowRunFilter.model_validate({"state": {"type": {"any_": states}}}),
        )
    for other in others:
        # Of two that began simultaneously one continues.
        if (_since(other), str(other.id)) < (begun, str(own)) and _model_of(other) == model:
            raise NotNow(f"another retraining of {model} is under way: flow run {other.name}, {other.id}")


def leave_to_later_run() -> None:
    """End a scheduled run if a later one is also due: of several missed runs, only the last works.

    Raises
    ------
    NotNow
        If there is such a later run.
    """
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    if run is None or run.deployment_id is None or not run.auto_scheduled or run.expected_start_time is None:
        return
    past = {"after_": run.expected_start_time, "before_": datetime.now(UTC)}
    due = {"state": {"type": {"any_": [StateType.SCHEDULED]}}, "expected_start_time": past}
    with get_client(sync_client=True) as client:
        later = client.read_flow_runs(
            flow_run_filter=FlowRunFilter.model_validate(due),
            deployment_filter=DeploymentFilter.model_validate({"id": {"any_": [run.deployment_id]}}),
        )
    times = [each.expected_start_time for each in later if each.parameters == run.parameters]
    if any(time is not None and time > run.expected_start_time for time in times):
        raise NotNow("a later run of the same schedule is due as well; the last of them does the work")


def watched_models(params: Watch) -> list[str]:
    """Names of the models to watch, as given."""
    return params.models or registry.own_champions()


@task(name="look-at-source", task_run_name="look at the source of {model}")
def look_at_source(model: str) -> str | None:
    """Check whether the model's source has data that neither the champion nor the latest retraining has seen.

    Files are read only if their names, sizes or times changed since the last remembered look.

    Returns
    -------
    str or None
        The look, to `remember` once the new data are announced; None if nothing is new.
    """
    champion = registry.version_of(model, registry.CHAMPION)
    training = training_like(champion, Retrain(model=model, warm_start="fresh"))
    look = _look(training)
    if Variable.get(_variable(model)) == look:
        log_info(f"{model}: nothing changed since the last look")
        return None
    if is_new(prepare_handle(training), champion):
        log_info(f"{model}: new data")
        return look
    log_info(f"{model}: files changed, the data did not")
    remember(model, look)
    return None


def report_new_data(model: str) -> None:
    """Send the automation's event to the server before returning.

    Prefect's `emit_event` leaves the sending to a thread.
    """
    resource = Resource({"prefect.resource.id": f"{RESOURCE}.{model}"})
    event = Event(event=NEW_DATA, resource=resource, payload={"model": model})
    with get_client(sync_client=True) as client:
        client.request("POST", "/events", json=[event.model_dump(mode="json")]).raise_for_status()
    log_notice(f"{model}: new data")


def remember(model: str, look: str) -> None:
    """Remember a look, to read the files again only when they differ from it."""
    Variable.set(_variable(model), look, overwrite=True)


def _variable(model: str) -> str:
    return f"unfreeze_seen_{artifact_key(model).replace('-', '_')}"


def _look(training: Training) -> str:
    """Hash of the names, sizes and times of the source's files."""
    hashed = hashlib.blake2b(digest_size=16)
    for path in modality_of(training).look(training, FlowWorkspace()):
        status = path.stat() if path.exists() else None
        hashed.update(f"{path}\0{(status.st_size, status.st_mtime_ns) if status else ''}\0".encode())
    return hashed.hexdigest()


def _since(run: FlowRun) -> datetime:
    """Time at which a flow run entered its state, by the server's clock."""
    assert run.state is not None
    return run.state.timestamp


def _model_of(run: FlowRun) -> str | None:
    """The full name of the model that a flow run retrains; None if the model no longer exists."""
    try:
        return name_of(Retrain.model_validate(run.parameters.get("params") or {}))
    except ValueError:
        return None
