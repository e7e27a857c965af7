"""What the flows' tests share."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flows.tiny import tiny_training


@pytest.fixture(scope="session")
def lines_model(stripes: Path, prefect_api: None) -> dict[str, Any]:
    """A classifier of stripes, registered as `lines-classifier`."""
    from unfreeze.flows.train_images import train_images

    recipe = [{"name": "all", "train": "all", "lr": 0.01, "cycles": 2}]
    params = tiny_training(stripes, keep="trained", recipe=recipe, **{"tracking.model_name": "lines-classifier"})
    result: dict[str, Any] = train_images(params)
    return result


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
