"""Publication of runs: from a thread while they train, so no server stalls the training, and afterwards."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import copy_context
from typing import NamedTuple

from unfreeze.models.errors import UserError
from unfreeze.tasks.machine.environment import tracking_store
from unfreeze.tasks.machine.notices import log_notice
from unfreeze.tasks.machine.servers import NoAnswerError
from unfreeze.tasks.tracking.folder import (
    PARTS,
    RunFolder,
    end_if_gone,
    folder_of,
    opened,
    remove,
    run_folders,
    set_aside,
)
from unfreeze.tasks.tracking.publish import Busy, TakenOver, pending, publish, refused, sign_of_life
from unfreeze.tasks.tracking.server import reason_of, require_answer

SECONDS_BETWEEN_SIGNS = 30
SECONDS_BETWEEN_LOOKS = 5
"""At commits by other processes of the run."""
PAUSES = (0.5, 1, 2, 4, 8, 15)
"""Seconds between attempts while MLflow does not answer; the last value repeats."""
PATIENCE = 30.0
"""Seconds without progress after which a finished command stops waiting for MLflow."""
PATIENCE_WHEN_STOPPED = 10.0
"""The same for a stopped command: Prefect's worker kills processes 30 s after its signal."""
PATIENCE_AT_THE_START = 20.0
"""The same before a run begins without MLflow; a server that does not answer at all gets 4 s."""
SECONDS_FOR_ONE_ATTEMPT = 5.0
"""Remaining patience if MLflow has not answered for that long already."""
LONGEST_ATTEMPT = 60.0
"""Seconds to wait for an attempt that a run left behind: longer than SQLite waits for a locked database."""


class Stopped(Exception):
    """The run has ended; the next command publishes the rest."""


_open: dict[str, "Publisher"] = {}
"""Key of a run under way in this process -> its publisher."""


class Publisher:
    """Publish one run's folder from a thread after every commit."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.trouble: str | None = None
        """Why the last attempt to reach MLflow failed."""
        self.invalid: UserError | None = None
        """Problem of the run or the store that waiting cannot solve."""
        self._changed = threading.Condition(threading.RLock())
        self._commits, self._published, self._ending, self._is_awaited = 1, 0, False, False
        self._since = self._progressed = time.monotonic()  # start of the outage; latest request
        self._megabytes, self._given_up = 0.0, 0.0
        # In this run's context, for its lines to reach this run's log.
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._publish_all,), name=f"publisher {folder.key}", daemon=True
        )
        self._thread.start()
        folder.keeps_unwritten = True
        _open[folder.key] = self

    def poke(self) -> None:
        """Notify the thread of a commit."""
        with self._changed:
            self._commits += 1
            self._changed.notify_all()

    def begin(self) -> None:
        """Wait until MLflow has the run or evidently does not answer; raises `invalid` if set."""
        with self._changed:
            self._changed.wait_for(lambda: self._published or self.trouble is not None, PATIENCE_AT_THE_START)
        if self.invalid is not None:
            raise self.invalid

    def wait(self, seconds: float) -> bool:
        """Wait until everything is published; False after so many seconds without progress.

        Time already lost in the current outage counts, except one last attempt.
        """
        self.folder.retry_unwritten()
        with self._changed:
            wanted, began = self._commits, time.monotonic()
            self._is_awaited = True
            self._changed.notify_all()
            while self._published < wanted and self._thread.is_alive():
                now = time.monotonic()
                if self.trouble is None:
                    quiet = now - max(began, self._progressed) - self._megabytes  # one second per megabyte of an upload
                else:
                    quiet = now - self._since
                    attempt = 0.0 if self._given_up == self._since else SECONDS_FOR_ONE_ATTEMPT
                    quiet = min(quiet, seconds) if now - began >= min(attempt, seconds) else 0.0
                if quiet >= seconds:
                    self._given_up = self._since
                    return False
                self._changed.wait(0.2)
            self._is_awaited = False
            return self._published >= wanted and not self.folder.unwritten

    def close(self) -> None:
        """Stop the thread after the current request, waiting only briefly."""
        del _open[self.folder.key]
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        self._thread.join(2)

    def _progress(self, megabytes: float) -> None:
        if self._ending:
            raise Stopped
        with self._changed:
            self._progressed, self._megabytes = time.monotonic(), megabytes

    def _publish_all(self) -> None:
        attempts, is_careful, signed = 0, True, time.monotonic()
        while not self._ending:
            commits = self._commits
            try:
                if is_careful:
                    require_answer(SECONDS_FOR_ONE_ATTEMPT)
                publish(self.folder, is_careful, self._progress)
                if time.monotonic() - signed > SECONDS_BETWEEN_SIGNS:
                    sign_of_life(self.folder)
                    signed = time.monotonic()
            except Stopped:
                return
            except TakenOver as error:
                log_notice(f"{error}; nothing more is sent")
                return
            except Exception as error:  # errors of a server or its client must not reach the training
                if not attempts and not isinstance(error, Busy):
                    log_notice(
                        f"MLflow at {tracking_store()} does not answer ({reason_of(error)}); the run continues, and "
                        f"what it logs is kept in {self.folder.path}"
                    )
                self._pause(PAUSES[min(attempts, len(PAUSES) - 1)], error)
                attempts, is_careful = attempts + 1, True
                continue
            if attempts:
                log_notice(f"MLflow answers again, and has what run {self.folder.key} logged meanwhile")
            with self._changed:
                self.trouble, self._published, self._progressed = None, commits, time.monotonic()
                self._changed.notify_all()
            if is_careful:
                _publish_stopped()
            attempts, is_careful = 0, False
            self._rest(signed)

    def _pause(self, seconds: float, error: Exception) -> None:
        with self._changed:
            if self.trouble is None:
                self._since = time.monotonic()
            self.trouble, end = reason_of(error), time.monotonic() + seconds
            self.invalid = error if isinstance(error, UserError) and not isinstance(error, NoAnswerError) else None
            self._changed.notify_all()
            while not self._ending and not self._is_awaited and time.monotonic() < end:
                self._changed.wait(end - time.monotonic())
            self._is_awaited = False

    def _rest(self, signed: float) -> None:
        """Wait for a commit, here or by another process, or the next sign of life."""
        with self._changed:
            while not self._ending and self._commits == self._published:
                if time.monotonic() - signed > SECONDS_BETWEEN_SIGNS:
                    return
                self._changed.wait(SECONDS_BETWEEN_LOOKS)
                if pending(self.folder):
                    return


_later: ExitStack | None = None
"""Functions to call at the end of a `staying_open` block."""


def publisher_of(folder: RunFolder) -> Publisher | None:
    """The publisher of a run or its parent in this process; None for a run that is not under way."""
    return _open.get(folder.key) or _open.get(folder.path.parents[1].name)


@contextmanager
def staying_open() -> Iterator[None]:
    """Keep runs whose blocks end within this one open until its end: a retraining still logs to its training."""
    global _later  # noqa: PLW0603
    with ExitStack() as _later:
        try:
            yield
        finally:
            _later = None


def at_the_end(close: Callable[[], None]) -> None:
    """Call a function now, or at the end of the enclosing `staying_open` block."""
    if _later is None:
        close()
    else:
        _later.callback(close)


def finish(publisher: Publisher, status: str) -> None:
    """Wait a limited time for an ended run to be published; the rest stays in its folder, and a line reports it.

    `status` is how the run ended: after ``KILLED`` the wait is short.

    Raises
    ------
    UserError
        If the folder's disk has no space for data that MLflow lacks too.
    """
    folder, patience = publisher.folder, PATIENCE_WHEN_STOPPED if status == "KILLED" else PATIENCE
    if status != "FINISHED" and publisher.invalid is not None:
        patience = 0.0
    try:
        with suppress(KeyboardInterrupt):  # not waiting loses nothing
            publisher.wait(patience)
        if count := pending(folder):
            why = f" ({publisher.trouble})" if publisher.trouble else ""
            log_notice(
                f"MLflow lacks {count} changes of run {folder.key}{why}; they are in {folder.path}, and "
                "`unfreeze sync` publishes them"
            )
    finally:
        publisher.close()
        folder.keeps_unwritten = False
    if folder.unwritten:
        raise UserError(
            f"{folder.unwritten} changes of run {folder.key} could be kept neither in MLflow nor in {folder.path}, "
            f"whose disk is full; free some space there, and `unfreeze resume {folder.key}`"
        )


def remove_if_done(folder: RunFolder) -> None:
    """Remove the folder of a finished and fully published run."""
    if folder.refresh().state == "FINISHED" and not pending(folder) and not refused(folder):
        remove(folder)


class Published(NamedTuple):
    """Outcome of publishing a folder: changes left, the reason, and news such as the version that now answers."""

    run_id: str
    left: int
    why: str = ""
    news: tuple[str, ...] = ()


def sync() -> list[Published]:
    """Publish all runs that no process holds; those of killed processes end as KILLED."""
    found = (_sync(folder) for folder in run_folders())
    return [each for each in found if each is not None]


def _sync(folder: RunFolder) -> Published | None:
    is_free = end_if_gone(folder)
    for part in folder.parts():
        end_if_gone(part)
    count = pending(folder)
    if not count and not (is_free and refused(folder)):
        if is_free:
            remove_if_done(folder)
        return None
    if not is_free:
        return Published(folder.shown_id, count, "its process is under way and publishes it")
    before, end = folder.published(), time.monotonic() + LONGEST_ATTEMPT
    try:
        while True:
            try:
                publish(folder)
                break
            except Busy:
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)
    except TakenOver as error:
        return Published(folder.shown_id, count, f"{error}; the folder is outdated and kept as {set_aside(folder)}")
    except Exception as error:  # from any library involved
        return Published(folder.shown_id, pending(folder), f"MLflow at {tracking_store()}: {reason_of(error)}")
    now, why = folder.published(), refused(folder)
    new = [now[each]["line"] for each in ("decision", "model") if each in now and each not in before]
    done = Published(folder.shown_id, len(why), f"refused: {why[0]}" if why else "", tuple(new[:1]))
    remove_if_done(folder)
    return done


def _publish_stopped() -> None:
    """Publish runs of killed processes as far as possible; finished ones are left to the command that reports them."""
    for folder in run_folders():
        if end_if_gone(folder) and folder.state != "FINISHED" and pending(folder):
            with suppress(Exception):
                publish(folder)


def publish_now(folder: RunFolder) -> None:
    """Publish a run that is not under way in this process; others publish themselves."""
    publisher = publisher_of(folder)
    if publisher is not None:
        publisher.poke()
        return
    whole = opened(folder.path.parents[1]) if folder.path.parent.name == PARTS else opened(folder.path)
    if whole is not None and end_if_gone(whole):  # else its holder publishes it
        with suppress(Busy):
            publish(whole)


def wait_until_published(run_id: str) -> bool:
    """Wait until MLflow has all of a run; False after too long without progress."""
    folder = folder_of(run_id)
    if folder is None:
        return True
    publisher = publisher_of(folder)
    return not pending(folder) if publisher is None else publisher.wait(PATIENCE)
