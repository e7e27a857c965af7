"""How what a run logs reaches MLflow: through its spool and a thread, so that no server can stall or end a training."""

import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import copy_context
from pathlib import Path

from mlflow.exceptions import MlflowException

from unfreeze.models.errors import UserError
from unfreeze.tasks.machine.environment import tracking_store
from unfreeze.tasks.machine.processes import this_process
from unfreeze.tasks.prefect_run.notices import log_notice
from unfreeze.tasks.tracking.operations import perform
from unfreeze.tasks.tracking.server import client, reason_of
from unfreeze.tasks.tracking.spool import Entry, Operation, Spool

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
    """

    def __init__(self, run_id: str) -> None:
        run = client().get_run(run_id)
        self.run_id, self.spool = run_id, Spool(run_id)
        self.info = run.info
        self.tags: dict[str, str] = dict(run.data.tags)
        """All tags of the run, those that wait included."""
        self.known = {each.key: (int(each.step), float(each.value)) for each in run.data._metric_objs}
        """Metric -> latest step and its value, as earlier attempts at this run left them."""
        self.results: dict[str, dict[str, str]] = {}
        """Kind of operation -> what it led to."""
        self.trouble: str | None = None
        """Why MLflow could not be reached at the last attempt."""
        self.spool.keep_facts({**this_process(), "store": tracking_store()})
        self._changed, self._ending = threading.Condition(threading.RLock()), False
        self._unwritten: list[Entry] = []
        self._waited, self._megabytes = 0.0, 0.0  # seconds without progress; size of what is being sent
        # In this run's context, so that its lines go to this run's log.
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._deliver,), name=f"delivery {run_id}", daemon=True
        )
        self._thread.start()

    def add(self, entries: Sequence[Entry]) -> None:
        """Keep operations for delivery; never waits for MLflow. Without space on the disk they wait in memory."""
        for kind, body in entries:
            if kind == "tags":
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
        """Wait until everything is delivered; False once MLflow has taken nothing for so many seconds."""
        with self._changed:
            if self._unwritten:
                self.add([])  # there may be space again
            while self._thread.is_alive() and self.spool.waiting():
                # A second wait in one outage would be as vain as the first; an upload is given a second per megabyte.
                if self._waited >= seconds + (self._megabytes if self.trouble is None else 0):
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
        shutil.rmtree(self.spool.folder / KEPT, ignore_errors=True)
        if not self._thread.is_alive():
            self.spool.close()

    def _deliver(self) -> None:
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
            if attempts:
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
            self.trouble = trouble
            end = time.monotonic() + seconds
            while not self._ending and time.monotonic() < end:
                self._changed.wait(end - time.monotonic())

    def _rest(self, signed: float) -> None:
        """Wait for something to do."""
        with self._changed:
            self.trouble = None
            while not self._ending and not self.spool.waiting():
                left = SECONDS_BETWEEN_SIGNS - (time.monotonic() - signed)
                if left < 0:
                    return
                self._changed.wait(left + 0.1)


_OPEN: dict[str, Delivery] = {}


def delivery_of(run_id: str) -> Delivery | None:
    """The delivery of a run that this process has under way; None for any other run."""
    return _OPEN.get(run_id)


@contextmanager
def delivering(run_id: str) -> Iterator[Delivery]:
    """Let everything that is logged to the run while the block runs reach MLflow by way of its spool.

    At the block's end what waits is given some time; the rest stays in the spool, and a line says so.
    """
    delivery = _OPEN[run_id] = Delivery(run_id)
    patience = PATIENCE
    try:
        yield delivery
    except BaseException as stopped:
        patience = PATIENCE if isinstance(stopped, Exception) else PATIENCE_WHEN_STOPPED
        raise
    finally:
        try:
            with suppress(KeyboardInterrupt):  # whoever is in a hurry need not wait: nothing is lost
                delivery.wait(patience)
            if count := delivery.spool.waiting():
                why = f" ({delivery.trouble})" if delivery.trouble else ""
                log_notice(
                    f"MLflow lacks {count} operations of run {run_id}{why}; they wait in {delivery.spool.folder}, and "
                    "`unfreeze sync` delivers them"
                )
        finally:
            del _OPEN[run_id]
            delivery.close()
    if delivery.unwritten:
        raise UserError(
            f"{delivery.unwritten} operations of run {run_id} could be kept neither in MLflow nor in "
            f"{delivery.spool.folder}, whose disk is full; free some space there, and `unfreeze resume {run_id}`"
        )


def keep(run_id: str, *entries: Entry) -> None:
    """Do something to a run: by way of its spool where it is under way here, else at once."""
    delivery = _OPEN.get(run_id)
    if delivery is not None:
        delivery.add(entries)
        return
    for kind, body in entries:
        perform(run_id, kind, body)


def keep_and_wait(run_id: str, entry: Entry) -> dict[str, str]:
    """As `keep`, for what makes something in MLflow; returns what it made, nothing if MLflow does not have it yet."""
    delivery = _OPEN.get(run_id)
    if delivery is None:
        return perform(run_id, *entry)
    delivery.add([entry])
    delivery.wait(PATIENCE)
    return delivery.results.get(entry[0], {})


def wait_until_delivered(run_id: str) -> bool:
    """Wait for MLflow to have all that was logged to a run under way; False if it takes nothing for too long."""
    delivery = _OPEN.get(run_id)
    return delivery is None or delivery.wait(PATIENCE)


@contextmanager
def place_of(run_id: str, name: str) -> Iterator[Path]:
    """Where to write a file or folder of that name before an entry of `keep` names it as ``path`` within the block."""
    delivery = _OPEN.get(run_id)
    if delivery is not None:
        yield delivery.spool.place(name)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / name


def require_own(run_id: str, facts: Mapping[str, str]) -> None:
    """Raise `TakenOver` if a run belongs to another process than the one whose spool has these facts."""
    tags = client().get_run(run_id).data.tags
    if any(tags.get(name) != facts.get(name) for name in this_process()):
        host, process = tags.get("unfreeze.host"), tags.get("unfreeze.process")
        raise TakenOver(f"run {run_id} was resumed by process {process} on {host}")
