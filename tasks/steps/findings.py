"""Findings into the MLflow run and onto the Prefect page."""

from unfreeze.models.evaluation.results import Findings
from unfreeze.tasks import tracking
from unfreeze.tasks.machine.notices import as_warning, log_info, log_notice
from unfreeze.tasks.machine.page import show_table
from unfreeze.tasks.report.parts import keep_part
from unfreeze.tasks.tracking.files import log_figure


def keep_findings(run_id: str, found: Findings, part: str, step: int = 0) -> dict[str, float]:
    """Log everything that was found out; returns the finite metrics.

    Parameters
    ----------
    run_id
        The MLflow run.
    found
        What was found out.
    part
        Name of the report's part that shows it, see `unfreeze.tasks.report`.
    step
        Of the metrics.
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
