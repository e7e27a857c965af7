"""Results of a step, logged to MLflow and the Prefect page, and stored as JSON for reports."""

import base64
import json
from typing import Any

import numpy as np

from unfreeze.models.evaluation.results import Card, Chart, Counts, Findings, Gain
from unfreeze.tasks import tracking
from unfreeze.tasks.machine.notices import as_warning, log_info, log_notice
from unfreeze.tasks.machine.page import show_table
from unfreeze.tasks.report.contents import Part, part_of
from unfreeze.tasks.tracking.files import log_figure

FOLDER = "report"
"""Artifact folder of the parts."""


def keep_findings(run_id: str, found: Findings, part: str, step: int = 0) -> dict[str, float]:
    """Log a step's findings; returns the finite metrics.

    Parameters
    ----------
    run_id
        The MLflow run.
    found
        Findings of the step.
    part
        Name of the report's part; a new name is a new section of the report.
    step
        Step of the metrics.
    """
    metrics = tracking.as_float(found.metrics)
    if metrics:
        tracking.log_metrics(run_id, metrics, step)
    found.complete()
    for path, frame in found.frames.items():
        with as_warning(path):
            tracking.log_frame(run_id, frame, path)
    for path, text in found.texts.items():
        with as_warning(path):
            tracking.log_text(run_id, text, path)
    for key, title, rows in found.tables:
        with as_warning(title):
            show_table(rows, key, title)
    for path, (title, draw) in found.figures.items():
        log_figure(run_id, draw, path, title)
    with as_warning(f"part {part} of the report"):
        keep_part(run_id, part, found)
    for line in found.lines:
        log_info(line)
    for line in found.notices:
        log_notice(line)
    return metrics


def keep_part(run_id: str, name: str, found: Findings) -> None:
    """Store findings as part `name` of the run's report."""
    tracking.log_text(run_id, json.dumps(vars(part_of(found)), default=_plain), f"{FOLDER}/{name}.json")


def parts_of(run_id: str) -> dict[str, Part]:
    """All parts of the run's report, by name."""
    found = {}
    for path in tracking.artifacts(run_id, FOLDER):
        local = tracking.fetch(run_id, path)
        if local is None or not path.endswith(".json"):
            continue
        try:
            part = Part(**json.loads(local.read_text()))
            part.gains = [Gain(*values) for values in part.gains]
            part.charts = [Chart(*values) for values in part.charts]
            part.counts = [Counts(*values) for values in part.counts]
            part.cards = [Card(title, facts, *map(_bytes, images)) for title, facts, *images in part.cards]
        except (ValueError, TypeError) as error:
            log_notice(f"warning: {path} of run {run_id} is damaged ({error}); the report lacks it")
            continue
        found[path.removeprefix(f"{FOLDER}/").removesuffix(".json")] = part
    return found


def _bytes(text: Any) -> bytes | None:
    return None if text is None else base64.b64decode(text)


def _plain(value: Any) -> Any:
    """Convert bytes to base64, NumPy numbers to numbers, everything else to text."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else str(value)
