"""The HTML page of a report: a template filled with a `Report`, all content embedded."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from unfreeze.models.errors import UserError
from unfreeze.models.evaluation.results import Chart, Explanation
from unfreeze.models.evaluation.verdict import SECTION_NAMES, named, number
from unfreeze.tasks.machine.notices import rendered
from unfreeze.tasks.report.charts import plot
from unfreeze.tasks.report.contents import LABEL_ERRORS, Part, Report

_FOLDER = Path(__file__).parent
TITLES = {
    "search": "The search",
    "choice": "The models compared",
    "refit": "The model refitted",
    "valid": "Validation rows",
    "test": "Test rows",
    "comparison": "Against the champion",
    "drift": "Drift against the champion's data",
    "data": "Data and network",
}
"""Parts in display order; others follow."""
NOT_SHOWN = ("baseline",)
"""Parts whose numbers are already in the verdict."""
AS_CARDS = "top_losses.png"
"""Figure that is shown as cards instead."""
LONGEST_CELL = 300
"""Maximum characters of a table cell."""
LARGE_PNG = 150_000
"""Bytes from which a PNG is considered a photo, which is several times smaller as a JPEG."""


def fill(template: str, **values: Any) -> str:
    """Fill in a template; returns HTML with its style embedded."""
    environment = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=False
    )
    environment.filters |= {
        "cell": _cell,
        "short": number,
        "metric": lambda name: named(name)[:1].upper() + named(name)[1:],
        "section": lambda name: SECTION_NAMES.get(name, name),
        "breakable": lambda text: Markup("/<wbr>").join(escape(part) for part in text.split("/")),
        "plotted": _plotted,
        "data_uri": data_uri,
    }
    environment.globals["columns"] = _columns
    style = Markup((_FOLDER / "style.css").read_text())
    page = environment.get_template(template).render(style=style, version=version("unfreeze"), **values)
    return page.encode(errors="backslashreplace").decode()  # a file name may be invalid text


def _plotted(chart: Chart) -> str:
    png = rendered(lambda: plot(chart), chart.title, format="png", dpi=130)
    return "" if png is None else data_uri(png, "png")


def require_place(out: Path) -> None:
    """Raise UserError early if the folder of a page to write does not exist."""
    if not out.parent.is_dir():
        raise UserError(f"--out: there is no folder {out.parent}")


def write_file(out: Path, text: str) -> None:
    """Write a page or a file beside it; `UserError` if that fails."""
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--out: cannot write {out}: {error.strerror}") from error


def render(report: Report) -> str:
    """Render the report as HTML."""
    names = [*(name for name in TITLES if name in report.parts), *(name for name in report.parts if name not in TITLES)]
    shown = [(name, _tidied(report.parts[name])) for name in names if name not in NOT_SHOWN]
    shown = [(name, part) for name, part in shown if part.tables or part.figures or part.charts or part.counts]
    worst = next((name for name in ("valid", "test") if name in report.parts), "")
    figures = [*report.finders, *(path for _, part in shown for path in part.figures)]
    return fill(
        "report.html.j2",
        report=report,
        title="Training report" if report.stages else "Report",
        shown=shown,
        titles=TITLES,
        elsewhere=(LABEL_ERRORS,),
        worst_of=worst,
        images={path: _image(report.figure(path)) for path in figures},
        stages=[_stage(stage) for stage in report.stages],
        metrics=[{"metric": name, "value": value} for name, value in report.metrics.items()],
        origin=lambda start: [{"what": name, "with": fact} for name, fact in start.items() if fact],
    )


def render_explanation(found: Explanation, title: str, sources: Sequence[str]) -> str:
    """Render an explanation of predictions on rows of `sources` as HTML."""
    return fill(
        "explain.html.j2",
        title=title,
        sources=sources,
        found=found,
        largest={each.key: max((abs(bar.value) for bar in each.bars), default=0) or 1 for each in found.sections},
    )


def _tidied(part: Part) -> Part:
    """The part without figures that are shown as charts, counts or cards."""
    drawn = {chart.replaces for chart in part.charts} | {counts.replaces for counts in part.counts}
    # Figures about rows before those about the network, such as its embeddings.
    ordered = sorted(part.figures.items(), key=lambda each: each[0].startswith("embeddings/"))
    part.figures = {
        path: title for path, title in ordered if path not in drawn and not (part.cards and path.endswith(AS_CARDS))
    }
    return part


def _stage(stage: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "stage": stage["name"],
        "lr": stage["lr"] or "",
        **{name: stage[name] for name in ("epochs", "seconds")},
        "train loss": stage["train_loss"],
        **{f"valid {name}": value for name, value in stage["metrics"].items()},
        "ended": stage.get("stopped") or "",
    }


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, bool]:
    """Names of a table's columns -> whether each is numeric."""

    def is_numeric(name: str) -> bool:
        values = [row[name] for row in rows if row.get(name) is not None]
        return bool(values) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)

    return {name: is_numeric(name) for name in dict.fromkeys(name for row in rows for name in row)}


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        text = str(value)
        return text if len(text) <= LONGEST_CELL else f"{text[:LONGEST_CELL]}…"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.4g}"


def _image(content: bytes | None) -> str:
    """A PNG as a data URI; empty without one."""
    if content is None:
        return ""
    if len(content) < LARGE_PNG:
        return data_uri(content, "png")
    buffer = io.BytesIO()
    Image.open(io.BytesIO(content)).convert("RGB").save(buffer, "JPEG", quality=82, optimize=True)
    return data_uri(buffer.getvalue(), "jpeg")


def data_uri(content: bytes, kind: str) -> str:
    """A data URI of an image; `kind` is ``png`` or ``jpeg``."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
