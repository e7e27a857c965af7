"""How what a run logs reaches MLflow: through its spool and a thread, so that no server can stall or end a training."""

import shutil
import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from contextvars import copy_context
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException

from unfreeze.tasks.machine.environment import tracking_store
from unfreeze.tasks.machine.notices import log_notice
from unfreeze.tasks.machine.processes import this_process
from unfreeze.tasks.tracking.operations import perform
from unfreeze.tasks.tracking.server import client, reason_of
from unfreeze.tasks.tracking.spool import CHILD, Entry, Operation, Spool, attempt_of, own_name

ALIVE = "unfreeze.alive"
"""Tag of a run: when its process was last heard of, in milliseconds since 1970."""
SECONDS_BETWEEN_SIGNS = 30
KEPT = "kept"
"""Folder in a spool, see `Delivery.kept`."""
PAUSES = (0.5, 1, 2, 4, 8, 15)
"""Seconds between attempts while MLflow does not answer; the last one repeats."""
PATIENCE = 30.0
"""Seconds without any progress that a command waits for MLflow at its end."""
PATIENCE_WHEN_STOPPED = 10.0
"""The same for one that was stopped: Prefect's worker kills what has not ended 30 s after its signal."""
SECONDS_FOR_ONE_ATTEMPT = 5.0
"""What is left of either where MLflow has not answered for that long already."""
FINAL = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE"}
"""MLflow's errors that no repetition mends."""


class TakenOver(Exception):
    """Another process has taken up the run; what this one has left to say of it is outdated."""


class Delivery:
    """Sends what one run logs to MLflow, in order, from a thread of its own.

    Parameters
    ----------
    run_id
        The MLflow run.
    run
        What MLflow has of it so far; None if that does not matter.
    is_shared
        Whether other processes log to the run as well; else a process that takes it up outdates this one.
    """

    def __init__(self, run_id: str, run: Any | None, is_shared: bool = False) -> None:
        self.run_id, self.spool = run_id, Spool(own_name(run_id) if is_shared else run_id)
        self.info = run.info if run is not None else None
        self.tags: dict[str, str] = dict(run.data.tags) if run is not None else {}
        """All tags of the run, those that wait included."""
        metrics = run.data._metric_objs if run is not None else []
        self.known = {each.key: (int(each.step), float(each.value)) for each in metrics}
        """Metric -> latest step and its value, as earlier attempts at this run left them."""
        self.results: dict[str, dict[str, str]] = {}
        """Kind of operation -> what it led to."""
        self.trouble: str | None = None
        """Why MLflow could not be reached at the last attempt."""
        self.spool.keep_facts({**({} if is_shared else this_process()), "store": tracking_store()})
        self._since = 0.0  # when the trouble began
        self._changed, self._ending, self._is_awaited = threading.Condition(threading.RLock()), False, False
        self._unwritten: list[Entry] = []
        self._last_attempt, self._is_over = attempt_of(self.spool.folder.name), False
        self._waited, self._megabytes = 0.0, 0.0  # seconds without progress; size of what is being sent
        # In this run's context, so that its lines go to this run's log.
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._deliver,), name=f"delivery {run_id}", daemon=True
        )
        self._thread.start()

    def add(self, entries: Sequence[Entry]) -> None:
        """Keep operations for delivery; never waits for MLflow. Without space on the disk they wait in memory."""
        for kind, body in entries:
            if kind == "tags" and CHILD not in body:
                self.tags |= body["tags"]
        with self._changed:
            is_first = not self._unwritten
            self._unwritten += entries
            try:
                self.spool.add(self._unwritten)
            except (OSError, sqlite3.Error) as error:
                if is_first:
                    log_notice(f"{self.spool.folder} cannot be written ({error}); what the run logs waits in memory")
            else:
                self._unwritten = []
            self._changed.notify_all()

    @property
    def unwritten(self) -> int:
        """How many operations are in memory only."""
        return len(self._unwritten)

    def kept(self, artifact: str) -> Path:
        """Where a copy of an artifact lies until the run ends, if the run will need it itself."""
        path = self.spool.folder / KEPT / artifact
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def wait(self, seconds: float) -> bool:
        """Wait until everything is delivered; False once MLflow has taken nothing for so many seconds.

        Those of an outage that began before count, but for the few that one more attempt takes.
        """
        with self._changed:
            if self._unwritten:
                self.add([])  # there may be space again
            self._is_awaited = True
            self._changed.notify_all()
            while self._thread.is_alive() and self.spool.waiting():
                # A second wait in one outage would be as vain as the first; an upload is given a second per megabyte.
                if self._waited >= seconds + (self._megabytes if self.trouble is None else 0):
                    return False
                gone = time.monotonic() - self._since if self.trouble is not None else 0.0
                if gone >= seconds and self._waited >= SECONDS_FOR_ONE_ATTEMPT:
                    return False
                began = time.monotonic()
                self._changed.wait(0.5)
                self._waited += time.monotonic() - began
        return not self.spool.waiting() and not self._unwritten

    def close(self) -> None:
        """Stop the thread after what it is sending, without waiting for more than a moment."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        self._thread.join(2)
        with self._changed:
            if not self._is_over:
                with suppress(OSError):  # whoever delivers the rest waits for it
                    self._last_attempt.acquire(timeout=0)
        shutil.rmtree(self.spool.folder / KEPT, ignore_errors=True)
        if not self._thread.is_alive():
            self.spool.close()

    def _deliver(self) -> None:
        try:
            self._send_all()
        finally:
            with self._changed:
                self._is_over = True
                self._last_attempt.release()

    def _send_all(self) -> None:
        attempts, signed = 0, time.monotonic()
        while not self._ending:
            try:
                operation = self.spool.first()
                if attempts:
                    require_own(self.run_id, self.spool.facts())
                if time.monotonic() - signed > SECONDS_BETWEEN_SIGNS:
                    client().set_tag(self.run_id, ALIVE, str(int(time.time() * 1000)))
                    signed = time.monotonic()
                if operation is not None:
                    self._perform(operation)
            except TakenOver as error:
                log_notice(f"{error}; nothing more is sent")
                return
            except Exception as error:  # whatever a server or its client came up with must not reach the training
                self.spool.postpone()
                if not attempts:
                    log_notice(
                        f"MLflow at {tracking_store()} does not answer ({reason_of(error)}); the run continues, and "
                        f"what it logs waits in {self.spool.folder}"
                    )
                self._pause(PAUSES[min(attempts, len(PAUSES) - 1)], reason_of(error))
                attempts += 1
                continue
            if attempts and not self._ending:
                log_notice(f"MLflow answers again; {self.spool.waiting()} operations are being delivered")
                attempts = 0
            if operation is None:
                self._rest(signed)

    def _perform(self, operation: Operation) -> None:
        self._megabytes = operation.size / 2**20
        result: dict[str, str] = {}
        try:
            result = perform(self.run_id, operation.kind, operation.body)
        except MlflowException as error:
            if error.error_code not in FINAL:
                raise
            log_notice(f"MLflow refuses something of run {self.run_id} ({operation.kind}): {reason_of(error)}")
            refused: str | None = reason_of(error)
        else:
            refused = None
        with self._changed:  # whoever waits finds the result with the operation done
            self.results[operation.kind] = result
            self.trouble, self._waited = None, 0.0
            if refused is None:
                self.spool.done(operation)
            else:
                self.spool.refuse(operation, refused)
            self._changed.notify_all()

    def _pause(self, seconds: float, trouble: str) -> None:
        with self._changed:
            if self.trouble is None:
                self._since = time.monotonic()
            self.trouble, end = trouble, time.monotonic() + seconds
            while not self._ending and not self._is_awaited and time.monotonic() < end:
                self._changed.wait(end - time.monotonic())
            self._is_awaited = False

    def _rest(self, signed: float) -> None:
        """Wait for something to do."""
        with self._changed:
            self.trouble = None
            while not self._ending and not self.spool.waiting():
                left = SECONDS_BETWEEN_SIGNS - (time.monotonic() - signed)
                if left < 0:
                    return
                self._changed.wait(left + 0.1)


def require_own(run_id: str, facts: Mapping[str, str]) -> None:
    """Raise `TakenOver` if a run belongs to another process than the one whose spool has these facts.

    A run that several processes have is nobody's own.
    """
    if "unfreeze.process" not in facts:
        return
    tags = client().get_run(run_id).data.tags
    if any(tags.get(name) != facts.get(name) for name in this_process()):
        host, process = tags.get("unfreeze.host"), tags.get("unfreeze.process")
        raise TakenOver(f"run {run_id} was resumed by process {process} on {host}")
