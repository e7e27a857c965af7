"""Bad input and a server that is gone are reported by their message: a traceback is for our mistakes."""

import logging

import httpx

from unfreeze.models.errors import UserError


class WithoutTraceback(logging.Filter):
    """Replaces the log record of a `UserError`, or of a Prefect server that is gone, by the error's message."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, those without their traceback."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, UserError | httpx.TransportError):
            record.msg, record.args, record.exc_info, record.exc_text = str(error), (), None, None
        return True


for _name in ("prefect.task_runs", "prefect.flow_runs"):
    logging.getLogger(_name).addFilter(WithoutTraceback())
