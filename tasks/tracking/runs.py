"""A run's life: started or reopened, held by one process, given tags and data, closed.

A run belongs to its flow by id. Everything is logged through `MlflowClient` with that id, never through MLflow's active
run, which is one per thread and opens a new run when there is none.
"""

import json
import os
import re
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from filelock import Timeout

from unfreeze.models.errors import UserError
from unfreeze.tasks.machine.processes import is_gone, this_process
from unfreeze.tasks.tracking.children import make_run
from unfreeze.tasks.tracking.delivery import ALIVE
from unfreeze.tasks.tracking.files import log_spec
from unfreeze.tasks.tracking.operations import BEGIN
from unfreeze.tasks.tracking.server import client, experiment_id, get_run
from unfreeze.tasks.tracking.spool import lock_of
from unfreeze.tasks.tracking.syncing import close_stale_runs
from unfreeze.tasks.tracking.under_way import at_the_end, delivering_part, delivery_of, keep, tags_of

FINGERPRINT = "data.fingerprint"
"""Tag: hash of the images with their labels, or of the tables, whatever their split."""
TRAINED_UNTIL = "data.trained_until"
"""Tag of a run on a table with dates: the last date among the training rows."""
FLOW_RUN, PARENT = "prefect.flow_run_id", "prefect.parent_flow_run_id"
"""Tags: the Prefect flow run that trains the run, and the one that this is part of, such as a retraining."""
SILENT_SECONDS = 120
"""A run on another machine of which nothing was heard for this long is taken for dead."""
SECONDS_TO_DELIVER = 60
"""How long whoever resumes a run waits for one that is delivering what its dead process left."""

_NAME = re.compile(r"\w{1,100}", re.ASCII)

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]
"""How a run ended."""


def start_run(experiment: str, name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> str:
    """Start a run in an experiment (by name) and log the whole spec, also as params; returns the run's id."""
    number = experiment_id(experiment)
    close_stale_runs([number])
    run_id = create_run(number, name, params, tags)
    log_spec(run_id, params)
    return run_id


def create_run(experiment: str, name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> str:
    """Create a running run of this process in an experiment (by id) and log its params; returns the run's id."""
    return make_run(experiment, name, _texts(params), {**tags, **this_process()}, None)


@contextmanager
def part_of_run(
    run_id: str, experiment: str, name: str, params: Mapping[str, Any], tags: Mapping[str, str]
) -> Iterator[str]:
    """A run of this process that is part of one under way, such as a sweep's trial; MLflow is not waited for.

    Yields the key by which everything here knows it, as if it were the run's id; MLflow gives that as the spool is
    delivered, see `unfreeze.tasks.tracking.children`.
    """
    key, all_tags = uuid.uuid4().hex, {**tags, **this_process()}
    began = {"experiment": experiment, "name": name, "time": int(time.time() * 1000)}
    with delivering_part(run_id, key, all_tags):
        keep(key, (BEGIN, {**began, "params": _texts(params), "tags": all_tags}))
        yield key


def _texts(params: Mapping[str, Any]) -> list[list[str]]:
    return [[key, "" if value is None else str(value)] for key, value in flatten(params).items()]


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name; lists of settings by position, other lists as JSON.

    So are mappings by names that a person chose, such as those of columns, where MLflow would not take them.
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


@contextmanager
def held_run(run_id: str) -> Iterator[None]:
    """Hold the run: `UserError` if another process of this machine and data folder does."""
    lock, began = lock_of(run_id), time.monotonic()
    while True:
        try:
            lock.acquire(timeout=0.5)
            break
        except Timeout:
            tags = tags_of(run_id)
            # Another command delivers what a process that is gone left.
            if not is_gone(tags) or time.monotonic() - began > SECONDS_TO_DELIVER:
                raise _already_trained(run_id, tags) from None
    try:
        yield
    finally:
        at_the_end(lock.release)


def reopen_run(run_id: str, tags: Mapping[str, str], finished: bool = False) -> None:
    """Set a stopped run, or with `finished` any run, to running again, in this process.

    With `finished` the run may have several processes at a time, as a sweep has.

    Raises
    ------
    UserError
        If there is no such run, it is finished and may not be, or its process lives.
    """
    run = get_run(run_id)
    if run.info.status == "FINISHED" and not finished:
        raise UserError(f"run {run_id} is finished; there is nothing to resume")
    if run.info.status == "RUNNING" and not finished:
        _refuse_live_run(run, tags)
    close_stale_runs([run.info.experiment_id])
    client().update_run(run_id, status="RUNNING")
    log_tags(run_id, {**tags, **this_process(), ALIVE: str(int(time.time() * 1000))})


def _refuse_live_run(run: Any, own_tags: Mapping[str, str]) -> None:
    """Refuse a run whose process lives: on this machine by its process id, elsewhere by its last sign of life.

    An earlier attempt of the same Prefect flow run on another machine has ended, however late its last sign: Prefect
    starts the next only then.
    """
    tags, run_id = run.data.tags, run.info.run_id
    process, host = _process_id(tags), tags.get("unfreeze.host", "another machine")
    if host == socket.gethostname():
        if process != str(os.getpid()) and not is_gone(tags):
            raise _already_trained(run_id, tags)
        return
    if any(name in own_tags and tags.get(name) == own_tags[name] for name in (FLOW_RUN, PARENT)):
        return
    silent = time.time() - _last_sign(run) / 1000
    if silent < SILENT_SECONDS:
        raise UserError(
            f"run {run_id} is being trained by process {process} on {host}, which was heard of {silent:.0f} s ago; "
            f"stop it there. A run of which nothing is heard for {SILENT_SECONDS} s is taken for dead"
        )


def _already_trained(run_id: str, tags: Mapping[str, str]) -> UserError:
    process = _process_id(tags)
    return UserError(f"run {run_id} is being trained by process {process} of this machine; stop that one first")


def _process_id(tags: Mapping[str, str]) -> str:
    return tags.get("unfreeze.process", "").partition(":")[0]


def _last_sign(run: Any) -> int:
    """When the run's process was last heard of: milliseconds since 1970."""
    return max(int(run.info.start_time), int(run.data.tags.get(ALIVE, 0)))


def close_run(run_id: str, status: RunStatus) -> None:
    """End a run of this process."""
    keep(run_id, ("end", {"status": status, "time": int(time.time() * 1000), **this_process()}))


@contextmanager
def closing_run(run_id: str, resume_command: str) -> Iterator[None]:
    """End a run as the block ends: FINISHED, FAILED after an error, KILLED after a signal, Ctrl-C or a cancellation.

    `resume_command` is noted on the exception that stopped the block.
    """
    try:
        yield
    except Exception:
        close_run(run_id, "FAILED")
        raise
    except BaseException as stopped:
        close_run(run_id, "KILLED")
        stopped.add_note(f"continue with: {resume_command}")
        raise
    close_run(run_id, "FINISHED")


def run_with_tag(experiment: str, name: str, value: str) -> str | None:
    """The experiment's latest run with this value of a tag; None if there is none."""
    found = client().search_runs([experiment_id(experiment)], f"tags.`{name}` = '{value}'", max_results=1)
    return str(found[0].info.run_id) if found else None


def log_tags(run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags of a run."""
    keep(run_id, ("tags", {"tags": dict(tags)}))


def info_of(run_id: str) -> Any:
    """What MLflow has of the run besides tags, params and metrics, such as the id of its experiment."""
    delivery = delivery_of(run_id)
    return delivery.info if delivery is not None else get_run(run_id).info


def kind_of_run(run_id: str) -> str:
    """What started the run: ``train-images``, ``train-tables``, ``find-lr``, ``sweep`` or ``trial``."""
    return tags_of(run_id).get("unfreeze.kind", "")


def log_data_set(run_id: str, name: str, digest: str, source: str, profile: Mapping[str, Any]) -> None:
    """Log the data set as the run's input; `digest` identifies images, labels and split."""
    described = {"source": json.dumps({"uri": source}), "profile": json.dumps(dict(profile))}
    keep(run_id, ("data set", {"name": name, "digest": digest[:8], "source_type": "local", **described}))
