"""The sensor: which models' sources have data that no training has seen."""

import hashlib

from prefect import task
from prefect.client.orchestration import get_client
from prefect.events import Event, Resource
from prefect.variables import Variable

from unfreeze.models.recipe.modality import modality_of
from unfreeze.models.settings import Training
from unfreeze.models.settings.retrain import Retrain, Watch
from unfreeze.tasks.machine.notices import log_info, log_notice
from unfreeze.tasks.machine.page import artifact_key
from unfreeze.tasks.retraining.training import is_new, training_like
from unfreeze.tasks.service.automations import NEW_DATA, RESOURCE
from unfreeze.tasks.steps.prepare import prepare_handle
from unfreeze.tasks.steps.workspace import FlowWorkspace
from unfreeze.tasks.tracking import registry


def watched_models(params: Watch) -> list[str]:
    """The models to look after, as they were named."""
    return params.models or registry.own_champions()


@task(name="look-at-source", task_run_name="look at the source of {model}")
def look_at_source(model: str) -> str | None:
    """Look whether the model's source has data that neither the champion nor the latest retraining has seen.

    Files are read only if their names, sizes or times changed since the last look that was remembered.

    Returns
    -------
    str or None
        What `remember` takes, once the new data were announced; None where nothing is new.
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
    """Record the event that the automation waits for; it is on the server when this returns.

    Not by Prefect's `emit_event`, which leaves the sending to a thread.
    """
    resource = Resource({"prefect.resource.id": f"{RESOURCE}.{model}"})
    event = Event(event=NEW_DATA, resource=resource, payload={"model": model})
    with get_client(sync_client=True) as client:
        client.request("POST", "/events", json=[event.model_dump(mode="json")]).raise_for_status()
    log_notice(f"{model}: new data")


def remember(model: str, look: str) -> None:
    """Leave the files as they were at this look alone from here on."""
    Variable.set(_variable(model), look, overwrite=True)


def _variable(model: str) -> str:
    return f"unfreeze_seen_{artifact_key(model).replace('-', '_')}"


def _look(training: Training) -> str:
    """Hash of the names, sizes and times of the source's files."""
    paths = modality_of(training).look(training, FlowWorkspace())
    hashed = hashlib.blake2b(digest_size=16)
    for path in paths:
        status = path.stat() if path.exists() else None
        hashed.update(f"{path}\0{(status.st_size, status.st_mtime_ns) if status else ''}\0".encode())
    return hashed.hexdigest()
