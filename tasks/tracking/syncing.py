"""What processes left behind: operations that wait in spools, and runs that look as if they were under way."""

import socket
import time
from collections.abc import Sequence
from typing import NamedTuple

from filelock import Timeout
from mlflow.exceptions import MlflowException

from unfreeze.models.errors import UserError
from unfreeze.tasks.machine.environment import home, tracking_store
from unfreeze.tasks.machine.processes import is_gone
from unfreeze.tasks.tracking.delivery import FINAL, TakenOver, require_own
from unfreeze.tasks.tracking.operations import perform
from unfreeze.tasks.tracking.server import client, reason_of
from unfreeze.tasks.tracking.spool import Spool, folder_of, lock_of, spooled_runs, waiting_of

OUTDATED = "outdated"
"""Folder beside the spools: those of runs that another process has taken up since."""


class Delivered(NamedTuple):
    """What became of a run's spool: operations delivered and left, and why they are left."""

    run_id: str
    delivered: int
    left: int
    why: str = ""


def deliver(run_id: str) -> Delivered:
    """Deliver what waits for a run whose lock the caller holds; stops at the first operation that fails."""
    spool, count = Spool(run_id), 0
    try:
        facts = spool.facts()
        if facts:
            require_own(run_id, facts)
        spool.retry_refused()
        while (operation := spool.first()) is not None:
            try:
                perform(run_id, operation.kind, operation.body)
            except MlflowException as error:
                if error.error_code not in FINAL:
                    raise
                spool.refuse(operation, reason_of(error))
            else:
                spool.done(operation)
                count += 1
        refused = spool.refused()
        return Delivered(run_id, count, len(refused), f"refused: {refused[0]}" if refused else "")
    except TakenOver as error:
        aside = home() / "spool" / OUTDATED / f"{run_id}-{time.time_ns()}"
        aside.parent.mkdir(exist_ok=True)
        spool.folder.rename(aside)
        return Delivered(run_id, count, spool.waiting(), f"{error}; what waited here is outdated and kept in {aside}")
    except Exception as error:  # of any library that takes part
        return Delivered(run_id, count, spool.waiting(), f"MLflow at {tracking_store()}: {reason_of(error)}")
    finally:
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
    for run_id in spooled_runs():
        lock = lock_of(run_id)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            done.append(Delivered(run_id, 0, waiting_of(run_id), "its process is under way and delivers it"))
            continue
        try:
            done.append(deliver(run_id))
        finally:
            lock.release()
    return done


def close_stale_runs(experiments: Sequence[str]) -> None:
    """Mark runs whose process on this machine is gone as KILLED: a killed process cannot do so itself.

    What such a run left in its spool is delivered first; it may say how the run ended.
    """
    query = f"attributes.status = 'RUNNING' and tags.`unfreeze.host` = '{socket.gethostname()}'"
    for run in client().search_runs(list(experiments), query):
        run_id = run.info.run_id
        if not is_gone(run.data.tags):
            continue
        lock = lock_of(run_id)
        try:
            lock.acquire(timeout=0)
        except Timeout:  # another command is at it
            continue
        try:
            if folder_of(run_id).exists():
                deliver(run_id)
            now = client().get_run(run_id)  # whoever held the lock until now may have resumed it
            if now.info.status == "RUNNING" and is_gone(now.data.tags):
                client().set_terminated(run_id, "KILLED")
        finally:
            lock.release()
