"""Lines for the person who watches."""

import sys

from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging import get_run_logger


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
