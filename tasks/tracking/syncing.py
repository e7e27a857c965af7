"""What processes left behind: operations that wait in spools, and runs that look as if they were under way."""

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from filelock import Timeout
from mlflow.exceptions import MlflowException

from unfreeze.models.errors import UserError
from unfreeze.tasks.machine.environment import home, tracking_store
from unfreeze.tasks.machine.processes import is_gone
from unfreeze.tasks.tracking.children import WHOLE
from unfreeze.tasks.tracking.delivery import FINAL, TakenOver, require_own
from unfreeze.tasks.tracking.operations import perform
from unfreeze.tasks.tracking.server import client, reason_of
from unfreeze.tasks.tracking.spool import Spool, attempt_of, folder_of, lock_of, run_of, spools, spools_of, waiting_in

OUTDATED = "outdated"
"""Folder beside the spools: those of runs that another process has taken up since."""
LONGEST_ATTEMPT = 60.0
"""Seconds to wait for one that a run left behind: longer than SQLite waits for a database that is locked."""


class Delivered(NamedTuple):
    """What became of a run's spool: operations delivered and left, why they are left, and what people should know."""

    run_id: str
    delivered: int
    left: int
    why: str = ""
    news: tuple[str, ...] = ()


def deliver(name: str) -> Delivered:
    """Deliver what waits in a spool whose lock the caller holds; stops at the first operation that fails."""
    spool, run_id, count, news = Spool(name), run_of(name), 0, list[str]()
    attempt = attempt_of(name)
    try:
        attempt.acquire(timeout=LONGEST_ATTEMPT)
        facts = spool.facts()
        if facts:
            require_own(run_id, facts)
        spool.retry_refused()
        while (operation := spool.first()) is not None:
            try:
                made = perform(run_id, operation.kind, operation.body)
            except MlflowException as error:
                if error.error_code not in FINAL:
                    raise
                spool.refuse(operation, reason_of(error))
            else:
                spool.done(operation)
                count += 1
                news += [made["line"]] if "line" in made else []
        refused = spool.refused()
        return Delivered(run_id, count, len(refused), f"refused: {refused[0]}" if refused else "", tuple(news))
    except Timeout:
        return Delivered(run_id, count, spool.waiting(), "an earlier attempt is still under way", tuple(news))
    except TakenOver as error:
        aside = home() / "spool" / OUTDATED / f"{name}-{time.time_ns()}"
        aside.parent.mkdir(exist_ok=True)
        spool.folder.rename(aside)
        return Delivered(run_id, count, spool.waiting(), f"{error}; what waited here is outdated and kept in {aside}")
    except Exception as error:  # of any library that takes part
        why = f"MLflow at {tracking_store()}: {reason_of(error)}"
        return Delivered(run_id, count, spool.waiting(), why, tuple(news))
    finally:
        attempt.release()
        spool.close()


def require_delivered(run_id: str) -> None:
    """Deliver what an earlier attempt at a run left, before the run is resumed; the caller holds its lock.

    Raises
    ------
    UserError
        If something still waits: the newest checkpoint may be among it.
    """
    if folder_of(run_id).exists():
        done = deliver(run_id)
        if folder_of(run_id).exists():
            raise UserError(f"{done.left} operations of run {run_id} cannot be delivered to MLflow: {done.why}")


def sync() -> list[Delivered]:
    """Deliver what waits for all runs of this data folder, and end those whose process is gone."""
    done = []
    for name in spools():
        with _locked(name) as is_ours:
            under_way = "its process is under way and delivers it"
            done.append(deliver(name) if is_ours else Delivered(run_of(name), 0, waiting_in(name), under_way))
    return done


def deliver_left(run_id: str) -> None:
    """Deliver what processes that are gone left of a run that several have, as far as MLflow takes it."""
    for name in spools_of(run_id):
        with _locked(name) as is_ours:
            if is_ours:
                deliver(name)


@contextmanager
def _locked(name: str) -> Iterator[bool]:
    """Hold the lock of a spool, unless another process has it."""
    lock = lock_of(name)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def close_stale_runs(experiments: Sequence[str]) -> None:
    """Mark runs whose process on this machine is gone as KILLED: a killed process cannot do so itself.

    What such a run left in its spool is delivered first; it may say how the run ended.
    """
    query = f"attributes.status = 'RUNNING' and tags.`unfreeze.host` = '{socket.gethostname()}'"
    for run in client().search_runs(list(experiments), query):
        run_id = run.info.run_id
        if not is_gone(run.data.tags):
            continue
        deliver_left(run.data.tags.get(WHOLE, run_id))
        with _locked(run_id) as is_ours:
            if not is_ours:  # another command is at it
                continue
            now = client().get_run(run_id)  # whoever held the lock until now may have resumed it
            if now.info.status == "RUNNING" and is_gone(now.data.tags):
                client().set_terminated(run_id, "KILLED")
