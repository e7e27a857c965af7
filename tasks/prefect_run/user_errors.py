"""Bad input and a server that is gone are reported by their message: a traceback is for our mistakes."""

import logging

import httpx

from unfreeze.models.errors import UserError
from unfreeze.tasks.machine.storage import told_by


class WithoutTraceback(logging.Filter):
    """Replaces the log record of a `UserError`, of a full disk, or of a Prefect server that is gone, by one line."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, those without their traceback."""
        error = record.exc_info[1] if record.exc_info else None
        line = None
        if isinstance(error, UserError | httpx.TransportError):
            line = str(error)
        elif error is not None:
            line = told_by(error)
        if line is not None:
            record.msg, record.args, record.exc_info, record.exc_text = line, (), None, None
        return True


for _name in ("prefect.task_runs", "prefect.flow_runs", "prefect.engine"):
    logging.getLogger(_name).addFilter(WithoutTraceback())
