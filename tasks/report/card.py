"""A report in a page of Markdown: the card of a registered model, the description of a run."""

from unfreeze.tasks.machine.page import as_markdown
from unfreeze.tasks.report.collect import Report

LONGEST = 4_500
"""Characters: MLflow keeps 5,000 of a description."""
MOST_SETTINGS, LONGEST_VALUE = 12, 200


def model_card(report: Report, where: str) -> str:
    """What the model is, how good, what to beware of and what it was made from; `where` leads to the whole report."""
    sections = [
        "\n".join(f"- {as_markdown(line[:1].upper() + line[1:])}" for line in report.verdict)
        or "Nothing was evaluated.",
        _titled("Worth a look", [each.text for each in report.suspicions]),
        _titled("Made from", _origin(report)),
        _titled("Settings other than the defaults", _settings(report)),
    ]
    text = "\n\n".join(each for each in sections if each)
    end = f"\n\n{where}"
    return text[: LONGEST - len(end)] + end


def _titled(title: str, lines: list[str]) -> str:
    return f"**{title}**\n\n" + "\n".join(f"- {as_markdown(line)}" for line in lines) if lines else ""


def _origin(report: Report) -> list[str]:
    counts = ", ".join(f"{count:,} {split}" for split, count in report.splits.items() if count)
    lines = [f"{report.source}: {counts} {report.rows}", f"run {report.run_id}, {report.began}"]
    if report.starts:
        start = report.starts[-1]
        names = ("unfreeze", "commit", "uncommitted changes", "processor", "GPU")
        lines.append("; ".join(f"{name} {start[name]}" for name in names if start.get(name)))
    return lines


def _settings(report: Report) -> list[str]:
    changed = [each for each in report.settings if each.default is not None and each.name != "data.source"]
    lines = [f"{each.name}: {each.value[:LONGEST_VALUE]}" for each in changed[:MOST_SETTINGS]]
    more = len(changed) - MOST_SETTINGS
    return [*lines, f"and {more} more"] if more > 0 else lines
