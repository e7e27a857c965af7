"""A run's life: started, fetched, held by one process, resumed, closed; its tags, metrics and input data.

A run is identified by its key or MLflow's id. Logging to a run with a folder here commits to that folder, which is
published; logging to any other run goes to MLflow at once.
"""

import json
import re
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from types import MappingProxyType
from typing import Any, Literal

from mlflow.entities import RunTag

from unfreeze.models.errors import UserError
from unfreeze.tasks.machine.notices import log_notice
from unfreeze.tasks.machine.processes import this_process
from unfreeze.tasks.machine.servers import NoAnswerError
from unfreeze.tasks.tracking.elsewhere import fetched, unless_outdated
from unfreeze.tasks.tracking.folder import (
    CHECKPOINTS,
    PARTS,
    RunFolder,
    end_if_gone,
    folder_of,
    let_go,
    new_folder,
    run_folders,
    take,
)
from unfreeze.tasks.tracking.publish import drop_checkpoints, pending
from unfreeze.tasks.tracking.publisher import (
    Publisher,
    at_the_end,
    finish,
    publish_now,
    remove_if_done,
    wait_until_published,
)
from unfreeze.tasks.tracking.server import client, experiment_id, experiments, get_run, require_answer

FINGERPRINT = "data.fingerprint"
"""Tag: hash of the images with their labels, or of the tables, independent of the split."""
TRAINED_UNTIL = "data.trained_until"
"""Tag of a run on a table with dates: the last date among the training rows."""
RESUME = "unfreeze.resume"
"""Tag of a run other than a training: the command that continues it."""

_NAME = re.compile(r"\w{1,100}", re.ASCII)

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]
"""Final state of a run."""


# --- life


def start_run(
    experiment: str, name: str, params: Mapping[str, Any], tags: Mapping[str, str], shared: bool = False
) -> str:
    """Create the folder of a run in an experiment (by name), for `held_run` to hold; returns its key.

    Parameters
    ----------
    experiment, name
        Of the run.
    params
        The complete spec.
    tags
        Initial tags.
    shared
        Whether several processes share it, as in a sweep.
    """
    for folder in run_folders():
        end_if_gone(folder)
    about = {"experiment": experiment, "name": name, "params": _texts(params), "shared": shared}
    return new_folder(about, tags).key


@contextmanager
def held_run(run_id: str, is_new: bool = False, own_tags: Mapping[str, str] = MappingProxyType({})) -> Iterator[str]:
    """Hold a run while the block runs, fetching it from MLflow if it has no folder here; yields its key.

    Parameters
    ----------
    run_id
        Key or MLflow's id.
    is_new
        Whether `start_run` has just made it.
    own_tags
        Tags that it will get; those of a Prefect flow run distinguish its earlier attempts from other processes.

    Raises
    ------
    UserError
        If the run is unknown, or another process has it, here or elsewhere.
    """
    folder = folder_of(run_id)
    if folder is not None and not is_new:
        folder = unless_outdated(folder)
    if folder is None:
        folder = fetched(run_id, own_tags)
    if not is_new:
        take(folder)

    def end() -> None:
        let_go(folder)
        remove_if_done(folder)

    try:
        yield folder.key
    finally:
        at_the_end(end)


def reopen_run(run_id: str, tags: Mapping[str, str], finished: bool = False) -> None:
    """Set a held run that was stopped, or with `finished` any held run, to running in this process.

    Raises
    ------
    UserError
        If it is finished, without `finished`.
    """
    folder = _folder(run_id)
    if folder.state == "FINISHED" and not finished:
        raise UserError(f"run {folder.shown_id} is finished; there is nothing to resume")
    folder.commit(tags={**tags, **this_process()}, state="RUNNING")


def _folder(run_id: str) -> RunFolder:
    folder = folder_of(run_id)
    assert folder is not None, run_id
    return folder


@contextmanager
def part_of_run(run_id: str, name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> Iterator[str]:
    """Create a child run in this process, such as a sweep's trial; yields its key."""
    whole = _folder(run_id)
    about = {"experiment": whole.about["experiment"], "name": name, "params": _texts(params)}
    part = new_folder(about, tags, whole.path / PARTS / uuid.uuid4().hex)
    part.keeps_unwritten = True
    try:
        yield part.key
    finally:
        let_go(part)


def close_run(run_id: str, status: RunStatus) -> None:
    """End a run of this process, unless another process has resumed it.

    A finished training loses its checkpoints, except those that its spec keeps.
    """
    folder = _folder(run_id)
    if folder.refresh().owner != tuple(this_process().values()):
        return
    ended: dict[str, Any] = {"state": status, "time": int(time.time() * 1000)}
    if status == "FINISHED" and folder.tags.get("unfreeze.kind", "").startswith("train-"):
        keeps = dict(folder.about["params"]).get("tracking.cycle_checkpoints") == "True"
        ended["dropped"] = {"but": [each for each in folder.checkpoints if keeps and not each.startswith("last-")]}
    folder.commit(**ended)
    folder.remove_checkpoints()
    publish_now(folder)


@contextmanager
def publishing(run_id: str, resume_command: str) -> Iterator[None]:
    """Publish a held run while the block runs, and end it with the block; MLflow may be unavailable throughout.

    It ends FINISHED, FAILED after an error, KILLED after a signal, Ctrl-C or a cancellation; `resume_command` is added
    as a note to the exception that stopped the block.

    Raises
    ------
    UserError
        If waiting for MLflow would not help: the experiment was deleted, the store is damaged or its disk is full.
    """
    publisher = Publisher(_folder(run_id))
    status: RunStatus = "FAILED"
    try:
        try:
            publisher.begin()
            yield
        except Exception:
            close_run(run_id, status)
            raise
        except BaseException as stopped:
            status = "KILLED"
            close_run(run_id, status)
            stopped.add_note(f"continue with: {resume_command}")
            raise
        close_run(run_id, "FINISHED")
    except BaseException:
        with suppress(UserError):  # the exception that stopped it takes precedence
            at_the_end(partial(finish, publisher, status))
        raise
    at_the_end(partial(finish, publisher, "FINISHED"))


def drop_weights(run_id: str) -> None:
    """Remove a child run's checkpoints from its folder or else from MLflow."""
    folder = folder_of(run_id)
    if folder is not None:
        folder.commit(dropped={"but": []})
        folder.remove_checkpoints()
        publish_now(folder)
        return
    try:
        run_id = str(get_run(run_id).info.run_id)
        drop_checkpoints(run_id, [each.path for each in client().list_artifacts(run_id, CHECKPOINTS)])
    except Exception as error:
        log_notice(f"checkpoints of run {run_id} could not be removed ({error})")


# --- what is known of a run


def run_with_tag(experiment: str, name: str, value: str) -> str | None:
    """The experiment's latest run with this tag value, from its folder or else from MLflow; None if there is none.

    A run that only MLflow has is not found while MLflow does not answer.
    """
    own = [each for each in run_folders() if each.about["experiment"] == experiment and each.tags.get(name) == value]
    if own:
        return max(own, key=lambda each: int(each.about["time"])).key
    try:
        require_answer(0)
    except NoAnswerError:
        return None
    found = client().search_runs([experiment_id(experiment)], f"tags.`{name}` = '{value}'", max_results=1)
    return str(found[0].info.run_id) if found else None


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


def kind_of_run(run_id: str) -> str:
    """Kind of the run: ``train-images``, ``train-tables``, ``find-lr``, ``sweep`` or ``trial``."""
    return tags_of(run_id).get("unfreeze.kind", "")


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


def recent_runs(count: int) -> list[dict[str, Any]]:
    """The latest runs started by users, newest first.

    Returns
    -------
    list of dict
        ``run`` (its id), ``name``, ``kind``, ``state``, ``began``, ``waiting`` (unpublished changes) and ``continue``
        (a command); the last two are None if there is nothing to do.
    """
    folders = {each.shown_id: each for each in run_folders()}
    waiting = Counter({run_id: pending(each) for run_id, each in folders.items()})
    found = client().search_runs(
        list(experiments().values()),
        "tags.`unfreeze.kind` != 'trial'",
        order_by=["attributes.start_time DESC"],
        max_results=count,
    )
    rows = [
        (run.info.start_time, run.info.run_id, run.info.run_name, run.info.status, run.data.tags)
        for run in found
        if run.info.run_id not in folders
    ]
    rows += [
        (each.about["time"], run_id, each.about["name"], each.state, each.tags) for run_id, each in folders.items()
    ]
    return [
        {
            "run": run_id,
            "name": name,
            "kind": (kind := tags["unfreeze.kind"]),
            "state": state,
            "began": time.strftime("%Y-%m-%d %H:%M", time.localtime(began / 1000)),
            "waiting": waiting.get(run_id) or None,
            "continue": (tags.get(RESUME) or (f"unfreeze resume {run_id}" if kind.startswith("train-") else None))
            if state in ("KILLED", "FAILED")
            else None,
        }
        for began, run_id, name, state, tags in sorted(rows, key=lambda row: -row[0])[:count]
    ]


# --- what is logged


def _texts(params: Mapping[str, Any]) -> list[list[str]]:
    return [[key, "" if value is None else str(value)] for key, value in flatten(params).items()]


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name; lists of settings by position, other lists as JSON.

    Mappings keyed by user-chosen names, such as columns, are JSON too if MLflow would reject the names.
    """
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            value = {str(position): item for position, item in enumerate(value)}
        if isinstance(value, Mapping) and all(_NAME.fullmatch(each) for each in value):
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = json.dumps(value) if isinstance(value, list | Mapping) else value
    return flat


def log_tags(run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags of a run."""
    folder = folder_of(run_id)
    if folder is None:
        client().log_batch(get_run(run_id).info.run_id, tags=[RunTag(*each) for each in tags.items()])
        return
    folder.commit(tags=dict(tags))
    publish_now(folder)


def log_data_set(run_id: str, name: str, digest: str, source: str, profile: Mapping[str, Any]) -> None:
    """Log the data set as the run's input; `digest` covers images, labels and split."""
    described = {"source": json.dumps({"uri": source}), "profile": json.dumps(dict(profile))}
    folder = _folder(run_id)
    folder.commit(data={"name": name, "digest": digest[:8], "source_type": "local", **described})
    publish_now(folder)


def decide(run_id: str, about: Mapping[str, Any]) -> dict[str, str]:
    """Carry out a retraining's decision, see `registry.apply_decision`; empty if MLflow does not answer."""
    folder = _folder(run_id)
    folder.commit(decision={**about, "time": int(time.time())})
    publish_now(folder)
    wait_until_published(run_id)
    made: dict[str, str] = folder.published().get("decision", {})
    return made
