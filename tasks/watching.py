"""The sensor: which models' sources have data that no training has seen."""

import hashlib
from pathlib import Path

from prefect import task
from prefect.events import emit_event
from prefect.variables import Variable

from models.images.sources import resolve_source
from models.retrain_spec import Retrain, Watch
from models.specs import TrainImages
from models.tables.reading import parse_join
from tasks import registry
from tasks.deployments import NEW_DATA, RESOURCE
from tasks.environment import home
from tasks.progress import announce, say
from tasks.report import artifact_key
from tasks.retraining import Training, is_new, read_data, training_like


def watched_models(params: Watch) -> list[str]:
    """Names of the models to look after, in full."""
    if params.models:
        return [registry.full_name(name) for name in params.models]
    return [str(row["model"]) for row in registry.champions() if row["champion"] is not None]


@task(name="look-at-source", task_run_name="look at the source of {model}")
def look_at_source(model: str) -> bool:
    """Whether the model's source has data that neither the champion nor the latest retraining has seen.

    Files are read only if their names, sizes or times changed since the last look.
    """
    champion = registry.version_of(model, registry.CHAMPION)
    try:
        training = training_like(champion, Retrain(model=model, warm_start="fresh"))
        look = _look(training)
    except Exception as error:  # a source that is away, or a model of another program, must not stop the others
        announce(f"{model}: its source cannot be looked at: {error}")
        return False
    name = f"unfreeze_seen_{artifact_key(model).replace('-', '_')}"
    if Variable.get(name) == look:
        say(f"{model}: nothing changed since the last look")
        return False
    found = is_new(read_data(training)["fingerprint"], champion)
    Variable.set(name, look, overwrite=True)
    say(f"{model}: {'new data' if found else 'files changed, the data did not'}")
    return found


def announce_new_data(model: str) -> None:
    """Emit the event that the automation waits for."""
    emit_event(event=NEW_DATA, resource={"prefect.resource.id": f"{RESOURCE}.{model}"}, payload={"model": model})
    announce(f"{model}: new data")


def _look(training: Training) -> str:
    """Hash of the names, sizes and times of the source's files."""
    if isinstance(training, TrainImages):
        paths = [file.path for file in resolve_source(training.data, home() / "datasets").files]
    else:
        names = [training.data.source, *(parse_join(text)[0] for text in training.data.join)]
        paths = [Path(name).expanduser() for name in names]
    hashed = hashlib.blake2b(digest_size=16)
    for path in paths:
        status = path.stat() if path.exists() else None
        hashed.update(f"{path}\0{(status.st_size, status.st_mtime_ns) if status else ''}\0".encode())
    return hashed.hexdigest()
