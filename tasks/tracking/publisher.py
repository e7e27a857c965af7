"""Publication of runs: from a thread while they train, so no server stalls the training, and afterwards."""

import threading
import time
from contextlib import suppress
from contextvars import copy_context
from pathlib import Path
from typing import Any, NamedTuple

from unfreeze.models.errors import UserError
from unfreeze.tasks.machine.environment import tracking_store
from unfreeze.tasks.machine.notices import log_notice
from unfreeze.tasks.machine.servers import NoAnswerError
from unfreeze.tasks.tracking.folder import RunFolder, end_if_gone, folder_of, opened, remove, run_folders, set_aside
from unfreeze.tasks.tracking.publish import TakenOver, pending, publish, refused
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


class Stopped(Exception):
    """The run has ended; the next command publishes the rest."""


_open: dict[Path, "Publisher"] = {}
"""Folder of a run under way in this process -> its publisher."""


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
        self._progressed, self._megabytes = time.monotonic(), 0.0  # the latest request, or the start of the outage
        self._given_up = False  # whether a wait has failed since the last success
        # In this run's context, for its lines to reach this run's log.
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._publish_all,), name=f"publisher {folder.key}", daemon=True
        )
        self._thread.start()
        folder.keeps_unwritten = True
        _open[folder.path] = self

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
        self.folder.commit()
        with self._changed:
            wanted, self._is_awaited = self._commits, True
            least = time.monotonic() + (0.0 if self._given_up else min(seconds, SECONDS_FOR_ONE_ATTEMPT))
            self._changed.notify_all()
            while self._published < wanted and self._thread.is_alive():
                # One second per megabyte of an upload.
                if time.monotonic() >= max(least, self._progressed + self._megabytes + seconds):
                    self._given_up = True
                    return False
                self._changed.wait(0.2)
            self._is_awaited = False
            return self._published >= wanted and not self.folder.unwritten

    def finish(self) -> None:
        """Wait a limited time for the ended run to be published; the rest stays in its folder, and a line reports it.

        Raises
        ------
        UserError
            If the folder's disk has no space for data of a finished run that MLflow lacks too.
        """
        folder, patience = self.folder, PATIENCE_WHEN_STOPPED if self.folder.state == "KILLED" else PATIENCE
        if folder.state != "FINISHED" and self.invalid is not None:
            patience = 0.0
        try:
            with suppress(KeyboardInterrupt):  # not waiting loses nothing
                self.wait(patience)
        finally:
            del _open[folder.path]
            with self._changed:
                self._ending = True
                self._changed.notify_all()
            self._thread.join(2)
            folder.keeps_unwritten = False
        if count := pending(folder):
            why = f" ({self.trouble})" if self.trouble else ""
            log_notice(
                f"MLflow lacks {count} changes of run {folder.shown_id}{why}; they are in {folder.path}, and "
                "`unfreeze sync` publishes them"
            )
        if folder.unwritten and folder.state == "FINISHED":
            raise UserError(
                f"{len(folder.unwritten)} changes of run {folder.shown_id} could be kept neither in MLflow nor in "
                f"{folder.path}, whose disk is full; free some space there, and `unfreeze resume {folder.shown_id}`"
            )

    def _progress(self, megabytes: float) -> None:
        if self._ending:
            raise Stopped
        with self._changed:
            if self.trouble is None:
                self._progressed, self._megabytes = time.monotonic(), megabytes

    def _publish_all(self) -> None:
        attempts = 0
        while not self._ending:
            commits, is_first = self._commits, not self._published or attempts > 0
            try:
                if is_first:
                    require_answer(SECONDS_FOR_ONE_ATTEMPT)
                publish(self.folder, self._progress)
            except Stopped:
                return
            except TakenOver as error:
                log_notice(f"{error}; nothing more is sent")
                return
            except Exception as error:  # errors of a server or its client must not reach the training
                if not attempts:
                    log_notice(
                        f"MLflow at {tracking_store()} does not answer ({reason_of(error)}); the run continues, and "
                        f"what it logs is kept in {self.folder.path}"
                    )
                self._pause(PAUSES[min(attempts, len(PAUSES) - 1)], error)
                attempts += 1
                continue
            if attempts:
                log_notice(f"MLflow answers again, and has what run {self.folder.shown_id} logged meanwhile")
            with self._changed:
                self.trouble, self._published, self._progressed = None, commits, time.monotonic()
                self._given_up = False
                self._changed.notify_all()
            if is_first:
                sync(finished=False)
            attempts = 0
            self._rest()

    def _pause(self, seconds: float, error: Exception) -> None:
        with self._changed:
            if self.trouble is None:
                self._progressed, self._megabytes = time.monotonic(), 0.0
            self.trouble, end = reason_of(error), time.monotonic() + seconds
            self.invalid = error if isinstance(error, UserError) and not isinstance(error, NoAnswerError) else None
            self._changed.notify_all()
            while not self._ending and not self._is_awaited and time.monotonic() < end:
                self._changed.wait(end - time.monotonic())
            self._is_awaited = False

    def _rest(self) -> None:
        """Wait for a commit, here or by another process, or the next sign of life."""
        end = time.monotonic() + SECONDS_BETWEEN_SIGNS
        with self._changed:
            while not self._ending and self._commits == self._published and time.monotonic() < end:
                self._changed.wait(SECONDS_BETWEEN_LOOKS)
                if pending(self.folder):
                    return


def publisher_of(folder: RunFolder) -> Publisher | None:
    """The publisher of a run or its parent in this process; None for a run that is not under way."""
    return _open.get(folder.whole)


class Published(NamedTuple):
    """Outcome of publishing a folder: changes left, the reason, and news such as the version that now answers."""

    run_id: str
    left: int
    why: str = ""
    news: tuple[str, ...] = ()


def sync(finished: bool = True) -> list[Published]:
    """Publish all runs that no process holds; those of killed processes end as KILLED.

    Without `finished`, finished runs are left to the command that reports them.
    """
    found = (_sync(folder) for folder in run_folders() if finished or folder.state != "FINISHED")
    return [each for each in found if each is not None]


def _sync(folder: RunFolder) -> Published | None:
    is_free, count, before = end_if_gone(folder), pending(folder), folder.published()
    if not is_free:
        return Published(folder.shown_id, count, "its process is under way and publishes it") if count else None
    try:
        if count:
            publish(folder)
    except TakenOver as error:
        return Published(folder.shown_id, count, f"{error}; the folder is outdated and kept as {set_aside(folder)}")
    except Exception as error:  # from any library involved
        return Published(folder.shown_id, pending(folder), f"MLflow at {tracking_store()}: {reason_of(error)}")
    now, why = folder.published(), refused(folder)
    remove_if_done(folder)
    new = [now[each]["line"] for each in ("decision", "model") if each in now and each not in before]
    done = Published(now["id"], len(why), f"refused: {why[0]}" if why else "", tuple(new[:1]))
    return done if count or why else None


def remove_if_done(folder: RunFolder) -> None:
    """Remove the folder of a finished and fully published run."""
    if folder.refresh().state == "FINISHED" and not pending(folder) and not refused(folder):
        remove(folder)


def commit(folder: RunFolder, **entries: Any) -> None:
    """Commit to a run's folder, and have it published; see `RunFolder.commit`."""
    folder.commit(**entries)
    publish_now(folder)


def publish_now(folder: RunFolder) -> None:
    """Have a run published: by its publisher, by the process that holds it, or if none does, at once."""
    if (publisher := publisher_of(folder)) is not None:
        publisher.poke()
    elif (whole := opened(folder.whole)) is not None and end_if_gone(whole):
        publish(whole)


def wait_until_published(run_id: str) -> bool:
    """Wait until MLflow has all of a run; False after too long without progress."""
    folder = folder_of(run_id)
    if folder is None:
        return True
    publisher = publisher_of(folder)
    return not pending(folder) if publisher is None else publisher.wait(PATIENCE)
