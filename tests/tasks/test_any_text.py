"""Names of classes, columns and files are only text, wherever they are shown or kept."""

import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress

from tests.flows.tiny import published_run
from tests.hostile_texts import hostile_texts
from tests.tasks.test_report import SPEC, Tags
from unfreeze.flows.commands import show
from unfreeze.models.evaluation.results import Card, Chart, Counts, Findings, Gain
from unfreeze.models.settings.names import LONGEST_FOLDER, safe_name
from unfreeze.models.targets import Numbers, SingleLabel
from unfreeze.models.targets.predictions import Layout
from unfreeze.tasks import tracking
from unfreeze.tasks.machine.page import as_markdown
from unfreeze.tasks.report.collect import collect
from unfreeze.tasks.report.findings import keep_findings
from unfreeze.tasks.report.page import render
from unfreeze.tasks.report.publish import model_card

pytestmark = pytest.mark.usefixtures("home_with_store")
TEXTS = hostile_texts()
MARKUP = re.compile(r"(?<!\\)<script|<b>(?!0)", re.IGNORECASE)


def a_figure_that_fails() -> Figure:
    raise ValueError("no figure")


@pytest.fixture
def run_id() -> str:
    return published_run("any text", SPEC, {"unfreeze.kind": "train-images"})


def findings_of(texts: list[str]) -> Findings:
    """Every kind of finding, with these texts wherever a text can be."""
    found = Findings(notices=texts, lines=texts)
    found.metrics = {"valid/accuracy": 0.5, "valid/accuracy_low": 0.4, "valid/accuracy_high": 0.6}
    for number, text in enumerate(texts):
        found.table(f"table-{number}", text, [{text or "empty": text, "value": 1.5}])
        if number % 10 == 0:
            found.text(f"valid/{safe_name(text)}.txt", text)
            found.figure(f"valid/{safe_name(text)}.png", text, lambda: Figure(figsize=(1, 1)))
        found.gains.append(Gain(text, "loss", 0.5, 0.4, 0.1, 0.02, 0.2, 100))
        found.charts.append(Chart(text, text, text, {text: ([0.5, 1], [0.4, 1])}, marks={text: 0.7}))
        found.counts.append(Counts(text, [text, "dog"], [[8, 2], [1, 9]]))
        found.cards.append(Card(text, {text: text}))
    return found


@pytest.mark.slow
def test_a_report_its_card_and_its_artifacts_take_any_text(run_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    keep_findings(run_id, findings_of(TEXTS), "valid")
    assert "cannot be made" not in capsys.readouterr().err
    report = collect(run_id)
    report.name = report.source = TEXTS[15]
    page = render(report)
    assert not MARKUP.search(page)
    tags = Tags()
    tags.feed(page)
    assert "script" not in {name for name, _ in tags.found}
    page.encode()
    card = model_card(report, "[The whole report](http://x)")
    assert not MARKUP.search(card)
    assert len(card) <= 5_000
    assert {name.split("/")[0] for name in tracking.artifacts(run_id)} <= {"valid", "report", "spec.json", "code"}


def test_a_figure_that_fails_is_a_warning_that_names_it_and_the_rest_is_kept(
    run_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = Findings(metrics={"valid/accuracy": 0.5, "valid/accuracy_low": 0.4, "valid/accuracy_high": 0.6})
    found.figure("valid/broken.png", "Broken", a_figure_that_fails)
    found.figure("valid/whole.png", "Whole", lambda: Figure(figsize=(1, 1)))
    found.frame("valid/broken.feather", pd.DataFrame({"mixed": [1, "a", {}]}))
    found.later["cards of mistakes"] = lambda _: a_figure_that_fails() and None
    found.later["label errors"] = lambda more: more.text("valid/label_errors.txt", "a\n")
    keep_findings(run_id, found, "valid")
    said = capsys.readouterr().err
    assert "warning: figure valid/broken.png cannot be made (ValueError: no figure)" in said
    assert "warning: valid/broken.feather cannot be made" in said
    assert "warning: cards of mistakes: ValueError: no figure" in said
    assert set(tracking.artifacts(run_id, "valid")) == {"valid/whole.png", "valid/label_errors.txt"}
    assert "cards of mistakes" in render(collect(run_id))


def test_markdown_shows_a_text_as_it_is() -> None:
    for text in TEXTS:
        line = as_markdown(text)
        assert "\n" not in line
        assert not re.search(r"(?<!\\)(?:\\\\)*[`*_\[\]<>|#]", line), line
    assert as_markdown("a|b <i> [x](y)") == r"a\|b \<i\> \[x\](y)"


def test_a_terminal_s_table_shows_a_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    show._table(("name", "[red]"), [(text, text) for text in TEXTS if len(text) < 100], "[/title]")
    said = capsys.readouterr().err
    for text in ("[red]", "[/]", ":smile:", "[/title]", "\\x1b[31mred"):
        assert text in said, text
    assert "\x1b" not in said


def test_a_bar_of_progress_takes_any_text(monkeypatch: pytest.MonkeyPatch) -> None:
    from unfreeze.models.store import progress

    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80)
    monkeypatch.setattr(progress, "Console", lambda **_: console)
    for text in TEXTS[::20]:
        with progress.progress_bar(text, lambda text=text: text) as advance:
            advance(1, 2)
    assert isinstance(Progress(console=console), Progress)


def test_names_of_files_are_safe_different_and_short() -> None:
    names = [safe_name(text) for text in TEXTS]
    assert len({name.casefold() for name in names}) == len(names)
    for name in names:
        assert re.fullmatch(r"\w[\w. -]*", name)
        assert len(name.encode()) <= LONGEST_FOLDER


def test_columns_of_any_name_are_params_that_mlflow_takes() -> None:
    spec = {**SPEC, "data": {"source": "x", "numbers": dict.fromkeys(TEXTS, ","), "target": TEXTS}}
    run_id = published_run("columns", spec, {"unfreeze.kind": "train-tables"})
    assert tracking.spec_of(run_id)["data"]["numbers"].keys() == set(TEXTS)


def test_figures_of_a_target_are_files_of_the_section(tmp_path: Path) -> None:
    names = [text for text in TEXTS if text.encode(errors="ignore").decode() == text]  # as tables can have them
    values = np.arange(len(names) * 3.0).reshape(3, -1)
    found = Numbers(names).report(values, values + 1, "valid", "trees")
    assert len(found.figures) == len(names)
    assert all(re.fullmatch(r"valid/residuals_\w[\w. -]*\.png", path) for path in found.figures)
    classes = SingleLabel(names).report(np.eye(len(names)), np.arange(len(names)), "valid", "trees")
    assert classes.frames["valid/per_class.feather"]["class"].tolist() == names


def test_predictions_name_classes_as_they_are() -> None:
    import pyarrow as pa

    classes = [text for text in TEXTS if text.encode(errors="ignore").decode() == text]
    layout = Layout(pa.field("row", pa.int64()), "model", "1", SingleLabel(classes), 1)
    batch = layout.batch(pa.array(range(len(classes))), np.arange(len(classes)), np.eye(len(classes)), {})
    assert batch.column("class").to_pylist() == classes
