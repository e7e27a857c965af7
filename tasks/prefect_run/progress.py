"""How far a long step is: a bar in a terminal, plain lines elsewhere, and an artifact on the Prefect page."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging import get_run_logger
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_REPORTS = 10
"""A step that is done sooner makes no progress artifact and no line in the middle."""

Advance = Callable[[int, int], None]
"""Called with (done, total) as often as one likes."""


@contextmanager
def progress(text: str, note: Callable[[], str] = lambda: "") -> Iterator[Advance]:
    """Report progress on `text`, such as ``Resizing images``, while the block runs.

    `note` returns the latest news, such as the loss, to show next to the numbers.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    last = TextColumn("{task.fields[note]}")
    artifact: UUID | None = None
    reported = time.monotonic()
    with Progress(*columns, last, console=console, transient=True, disable=not console.is_terminal) as bar:
        shown = bar.add_task(text, total=None, note="")

        def advance(done: int, total: int) -> None:
            nonlocal artifact, reported
            bar.update(shown, completed=done, total=total, note=note())
            if time.monotonic() - reported < SECONDS_BETWEEN_REPORTS:
                return
            reported = time.monotonic()
            line, percent = f"{text}: {done:,} of {total:,} {note()}".rstrip(), 100 * done / total
            if in_run():
                get_run_logger().info(line)
                if artifact is None:
                    artifact = cast(UUID, create_progress_artifact(percent, description=line))
                else:
                    update_progress_artifact(artifact, percent, description=line)
            elif not console.is_terminal:
                print(line, file=sys.stderr)

        yield advance
    if artifact is not None:
        update_progress_artifact(artifact, 100.0, description=f"{text}: done")


def log_info(line: str) -> None:
    """A line for the person who watches: the run's log, or stderr outside a run."""
    if in_run():
        get_run_logger().info(line)
    else:
        print(line, file=sys.stderr)


def log_notice(line: str) -> None:
    """A line that is news even in a terminal, where the run's log is kept quiet for the bars."""
    log_info(line)
    if in_run() and sys.stderr.isatty():
        print(line, file=sys.stderr)


def in_run() -> bool:
    """Whether a Prefect run is under way that could show something."""
    return FlowRunContext.get() is not None or TaskRunContext.get() is not None
