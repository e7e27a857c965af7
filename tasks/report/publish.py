"""Publication of a run's report, in full and as a summary."""

from pathlib import Path

from prefect.artifacts import create_markdown_artifact

from unfreeze.tasks import tracking
from unfreeze.tasks.machine.notices import in_run, log_notice
from unfreeze.tasks.machine.page import as_markdown, show
from unfreeze.tasks.report.collect import collect
from unfreeze.tasks.report.contents import Report
from unfreeze.tasks.report.page import render, require_place, write_file
from unfreeze.tasks.tracking.server import artifact_page, local_file, mlflow_command

FILE = "report.html"
"""Artifact with the report."""
LINK = "[The whole report]"
"""Start of a card's last line."""
NOTE = "mlflow.note.content"
"""Tag that MLflow's page shows as the run's description."""
LONGEST = 4_500
"""Maximum characters of a card: MLflow keeps 5,000 of a description."""


def write_report(run_id: str) -> tuple[Report, str]:
    """Make the report and store it with the run; returns it and its HTML.

    The run's description, that of its registered version, and an artifact on the Prefect page summarise and link it.

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
        tracking.client().update_model_version(name, number, _with_card(card, report.model["description"]))
    if in_run():
        if report.address is None:  # no server serves the file
            place = local_file(run_id, FILE)
            link = f"The whole report is `{place}`; with `{mlflow_command()}` it opens in MLflow."
        shown = f"## {as_markdown(report.name)}\n\n{model_card(report, link)}"
        headline = as_markdown(report.verdict[0] if report.verdict else report.name)
        show(lambda: create_markdown_artifact(shown, key="report", description=headline))
    return report, page


def report_at_end(run_id: str) -> list[str]:
    """Call `write_report` at the end of a flow, where a failing report must not fail the training.

    Returns
    -------
    list of str
        Findings worth a look; empty without a report.
    """
    if not tracking.wait_until_published(run_id):
        log_notice("a report is made of what MLflow has; `unfreeze sync` makes it once MLflow has everything")
        return []
    try:
        report, _ = write_report(run_id)
    except Exception as error:
        log_notice(f"the report failed ({type(error).__name__}: {error}); make it with: unfreeze report {run_id}")
        return []
    return [each.text for each in report.suspicions]


def report_if_owed(run_id: str) -> None:
    """Make the report of a finished run that has none because MLflow was unavailable at its end."""
    if tracking.get_run(run_id).info.status == "FINISHED" and FILE not in tracking.artifacts(run_id):
        report_at_end(run_id)


def report_to_file(run_id: str, out: Path | None) -> dict[str, str]:
    """Remake a run's report, store it with the run, and copy it to a file; returns where both are.

    Raises
    ------
    UserError
        See `collect`; also if the file cannot be written.
    """
    if out is not None:
        require_place(out)
    _, page = write_report(run_id)
    found = {"run_id": run_id, "artifact": str(local_file(run_id, FILE) or artifact_page(run_id, FILE))}
    if out is not None:
        write_file(out, page)
        found["out"] = str(out)
    return found


def model_card(report: Report, where: str) -> str:
    """The report as Markdown, for a registered model and a run; `where` links to the full report."""
    made = [f"{report.source}, run {report.run_id}, {report.began}"]
    if report.starts:
        made += [f"{name} {report.starts[-1][name]}" for name in ("unfreeze", "commit") if name in report.starts[-1]]
    sections = {
        "": [line[:1].upper() + line[1:] for line in report.verdict] or ["Nothing was evaluated."],
        "**Worth a look**\n\n": [each.text for each in report.suspicions],
        "**Made from**\n\n": ["; ".join(made)],
    }
    listed = {title: "\n".join(f"- {as_markdown(line)}" for line in lines) for title, lines in sections.items()}
    text = "\n\n".join(f"{title}{lines}" for title, lines in listed.items() if lines)
    end = f"\n\n{where}"
    return text[: LONGEST - len(end)] + end


def _with_card(card: str, described: str) -> str:
    """Replace an earlier card in a description, or add it; other text stays."""
    _, found, rest = described.partition(LINK)
    beside = rest.partition("\n")[2] if found else described
    return f"{card}\n\n{beside.strip()}".strip()
