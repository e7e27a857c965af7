"""What the flows' tests share."""

import logging
from collections.abc import Iterator

import pytest


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def log_lines() -> Iterator[list[str]]:
    """Lines that flows and tasks log, each once, whatever handlers and levels an earlier test of the process left."""
    import prefect.main  # noqa: F401  which sets up logging, and would remove the handler

    handler, loggers = _Lines(), [logging.getLogger(f"prefect.{kind}_runs") for kind in ("flow", "task")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    yield handler.lines
    for logger, level in zip(loggers, before, strict=True):
        logger.removeHandler(handler)
        logger.setLevel(level)
