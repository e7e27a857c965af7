"""The report at the end of a training, a sweep and a retraining, and in a browser without a network."""

import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from tests.deployments.browser import needs_chromium, views_without_a_network
from tests.flows.tiny import tiny_table, tiny_training, write_sales
from tests.pages import shown_artifacts
from unfreeze.flows.cli import main
from unfreeze.models.settings.search import Dimension, SweepSpec
from unfreeze.tasks import tracking
from unfreeze.tasks.report.collect import collect
from unfreeze.tasks.report.page import render

pytestmark = pytest.mark.usefixtures("prefect_api")


@pytest.fixture(scope="module")
def mislabelled(stripes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stripes of which some lie in the other class's folder, so that there are errors to show."""
    folder = tmp_path_factory.mktemp("mislabelled") / "stripes"
    shutil.copytree(stripes, folder)
    for label, other in (("across", "down"), ("down", "across")):
        for path in sorted((folder / label).iterdir())[::6]:
            path.rename(folder / other / f"moved-{path.name}")
    return folder


@pytest.fixture(scope="module")
def trained(mislabelled: Path, prefect_api: None) -> dict[str, Any]:
    from unfreeze.flows.train_images import train_images

    params = tiny_training(mislabelled, **{"data.valid_fraction": 0.5, "tracking.model_name": "reported"})
    result: dict[str, Any] = train_images(params)
    return result


def page_of(run_id: str) -> str:
    path = tracking.fetch(run_id, "report.html")
    assert path is not None
    return path.read_text()


def test_the_page_has_a_verdict_stages_errors_settings_and_commands(trained: dict[str, Any]) -> None:
    page = page_of(trained["run_id"])
    sections = re.findall(r'<section id="([^"]+)"', page)
    assert sections[:5] == ["verdict", "suspicious", "gains", "stages", "choice"]
    assert {"valid", "errors", "data", "commands", "settings"} <= set(sections)
    for text in (
        "Fine-tuning the body",
        "TTA",
        "validation rows: one row is",
        "Grad-CAM",
        "Calibration",
        "Confusion matrix",
        "unfreeze predict reported/",
        "mlflow models serve -m models:/reported/",
        "uncommitted changes",
        "data.valid_fraction",
    ):
        assert text in page, text
    (first, second), (third, fourth) = collect(trained["run_id"]).parts["valid"].counts[0].counts
    assert first + fourth > 0
    assert page.count('<article class="card">') == min(12, second + third) > 0


def flow_artifacts(flow_run: str) -> list[Any]:
    """Artifacts of a flow run itself, not of its tasks."""
    return [each for each in shown_artifacts(flow_run=flow_run) if each.task_run_id is None]


@pytest.mark.slow
def test_run_version_and_prefect_page_say_it_in_short_and_lead_to_it(trained: dict[str, Any]) -> None:
    run = MlflowClient().get_run(trained["run_id"])
    version = MlflowClient().get_model_version("reported", trained["model"]["version"])
    link = f"#/experiments/{trained['experiment_id']}/runs/{trained['run_id']}/artifacts/report.html"
    for text in (run.data.tags["mlflow.note.content"], version.description):
        assert "Worth a look" in text
        assert link in text
        assert "commit" in text
    # Prefect's page shows those of the flow run before those of its tasks, and each group in random order. They are
    # sent by a thread.
    end = time.monotonic() + 60
    while not (own := flow_artifacts(run.data.tags["prefect.flow_run_id"])) and time.monotonic() < end:
        time.sleep(0.2)
    (first,) = own
    assert first.key == "report"
    assert "Worth a look" in str(first.data)


def test_the_command_makes_the_same_page_again_from_what_mlflow_holds(
    trained: dict[str, Any], mislabelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hidden = mislabelled.with_name("hidden")
    mislabelled.rename(hidden)  # the images are gone, as they are on another machine
    try:
        out = tmp_path / "report.html"
        assert main(["report", trained["run_id"], "--out", str(out), "--json"]) == 0
    finally:
        hidden.rename(mislabelled)
    printed = capsys.readouterr()
    assert json.loads(printed.out.splitlines()[-1])["out"] == str(out)
    assert str(out) in printed.err
    assert out.read_text() == page_of(trained["run_id"])
    assert "Grad-CAM" in out.read_text()
    assert main(["report", "0" * 32]) == 2


@pytest.mark.slow
def test_images_that_it_lists_are_left_out_by_the_command_that_it_names(
    trained: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    report = collect(trained["run_id"])
    assert report.leave_out is not None
    (line,) = report.leave_out
    assert line.startswith("unfreeze train --config ")
    arguments = line.split()[1:]
    assert arguments[-2] == "--data.exclude"
    wrong = set(Path(arguments[-1]).read_text().splitlines())
    assert wrong
    assert main([*arguments, "--recipe", '[{"name": "head", "precompute": true, "lr": 0.01}]', "--json"]) == 0
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    predictions = tracking.fetch(again["run_id"], "valid/predictions.feather")
    assert predictions is not None
    assert not wrong & set(pd.read_feather(predictions)["path"])
    assert tracking.get_run(again["run_id"]).data.tags["data.rows"] == str(48 - len(wrong))


@pytest.mark.slow
def test_a_table_is_reported_by_what_its_target_finds(tmp_path: Path) -> None:
    from unfreeze.flows.train_images import train_tables

    run_id = train_tables(tiny_table(write_sales(tmp_path)))["run_id"]
    report, page = collect(run_id), page_of(run_id)
    assert [each.name for each in report.headlines] == ["rmspe", "loss"]
    assert any("instead of mean by group helped: loss" in line for line in report.verdict)
    for text in (
        "Residuals of sales",
        "Permutation importance",
        "rows with the highest error",
        "What each column is for",
    ):
        assert text in page
    assert "unfreeze train --config" in page
    assert "Grad-CAM" not in page


@pytest.mark.slow
def test_sweep_and_retraining_have_theirs(mislabelled: Path, tmp_path: Path) -> None:
    from tests.conftest import draw_stripes
    from unfreeze.flows.retrain import retrain
    from unfreeze.flows.sweep import sweep
    from unfreeze.flows.train_images import train_images
    from unfreeze.models.settings.retrain import Retrain

    photos = tmp_path / "photos"
    shutil.copytree(mislabelled, photos)
    params = tiny_training(photos, **{"tracking.model_name": "retrained"})
    space = [Dimension(name="recipe.full.ratio", low=1, high=10)]
    found = sweep(SweepSpec(trials=3, space=space, study="reported"), params)
    page = page_of(found["run_id"])
    assert "The best of the search, chosen by this" in page
    assert "Search against the rule of thumb" in page
    assert "unfreeze sweep --study reported --best --register" in page

    train_images(params)
    draw_stripes(photos, 8, seed=5)
    decided = retrain(Retrain(model="retrained"))
    page = page_of(decided["run_id"])
    assert "Drift against the champion" in page
    assert "Against the champion" in page
    description = MlflowClient().get_model_version("retrained", decided["challenger"]).description
    assert "champion" in description.partition("[The whole report]")[2]  # the decision stays
    assert main(["report", decided["run_id"]]) == 0
    again = MlflowClient().get_model_version("retrained", decided["challenger"]).description
    assert again == description


@pytest.mark.slow
@needs_chromium
def test_a_browser_without_a_network_shows_it_whole_on_a_phone_and_on_a_wide_screen(trained: dict[str, Any]) -> None:
    path = tracking.fetch(trained["run_id"], "report.html")
    assert path is not None
    for page in views_without_a_network(path, "report"):
        assert page.locator("svg.chart").count() >= 5
        overlay = page.locator(".overlay").first
        assert overlay.is_visible()
        page.locator("#overlay").uncheck()
        assert not overlay.is_visible()


def test_it_takes_less_than_five_seconds_for_a_thousand_validation_rows(trained: dict[str, Any]) -> None:
    """A report adds intervals and gains of a thousand rows and the page itself to a training."""
    from unfreeze.models.evaluation.intervals import gains, intervals
    from unfreeze.models.targets import SingleLabel

    generator = np.random.default_rng(0)
    target = SingleLabel([str(number) for number in range(10)])
    actual = generator.integers(0, 10, 1000)
    before, after = generator.dirichlet(np.ones(10), (2, 1000))
    judges = {"loss": target.loss_of, **target.metrics(["accuracy"])}
    began = time.process_time()
    intervals(judges, after, actual)
    for what in ("fine-tuning", "snapshots", "TTA"):
        gains(what, judges, before, after, actual)
    target.report(after, actual, "valid", "full")
    render(collect(trained["run_id"]))
    assert time.process_time() - began < 5
