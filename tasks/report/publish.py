"""The report of a run, made and put where people look first."""

from pathlib import Path

from prefect.artifacts import create_markdown_artifact

from unfreeze.tasks import tracking
from unfreeze.tasks.machine.notices import in_run, log_notice
from unfreeze.tasks.machine.page import as_markdown, show
from unfreeze.tasks.report.card import model_card
from unfreeze.tasks.report.collect import Report, collect
from unfreeze.tasks.report.page import render, require_place, writing
from unfreeze.tasks.tracking.history import describe_version
from unfreeze.tasks.tracking.server import artifact_page, local_file, mlflow_command

FILE = "report.html"
"""Artifact of a run."""
LINK = "[The whole report]"
"""Begins the last line of a card."""
NOTE = "mlflow.note.content"
"""Tag that MLflow's page shows as the run's description."""


def write_report(run_id: str) -> tuple[Report, str]:
    """Make the report and keep it with the run; returns it and its HTML.

    The run's description, that of the version it registered, and an artifact on the Prefect page say in short what is
    in it and lead to it.

    Raises
    ------
    UserError
        See `collect`.
    """
    report = collect(run_id)
    page = render(report)
    tracking.log_text(run_id, page, FILE)
    link = f"{LINK}({artifact_page(run_id, FILE)})"
    card = model_card(report, link)
    tracking.log_tags(run_id, {NOTE: _with_card(card, tracking.tags_of(run_id).get(NOTE, ""))})
    if report.model is not None:
        name, number = report.model["name"], report.model["version"]
        describe_version(name, number, _with_card(card, report.model["description"]))
    if in_run():
        shown = f"## {as_markdown(report.name)}\n\n{model_card(report, _where(run_id, link))}"
        show(lambda: create_markdown_artifact(shown, key="report", description=as_markdown(_headline(report))))
    return report, page


def report_at_end(run_id: str) -> list[str]:
    """As `write_report`, at the end of a flow: a report that cannot be made does not undo the training.

    Returns
    -------
    list of str
        What is worth a look; nothing where there is no report.
    """
    if not tracking.wait_until_delivered(run_id):
        log_notice("a report is made of what MLflow has; `unfreeze sync` makes it once MLflow has everything")
        return []
    return _try_to_write(run_id)


def report_if_owed(run_id: str) -> None:
    """Make the report of a finished run that has none, because MLflow was away at its end."""
    if tracking.get_run(run_id).info.status == "FINISHED" and FILE not in tracking.artifacts(run_id):
        _try_to_write(run_id)


def _try_to_write(run_id: str) -> list[str]:
    try:
        report, _ = write_report(run_id)
    except Exception as error:
        log_notice(f"the report failed ({type(error).__name__}: {error}); make it with: unfreeze report {run_id}")
        return []
    return [each.text for each in report.suspicions]


def report_to_file(run_id: str, out: Path | None) -> dict[str, str]:
    """Make a run's report again, keep it with the run, and copy it to a file; says where both are.

    Raises
    ------
    UserError
        See `collect`; or if the file cannot be written.
    """
    if out is not None:
        require_place(out)
    _, page = write_report(run_id)
    found = {"run_id": run_id, "artifact": str(local_file(run_id, FILE) or artifact_page(run_id, FILE))}
    if out is not None:
        with writing(out):
            out.write_text(page, encoding="utf-8")
        found["out"] = str(out)
    return found


def _with_card(card: str, described: str) -> str:
    """A description with the card in the place of an earlier one; what was decided or written beside it stays."""
    _, found, rest = described.partition(LINK)
    beside = rest.partition("\n")[2] if found else described
    return f"{card}\n\n{beside.strip()}".strip()


def _where(run_id: str, link: str) -> str:
    """Where the report is, for a page that MLflow does not serve."""
    if tracking.page(run_id) is not None:
        return link
    return f"The whole report is `{local_file(run_id, FILE)}`; with `{mlflow_command()}` it opens in MLflow."


def _headline(report: Report) -> str:
    return report.verdict[0] if report.verdict else report.name
