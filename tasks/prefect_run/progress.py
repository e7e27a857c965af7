"""How far a long step is: a bar in a terminal, plain lines elsewhere, and an artifact on the Prefect page."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.logging import get_run_logger
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from unfreeze.tasks.prefect_run.notices import in_run
from unfreeze.tasks.prefect_run.showing import show

SECONDS_BETWEEN_REPORTS = 10
"""A step that is done sooner makes no progress artifact and no line in the middle."""

Advance = Callable[[int, int], None]
"""Called with (done, total) as often as one likes."""


class ProgressArtifact:
    """A bar on the Prefect page of the run under way, which appears with its first value."""

    def __init__(self) -> None:
        self._id: UUID | None = None
        self.is_shown = False

    def set(self, percent: float, line: str) -> None:
        """Show so many percent, and a line about them."""
        self.is_shown = True

        def make() -> None:
            if self._id is None:
                self._id = cast(UUID, create_progress_artifact(percent, description=line))
            else:
                update_progress_artifact(self._id, percent, description=line)

        show(make)


@contextmanager
def progress(text: str, note: Callable[[], str] = lambda: "") -> Iterator[Advance]:
    """Report progress on `text`, such as ``Resizing images``, while the block runs.

    `note` returns the latest news, such as the loss, to show next to the numbers.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    last = TextColumn("{task.fields[note]}", markup=False)
    artifact = ProgressArtifact()
    reported = time.monotonic()
    with Progress(*columns, last, console=console, transient=True, disable=not console.is_terminal) as bar:
        shown = bar.add_task(text, total=None, note="")

        def advance(done: int, total: int) -> None:
            nonlocal reported
            bar.update(shown, completed=done, total=total, note=note())
            if time.monotonic() - reported < SECONDS_BETWEEN_REPORTS:
                return
            reported = time.monotonic()
            line, percent = f"{text}: {done:,} of {total:,} {note()}".rstrip(), 100 * done / total
            if in_run():
                get_run_logger().info(line)
                artifact.set(percent, line)
            elif not console.is_terminal:
                print(line, file=sys.stderr)

        yield advance
    if artifact.is_shown:
        artifact.set(100.0, f"{text}: done")
