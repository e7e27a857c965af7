"""Lines for the person who watches."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from unfreeze.models.errors import one_line, printable


def log_info(line: str) -> None:
    """A line for the person who watches: the run's log, or stderr outside a run; names in it may be anything."""
    line = printable(line)
    if in_run():
        from prefect.logging import get_run_logger

        get_run_logger().info(line)
    else:
        print(line, file=sys.stderr)


def log_notice(line: str) -> None:
    """A line that is news even in a terminal, where the run's log is kept quiet for the bars."""
    log_info(line)
    if in_run() and sys.stderr.isatty():
        print(printable(line), file=sys.stderr)


def in_run() -> bool:
    """Whether a Prefect run is under way that could show something."""
    context = sys.modules.get("prefect.context")  # without it there is none, and importing Prefect takes two seconds
    return context is not None and (context.FlowRunContext.get() or context.TaskRunContext.get()) is not None


@contextmanager
def as_warning(name: str) -> Iterator[None]:
    """Turn what fails in the block into a warning that names it: nothing else depends on it."""
    try:
        yield
    except Exception as error:
        log_notice(f"warning: {name} cannot be made ({type(error).__name__}: {one_line(error)})")
