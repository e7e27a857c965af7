"""A run's life: started or resumed, published, closed; its parts; the latest runs."""

import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Literal

from unfreeze.models.errors import UserError, one_line
from unfreeze.models.settings.fields import flatten
from unfreeze.tasks.machine.notices import log_notice
from unfreeze.tasks.machine.processes import this_process
from unfreeze.tasks.machine.servers import NoAnswerError
from unfreeze.tasks.tracking.elsewhere import fetched, unless_outdated
from unfreeze.tasks.tracking.entries import folder_here
from unfreeze.tasks.tracking.files import log_spec
from unfreeze.tasks.tracking.folder import (
    CHECKPOINTS,
    PARTS,
    RunFolder,
    end_if_gone,
    folder_of,
    is_unnamed,
    let_go,
    new_folder,
    run_folders,
    take,
)
from unfreeze.tasks.tracking.publish import drop_checkpoints, pending
from unfreeze.tasks.tracking.publisher import Publisher, commit, publisher_of, remove_if_done
from unfreeze.tasks.tracking.server import client, experiment_id, experiments, get_run, require_answer

RESUME = "unfreeze.resume"
"""Tag of a run other than a training: the command that continues it."""
WHY = "unfreeze.why"
"""Tag of a run that failed for its data or settings: what is wrong with them."""

MOST_SEARCHED = 1_000
"""Latest runs among which one is found by its name or the beginning of its id."""

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]
"""Final state of a run."""

_later: ExitStack | None = None
"""Functions to call at the end of a `staying_open` block."""


@contextmanager
def new_run(
    experiment: str, name: str, spec: Mapping[str, Any], tags: Mapping[str, str], shared: bool = False
) -> Iterator[str]:
    """Start a run, publish it while the block runs, and end it with the block; yields its key.

    It ends FINISHED, FAILED after an error, KILLED after a signal, Ctrl-C or a cancellation; the command that resumes
    it is added as a note to the exception that stopped the block. MLflow may be unavailable throughout.

    Parameters
    ----------
    experiment, name
        Of the run.
    spec
        The complete spec, stored as params and as an artifact.
    tags
        Initial tags.
    shared
        Whether several processes share it, as in a sweep.

    Raises
    ------
    UserError
        If waiting for MLflow would not help: the experiment was deleted, the store is damaged or its disk is full.
    """
    for folder in run_folders():
        end_if_gone(folder)
    about = {"experiment": experiment, "name": name, "params": _texts(spec), "shared": shared}
    folder = new_folder(about, tags)
    with _under_way(folder, partial(log_spec, folder.key, spec)):
        yield folder.key


@contextmanager
def resumed_run(run_id: str, tags: Mapping[str, str], finished: bool = False) -> Iterator[str]:
    """Resume a stopped run, or with `finished` any run, as `new_run` starts one; yields its key.

    A run without a folder here is fetched from MLflow. `tags` are added; those of a Prefect flow run distinguish its
    earlier attempts from other processes.

    Raises
    ------
    UserError
        Also if the run is unknown, finished, or another process has it, here or elsewhere.
    """
    found = folder_of(run_id)
    folder = None if found is None else unless_outdated(found)
    if folder is None:
        folder = fetched(run_id, tags)
    else:
        take(folder)

    def reopen() -> None:
        if folder.refresh().state == "FINISHED" and not finished:
            raise UserError(f"run {folder.shown_id} is finished; there is nothing to resume")
        folder.commit(tags={**tags, **this_process()}, state="RUNNING")

    with _under_way(folder, reopen):
        yield folder.key


@contextmanager
def _under_way(folder: RunFolder, begin: Callable[[], None]) -> Iterator[None]:
    """Release a held run at the block's end; between `begin` and then it is published."""
    status: RunStatus = "FAILED"
    with ExitStack() as ends:
        ends.callback(_at_the_end, folder)
        begin()
        publisher = Publisher(folder)
        ends.callback(lambda: close_run(folder.key, status))
        try:
            publisher.begin()
            yield
            status = "FINISHED"
        except Exception as error:
            if isinstance(error, UserError):
                commit(folder, tags={WHY: one_line(error)})
            raise
        except BaseException as stopped:
            status = "KILLED"
            if (command := resume_command(folder.key, folder.tags)) is not None:
                stopped.add_note(f"continue with: {command}")
            raise


def _at_the_end(folder: RunFolder) -> None:
    """Wait for an ended run to be published, and release it; in a `staying_open` block at its end."""
    if _later is not None:
        _later.callback(_end, folder)
    else:
        _end(folder)


def _end(folder: RunFolder) -> None:
    try:
        if (publisher := publisher_of(folder)) is not None:
            publisher.finish()
    finally:
        let_go(folder)
        remove_if_done(folder)


@contextmanager
def staying_open() -> Iterator[None]:
    """Keep runs whose blocks end within this one open until its end: a retraining still logs to its training."""
    global _later  # noqa: PLW0603
    with ExitStack() as _later:
        try:
            yield
        finally:
            _later = None


@contextmanager
def part_of_run(run_id: str, name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> Iterator[str]:
    """Create a child run in this process, such as a sweep's trial; yields its key."""
    whole = folder_here(run_id)
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
    folder = folder_here(run_id)
    if folder.refresh().owner != tuple(this_process().values()):
        return
    ended: dict[str, Any] = {"state": status, "time": int(time.time() * 1000)}
    if status == "FINISHED" and folder.tags.get("unfreeze.kind", "").startswith("train-"):
        keeps = dict(folder.about["params"]).get("tracking.cycle_checkpoints") == "True"
        ended["dropped"] = {"but": [each for each in folder.checkpoints if keeps and not is_unnamed(each)]}
    commit(folder, **ended)


def drop_weights(run_id: str) -> None:
    """Remove a child run's checkpoints from its folder or else from MLflow."""
    folder = folder_of(run_id)
    if folder is not None:
        commit(folder, dropped={"but": []})
        return
    try:
        run_id = str(get_run(run_id).info.run_id)
        drop_checkpoints(run_id, [each.path for each in client().list_artifacts(run_id, CHECKPOINTS)])
    except Exception as error:
        log_notice(f"checkpoints of run {run_id} could not be removed ({error})")


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


def recent_runs(count: int) -> list[dict[str, Any]]:
    """The latest runs started by users, newest first.

    Returns
    -------
    list of dict
        ``run`` (its id), ``name``, ``kind``, ``state``, ``began``, ``waiting`` (unpublished changes), ``why`` (what is
        wrong with its data or settings) and ``continue`` (a command); the last three are None if there is nothing.
    """
    folders = {each.shown_id: each for each in run_folders()}
    found = client().search_runs(
        list(experiments().values()),
        "tags.`unfreeze.kind` != 'trial'",
        order_by=["attributes.start_time DESC"],
        max_results=count,
    )
    rows: list[tuple[Any, ...]] = [
        (run.info.start_time, run.info.run_id, run.info.run_name, run.info.status, run.data.tags, None)
        for run in found
        if run.info.run_id not in folders
    ]
    rows += [
        (each.about["time"], run_id, each.about["name"], each.state, each.tags, pending(each) or None)
        for run_id, each in folders.items()
    ]
    return [
        {
            "run": run_id,
            "name": name,
            "kind": tags["unfreeze.kind"],
            "state": state,
            "began": time.strftime("%Y-%m-%d %H:%M", time.localtime(began / 1000)),
            "waiting": waiting,
            "why": tags.get(WHY) if state == "FAILED" else None,
            "continue": resume_command(run_id, tags) if state in ("KILLED", "FAILED") else None,
        }
        for began, run_id, name, state, tags, waiting in sorted(rows, key=lambda row: -row[0])[:count]
    ]


def find_run(given: str) -> str:
    """Id of the run that a user means: its id or the beginning of it, its name, or ``last`` for the latest training.

    Raises
    ------
    UserError
        If several runs fit, or none does.
    """
    if folder_of(given) is not None or re.fullmatch("[0-9a-f]{32}", given):
        return given
    require_answer()
    rows = recent_runs(MOST_SEARCHED)
    if given == "last":
        found = [row for row in rows if row["kind"].startswith("train-")][:1]
    else:
        found = [row for row in rows if row["run"].startswith(given) or row["name"] == given]
    if len(found) == 1:
        return str(found[0]["run"])
    if not found:
        raise UserError(
            f"there is no run {given!r}; give the id of one in `unfreeze runs`, its beginning, its name, or `last`"
        )
    several = ", ".join(f"{row['run']} ({row['name']}, {row['began']})" for row in found[:5])
    raise UserError(f"{given!r} may be any of {len(found)} runs: {several}; give more of the id")


def resume_command(run_id: str, tags: Mapping[str, str]) -> str | None:
    """The command that continues a stopped run; None if it cannot be continued."""
    is_training = tags.get("unfreeze.kind", "").startswith("train-")
    return tags.get(RESUME) or (f"unfreeze resume {run_id}" if is_training else None)


def _texts(params: Mapping[str, Any]) -> list[list[str]]:
    return [[key, "" if value is None else str(value)] for key, value in flatten(params).items()]
