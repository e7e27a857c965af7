"""Publishing while a run is under way, by a thread that no server can stall the training with; and afterwards."""

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
"""At what other processes of the run have committed."""
PAUSES = (0.5, 1, 2, 4, 8, 15)
"""Seconds between attempts while MLflow does not answer; the last one repeats."""
PATIENCE = 30.0
"""Seconds without any progress that a command waits for MLflow at its end."""
PATIENCE_WHEN_STOPPED = 10.0
"""The same for one that was stopped: Prefect's worker kills what has not ended 30 s after its signal."""
PATIENCE_AT_THE_START = 20.0
"""The same before a run begins without MLflow; one that does not answer at all is given 4 s."""
SECONDS_FOR_ONE_ATTEMPT = 5.0
"""What is left of either where MLflow has not answered for that long already."""
LONGEST_ATTEMPT = 60.0
"""Seconds to wait for an attempt that a run left behind: longer than SQLite waits for a database that is locked."""


class Stopped(Exception):
    """The run has ended; whoever comes next publishes the rest."""


_open: dict[str, "Publisher"] = {}
"""Key of a run that this process has under way -> what publishes it."""


class Publisher:
    """Publishes one run's folder from a thread, whenever something was committed."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.trouble: str | None = None
        """Why MLflow could not be reached at the last attempt."""
        self.invalid: UserError | None = None
        """What is wrong with the run or the store, where waiting does not help."""
        self._changed = threading.Condition(threading.RLock())
        self._commits, self._published, self._ending, self._is_awaited = 1, 0, False, False
        self._since = self._progressed = time.monotonic()  # when the trouble began; of the latest request
        self._megabytes, self._given_up = 0.0, 0.0
        # In this run's context, so that its lines go to this run's log.
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._publish_all,), name=f"publisher {folder.key}", daemon=True
        )
        self._thread.start()
        folder.keeps_unwritten = True
        _open[folder.key] = self

    def poke(self) -> None:
        """Tell the thread of a commit."""
        with self._changed:
            self._commits += 1
            self._changed.notify_all()

    def begin(self) -> None:
        """Wait until MLflow has the run, or until it is clear that it does not answer; raises what is `invalid`."""
        with self._changed:
            self._changed.wait_for(lambda: self._published or self.trouble is not None, PATIENCE_AT_THE_START)
        if self.invalid is not None:
            raise self.invalid

    def wait(self, seconds: float) -> bool:
        """Wait until everything is published; False once MLflow has taken nothing for so many seconds.

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
                    quiet = now - max(began, self._progressed) - self._megabytes  # a second for each of an upload
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
        """Stop the thread after the request under way, without waiting for more than a moment."""
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
            except Exception as error:  # no error of a server or its client may reach the training
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
        """Wait for something to do: a commit here, one of another process, or the next sign of life."""
        with self._changed:
            while not self._ending and self._commits == self._published:
                if time.monotonic() - signed > SECONDS_BETWEEN_SIGNS:
                    return
                self._changed.wait(SECONDS_BETWEEN_LOOKS)
                if pending(self.folder):
                    return


_later: ExitStack | None = None
"""What the end of a block of `staying_open` calls."""


def publisher_of(folder: RunFolder) -> Publisher | None:
    """What publishes a run, or the one that it is part of, in this process; None for a run that is not under way."""
    return _open.get(folder.key) or _open.get(folder.path.parents[1].name)


@contextmanager
def staying_open() -> Iterator[None]:
    """Let runs whose blocks end within this one stay open until its end: a retraining logs to what it has trained."""
    global _later  # noqa: PLW0603
    with ExitStack() as _later:
        try:
            yield
        finally:
            _later = None


def at_the_end(close: Callable[[], None]) -> None:
    """Call it now, or at the end of the block of `staying_open` under way."""
    if _later is None:
        close()
    else:
        _later.callback(close)


def finish(publisher: Publisher, patience: float) -> None:
    """Give MLflow some time to take the rest of a run that ended; what is left stays in its folder, and a line says so.

    Raises
    ------
    UserError
        If the folder's disk has no space for what MLflow does not have either.
    """
    folder = publisher.folder
    try:
        with suppress(KeyboardInterrupt):  # nothing is lost by not waiting
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
    """Remove the folder of a finished run of which MLflow has everything."""
    if folder.refresh().state == "FINISHED" and not pending(folder) and not refused(folder):
        remove(folder)


class Published(NamedTuple):
    """What became of a run's folder: changes that are left, why, and news such as the version that answers now."""

    run_id: str
    left: int
    why: str = ""
    news: tuple[str, ...] = ()


def sync() -> list[Published]:
    """Publish the folders of all runs that no process has; those of killed processes end as KILLED."""
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
        return Published(shown_id(folder), count, "its process is under way and publishes it")
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
        return Published(shown_id(folder), count, f"{error}; the folder is outdated and kept as {set_aside(folder)}")
    except Exception as error:  # of any library that takes part
        return Published(shown_id(folder), pending(folder), f"MLflow at {tracking_store()}: {reason_of(error)}")
    now, why = folder.published(), refused(folder)
    new = [now[each]["line"] for each in ("decision", "model") if each in now and each not in before]
    done = Published(shown_id(folder), len(why), f"refused: {why[0]}" if why else "", tuple(new[:1]))
    remove_if_done(folder)
    return done


def shown_id(folder: RunFolder) -> str:
    """MLflow's id of a run, or its key before it has one."""
    return str(folder.published().get("id", folder.key))


def _publish_stopped() -> None:
    """Publish what killed processes left, as far as possible; a finished run is left to whoever makes its report."""
    for folder in run_folders():
        if end_if_gone(folder) and folder.state != "FINISHED" and pending(folder):
            with suppress(Exception):
                publish(folder)


def publish_now(folder: RunFolder) -> None:
    """Publish a run that is not under way in this process; one that is publishes itself."""
    publisher = publisher_of(folder)
    if publisher is not None:
        publisher.poke()
        return
    whole = opened(folder.path.parents[1]) if folder.path.parent.name == PARTS else opened(folder.path)
    if whole is not None and end_if_gone(whole):  # else whoever holds it publishes it
        with suppress(Busy):
            publish(whole)


def wait_until_published(run_id: str) -> bool:
    """Wait for MLflow to have all of a run; False if it takes nothing for too long."""
    folder = folder_of(run_id)
    if folder is None:
        return True
    publisher = publisher_of(folder)
    return not pending(folder) if publisher is None else publisher.wait(PATIENCE)
