"""Tables and Markdown of the current run on its Prefect page, and progress.

A thread sends artifacts, so a lost Prefect server neither stalls nor ends a run.
"""

import atexit
import queue
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import Context, copy_context
from functools import cache

from prefect.artifacts import create_table_artifact

from unfreeze.models.errors import printable
from unfreeze.models.store.progress import Advance, progress_bar
from unfreeze.tasks.machine.notices import in_run, log_info, log_notice

SECONDS_BETWEEN_REPORTS = 10
"""Shorter steps have no intermediate line."""
MOST_WAITING = 1000
"""Maximum number of artifacts waiting for Prefect; more are dropped, since MLflow has their content."""
SECONDS_AT_THE_END = 10.0

_waiting: "queue.Queue[tuple[Context, Callable[[], object]]]" = queue.Queue(MOST_WAITING)
_is_away = threading.Event()
"""Set while Prefect does not answer."""


def show(make: Callable[[], object]) -> None:
    """Queue a call that adds to the current run's Prefect page; returns at once."""
    _sender()
    try:
        _waiting.put_nowait((copy_context(), make))
    except queue.Full:
        return


def wait_until_shown() -> None:
    """Wait briefly until the page is complete, unless Prefect does not answer."""
    end = time.monotonic() + SECONDS_AT_THE_END
    while _waiting.unfinished_tasks and not _is_away.is_set() and time.monotonic() < end:
        time.sleep(0.05)


@cache
def _sender() -> threading.Thread:
    thread = threading.Thread(target=_send, daemon=True)
    thread.start()
    atexit.register(wait_until_shown)
    return thread


def _send() -> None:
    while True:
        context, make = _waiting.get()
        try:
            context.run(make)
            _is_away.clear()
        except Exception as error:  # from Prefect, its client, or the network
            if not _is_away.is_set():
                context.run(
                    log_notice,
                    f"Prefect does not answer ({type(error).__name__}: {error}); the run continues without its page",
                )
            _is_away.set()
        finally:
            _waiting.task_done()


def artifact_key(text: str) -> str:
    """A key that Prefect accepts: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def as_markdown(text: str) -> str:
    """Escape a text for Markdown, on one line: nothing in it becomes a link, a table or HTML."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&])", r"\\\1", " ".join(printable(text).split()))


def show_table(rows: Sequence[Mapping[str, object]], key: str, title: str) -> None:
    """Show a table on the page, one mapping per row."""
    if in_run():
        table = [dict(row) for row in rows]
        show(lambda: create_table_artifact(table, key=artifact_key(key), description=as_markdown(title)))


@contextmanager
def progress(text: str, note: Callable[[], str] = lambda: "") -> Iterator[Advance]:
    """Report progress while the block runs: `progress_bar`, and a line every 10 s elsewhere and in the run's log."""
    reported = time.monotonic()
    with progress_bar(text, note) as show_bar:

        def advance(done: int, total: int) -> None:
            nonlocal reported
            show_bar(done, total)
            if time.monotonic() - reported >= SECONDS_BETWEEN_REPORTS:
                reported = time.monotonic()
                if in_run() or not sys.stderr.isatty():
                    log_info(f"{text}: {done:,} of {total:,} {note()}".rstrip())

        yield advance
