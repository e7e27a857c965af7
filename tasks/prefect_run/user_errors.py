"""Bad input is reported by its message: a traceback is for our mistakes, not for a person's."""

import logging

from unfreeze.models.errors import UserError


class WithoutTraceback(logging.Filter):
    """Replaces the log record of a `UserError` by the error's message."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, that of a `UserError` without its traceback."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, UserError):
            record.msg, record.args, record.exc_info, record.exc_text = str(error), (), None, None
        return True


for _name in ("prefect.task_runs", "prefect.flow_runs"):
    logging.getLogger(_name).addFilter(WithoutTraceback())
