"""Progress bar of a step."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Advance = Callable[[int, int], None]
"""Called with (done, total) any number of times."""


@contextmanager
def progress_bar(text: str, note: Callable[[], str] = lambda: "") -> Iterator[Advance]:
    """Show a bar while the block runs, in a terminal or a notebook.

    Parameters
    ----------
    text
        Name of the activity, such as ``Resizing images``.
    note
        Returns a note, such as the latest loss, to show beside the numbers.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    last, is_hidden = TextColumn("{task.fields[note]}", markup=False), not (console.is_terminal or console.is_jupyter)
    with Progress(*columns, last, console=console, transient=True, disable=is_hidden) as bar:
        shown = bar.add_task(text, total=None, note="")
        yield lambda done, total: bar.update(shown, completed=done, total=total, note=note())
