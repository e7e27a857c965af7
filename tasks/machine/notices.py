"""Log lines for the user; bad input and lost servers are reported without a traceback."""

import io
import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx

from unfreeze.models.errors import UserError, one_line, printable
from unfreeze.tasks.machine.storage import told_by

if TYPE_CHECKING:  # takes half a second, and most commands draw nothing
    from matplotlib.figure import Figure


def log_info(line: str) -> None:
    """Log a line to the Prefect run under way, or to stderr outside of one; control characters are escaped."""
    line = printable(line)
    if in_run():
        from prefect.logging import get_run_logger

        get_run_logger().info(line)
    else:
        print(line, file=sys.stderr)


def log_notice(line: str) -> None:
    """Log a line that also appears in a terminal, where the run's log is kept quiet for the bars."""
    log_info(line)
    if in_run() and sys.stderr.isatty():
        print(printable(line), file=sys.stderr)


def in_run() -> bool:
    """Whether a Prefect run is under way."""
    context = sys.modules.get("prefect.context")  # absent outside of runs, and importing Prefect takes two seconds
    return context is not None and (context.FlowRunContext.get() or context.TaskRunContext.get()) is not None


@contextmanager
def as_warning(name: str) -> Iterator[None]:
    """Turn an error in the block, on which nothing else depends, into a warning that names it."""
    try:
        yield
    except Exception as error:
        log_notice(f"warning: {name} cannot be made ({type(error).__name__}: {one_line(error)})")


def rendered(draw: Callable[[], "Figure"], name: str, **options: Any) -> bytes | None:
    """A figure as an image file; None, with a warning, if drawing fails, since nothing else depends on it."""
    with as_warning(f"figure {name}"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        buffer = io.BytesIO()
        draw().savefig(buffer, bbox_inches="tight", **options)
        return buffer.getvalue()
    return None


class WithoutTraceback(logging.Filter):
    """Log a `UserError`, a full disk or a lost Prefect server as one line; tracebacks are for bugs."""

    _said = ""
    """What the latest step failed with, which its flow would say again."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Pass every record but a repetition, these without their traceback."""
        error = record.exc_info[1] if record.exc_info else None
        line = None
        if isinstance(error, UserError | httpx.TransportError):
            line = str(error)
        elif error is not None:
            line = told_by(error)
        if line is not None:
            record.msg, record.args, record.exc_info, record.exc_text = line, (), None, None
            is_repetition = record.name != "prefect.task_runs" and line == WithoutTraceback._said
            WithoutTraceback._said = "" if is_repetition else line
            return not is_repetition
        return True


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line of Prefect says more than that a step went as planned, which its page shows.

    A step that Ctrl-C or a cancellation stops is no crash: the flow's own last line says how to continue.
    """
    line = record.getMessage()
    if "Crash" in line and "aborted by an interrupt signal" in line:
        return False
    if re.match("Finished in state Failed.*UserError: ", line):  # its own line says it already
        return False
    return record.levelno != logging.INFO or not re.match(
        r"Finished in state C(omplet|ach)ed|Running hook|Hook '", line
    )


for _name in ("prefect.task_runs", "prefect.flow_runs", "prefect.engine"):
    logging.getLogger(_name).addFilter(WithoutTraceback())
    logging.getLogger(_name).addFilter(_is_news)
