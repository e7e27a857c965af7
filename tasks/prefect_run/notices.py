"""Lines for the person who watches."""

import sys


def log_info(line: str) -> None:
    """A line for the person who watches: the run's log, or stderr outside a run."""
    if in_run():
        from prefect.logging import get_run_logger

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
    context = sys.modules.get("prefect.context")  # without it there is none, and importing Prefect takes two seconds
    return context is not None and (context.FlowRunContext.get() or context.TaskRunContext.get()) is not None
