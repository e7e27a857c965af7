"""The parts of a report, apart from any training."""

import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.flows.tiny import published_run
from unfreeze import models
from unfreeze.models.errors import UserError
from unfreeze.models.evaluation.results import Card, Chart, Counts, Findings, Gain
from unfreeze.tasks import tracking
from unfreeze.tasks.machine import provenance as machine
from unfreeze.tasks.report.collect import collect
from unfreeze.tasks.report.findings import keep_part, parts_of
from unfreeze.tasks.report.page import render
from unfreeze.tasks.report.publish import report_to_file, write_report
from unfreeze.tasks.tracking.training_run import log_origin, starts_of

pytestmark = pytest.mark.usefixtures("home_with_store")
SPEC = {"modality": "images", "data": {"source": "photos"}, "tracking": {"experiment": "tests"}}


def start() -> str:
    return published_run("<b>photos</b>", SPEC, {"unfreeze.kind": "train-images"})


def some_findings() -> Findings:
    found = Findings(notices=["warning: look here"], lines=["a line"])
    found.table("rows", "Some rows", [{"name": "<script>alert(1)</script>", "value": np.float64(0.5)}])
    found.figure("valid/other.png", "Another figure", Figure())
    found.figure("valid/confusion.png", "Confusion", Figure())
    found.gains.append(Gain("TTA", "loss", 0.5, 0.4, 0.1, 0.02, 0.2, 100))
    found.charts.append(Chart("Calibration", "probability", "right", {"model": ([0.5, 1], [0.4, 1])}, identity=True))
    found.counts.append(Counts("Confusion", ["cat", "dog"], [[8, 2], [1, 9]], "valid/confusion.png"))
    found.cards.append(Card("1.jpg", {"label": "cat", "path": "photos/1.jpg"}, b"jpeg", b"png"))
    return found


class Tags(HTMLParser):
    """Every element of a page with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_what_a_step_found_is_read_back_as_it_was() -> None:
    run_id, found = start(), some_findings()
    keep_part(run_id, "valid", found)
    (part,) = parts_of(run_id).values()
    assert part.gains == found.gains
    assert part.cards == found.cards
    assert part.notices == found.notices
    assert part.figures == {"valid/other.png": "Another figure", "valid/confusion.png": "Confusion"}
    assert part.counts[0].counts == [[8, 2], [1, 9]]
    assert part.tables == [["rows", "Some rows", [{"name": "<script>alert(1)</script>", "value": 0.5}], 1]]


def test_the_page_shows_findings_escapes_them_and_names_nothing_outside() -> None:
    run_id = start()
    keep_part(run_id, "valid", some_findings())
    page = render(collect(run_id))
    tags = Tags()
    tags.feed(page)
    assert not [tag for tag, _ in tags.found if tag == "script"]
    assert "&lt;script&gt;alert(1)" in page
    assert "&lt;b&gt;photos&lt;/b&gt;" in page
    addresses = [value for _, each in tags.found for name, value in each.items() if name in ("src", "href", "action")]
    assert all(str(address).startswith(("data:", "#")) for address in addresses)
    assert "url(http" not in page
    assert "TTA helped: loss 0.500 to 0.400 on the validation rows" in page
    assert 'src="data:image/jpeg;base64,anBlZw=="' in page
    assert "Confusion matrix" not in page  # only the counts that were handed in


@pytest.mark.parametrize("splits", [["valid"], ["test"], ["valid", "test"]])
def test_likely_label_errors_of_the_test_are_shown_and_never_proposed_for_exclusion(splits: list[str]) -> None:
    run_id = start()
    for split in splits:
        found = Findings()
        found.table("label-errors", "Likely label errors", [{"path": f"photos/{split}.jpg", "label": "cat"}])
        if split == "valid":
            found.text("valid/label_errors.txt", "photos/valid.jpg\n")
        keep_part(run_id, split, found)
    report = collect(run_id)
    page = render(report)
    assert [f"photos/{split}.jpg" in page for split in splits] == [True] * len(splits)
    assert ("leave none of these out" in page) == ("test" in splits)
    assert ("data.exclude" in page) == (report.leave_out is not None) == ("valid" in splits)
    assert "test/label_errors" not in page


def test_a_figure_that_a_chart_replaces_is_not_shown_twice() -> None:
    run_id = start()
    tracking.log_png(run_id, b"\x89PNG other", "valid/other.png")
    tracking.log_png(run_id, b"\x89PNG confusion", "valid/confusion.png")
    keep_part(run_id, "valid", some_findings())
    page = render(collect(run_id))
    assert "Another figure" in page
    assert len(re.findall(r'src="data:image/png', page)) == 3  # the chart, the figure, and the card's overlay


def test_making_it_again_keeps_what_was_written_beside_the_card() -> None:
    run_id = start()
    tracking.log_tags(run_id, {"mlflow.note.content": "[Prefect flow run x](http://127.0.0.1/x)"})
    keep_part(run_id, "valid", some_findings())
    write_report(run_id)
    once = tracking.tags_of(run_id)["mlflow.note.content"]
    write_report(run_id)
    assert tracking.tags_of(run_id)["mlflow.note.content"] == once
    assert once.count("Prefect flow run x") == 1
    assert once.startswith("- TTA helped")
    assert f"runs/{run_id}/artifacts/report.html" in once


def test_a_report_of_nothing_or_to_nowhere_is_an_error(tmp_path: Path) -> None:
    run_id = start()
    with pytest.raises(UserError, match="no findings to report"):
        collect(run_id)
    with pytest.raises(UserError, match="is not in MLflow"):
        collect("0" * 32)
    keep_part(run_id, "valid", some_findings())
    with pytest.raises(UserError, match="there is no folder"):
        report_to_file(run_id, tmp_path / "nowhere" / "report.html")
    with pytest.raises(UserError, match="cannot write"):
        report_to_file(run_id, tmp_path)
    found = report_to_file(run_id, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == Path(found["artifact"]).read_text()


def test_the_code_and_its_changes_are_kept_at_every_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "models"
    package.mkdir()
    (package / "__init__.py").write_text("ONE = 1\n")
    for command in (
        ["init", "-q"],
        ["add", "models"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "one"],
    ):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    monkeypatch.setattr(models, "__file__", str(package / "__init__.py"))
    run_id = start()
    log_origin(run_id)
    (package / "__init__.py").write_text("ONE = 2\n")
    log_origin(run_id)
    clean, changed = starts_of(run_id)
    assert clean["uncommitted changes"] == "none"
    assert changed["uncommitted changes"].startswith("1 files, digest ")
    assert clean["commit"] == changed["commit"] == tracking.tags_of(run_id)["mlflow.source.git.commit"]
    patch = tracking.fetch(run_id, changed["patch"])
    assert patch is not None
    assert "+ONE = 2" in patch.read_text()
    assert "cores" in clean["processor"]


def test_an_installed_package_has_no_commit_even_inside_somebody_elses_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "-C", str(tmp_path), "init", "-q"], check=True)
    (tmp_path / "models").mkdir()
    monkeypatch.setattr(models, "__file__", str(tmp_path / "models" / "__init__.py"))
    found = machine.provenance()
    assert (found.commit, found.diff) == ("", "")
    assert "commit" not in found.facts
    assert "torch==" in found.packages
