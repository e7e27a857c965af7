"""`unfreeze up` as a person uses it: ready, restarted, looked at in a browser, stopped without a trace."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.conftest import draw_stripes
from tests.deployments.browser import CHROMIUM, FLAGS, foreign_requests, needs_chromium, sign_in
from tests.deployments.service import PROJECT, Up, free_port, running_up, unfreeze, until
from tests.flows.tiny import tiny_training

pytestmark = pytest.mark.slow

DEPLOYMENTS = (
    "train",
    "train-images",
    "train-tables",
    "find-lr",
    "sweep",
    "sweep-tables",
    "retrain",
    "watch",
    "predict",
)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running_up(tmp_path_factory.mktemp("up")) as up:
        yield up


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources") / "lines"
    draw_stripes(folder, 24, seed=0)
    return folder


def deployments(up: Up) -> dict[str, str]:
    """Name of a deployment's flow -> the deployment's id."""
    flows = {each["id"]: each["name"] for each in up.request("POST", "/flows/filter", {})}
    return {flows[each["flow_id"]]: each["id"] for each in up.request("POST", "/deployments/filter", {})}


def test_everything_is_there_and_other_commands_find_it(up: Up) -> None:
    state = json.loads(up.unfreeze("status", "--json").stdout)
    assert {server["server"]: server["state"] for server in state["servers"]} == {"Prefect": "up", "MLflow": "up"}
    assert len(state["workers"]) == 1
    assert deployments(up).keys() == set(DEPLOYMENTS)
    pages = up.unfreeze("open", "--print").stdout
    assert f"{up.mlflow}/#/models?workflowType=machine_learning" in pages
    assert up.environment["PREFECT_API_AUTH_STRING"] in pages


def test_a_second_service_in_the_same_folder_and_a_taken_port_are_refused(up: Up, tmp_path: Path) -> None:
    second = up.unfreeze("up")
    assert (second.returncode, "is running already" in second.stderr) == (2, True)
    prefect, mlflow = (address.removesuffix("/api").rsplit(":", 1)[1] for address in (up.api, up.mlflow))
    for flags in (["--prefect_port", prefect], ["--prefect_port", str(free_port()), "--mlflow_port", mlflow]):
        taken = unfreeze(tmp_path / "other", "up", *flags)
        assert taken.returncode == 2
        assert f"{flags[-2]}: 127.0.0.1:{flags[-1]} is taken (Address already in use" in taken.stderr
        assert "Traceback" not in taken.stderr
    assert until(lambda: up.request("GET", "/health") is True, 5)


def test_to_listen_beyond_the_loopback_is_refused_where_mlflow_would_have_no_account(tmp_path: Path) -> None:
    refused = unfreeze(tmp_path, "up", "--host", "0.0.0.0", "--prefect_port", str(free_port()))
    assert refused.returncode == 2
    assert "without an account" in refused.stderr


def test_a_schedule_that_is_switched_on_starts_a_run_and_status_says_that_the_scheduler_is_well(up: Up) -> None:
    deployment = up.request("GET", "/deployments/name/watch/watch")
    path = f"/deployments/{deployment['id']}/schedules"
    (usual,) = deployment["schedules"]
    assert usual["active"] is False
    every_10_seconds = {"schedule": {"interval": 10}, "active": True}
    (added,) = up.request("POST", path, [every_10_seconds])
    wanted = {"flow_runs": {"deployment_id": {"any_": [deployment["id"]]}, "state": {"type": {"any_": ["COMPLETED"]}}}}
    try:
        assert until(lambda: up.request("POST", "/flow_runs/filter", wanted) != [], 240), up.printed
        (run, *_) = up.request("POST", "/flow_runs/filter", wanted)
        assert run["auto_scheduled"]
        rows = {row["part"]: row for row in json.loads(up.unfreeze("status", "--json").stdout)["health"]}
        assert rows.keys() == {"Prefect", "MLflow", "worker"}
    finally:  # the worker would have nothing else to do
        up.request("DELETE", f"{path}/{added['id']}")


def test_a_part_that_dies_is_started_again(up: Up) -> None:
    pid = int(up.record()["parts"]["MLflow"].split(":")[0])
    psutil.Process(pid).kill()
    assert until(lambda: "MLflow ended and was started again" in up.printed, 60), up.printed
    assert until(lambda: _answers(f"{up.mlflow}/health"), 120)
    rows = {row["part"]: row for row in json.loads(up.unfreeze("status", "--json").stdout)["health"]}
    assert rows["MLflow"]["restarts"] == 1


def test_a_schedule_that_was_switched_on_stays_on_when_deployments_are_registered_again(up: Up) -> None:
    def every_15_minutes() -> dict[str, Any]:
        found = up.request("GET", "/deployments/name/watch/watch")
        (schedule,) = found["schedules"]
        return {"deployment": found["id"], **schedule}

    assert every_15_minutes()["active"] is False
    path = f"/deployments/{every_15_minutes()['deployment']}/schedules/{every_15_minutes()['id']}"
    up.request("PATCH", path, {"active": True})
    script = (
        "import os; from unfreeze.tasks.service.deployments import register_deployments; "
        "register_deployments('local', os.environ)"
    )
    environment = {**up.environment, "PREFECT_API_URL": up.api}
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert every_15_minutes()["active"] is True
    up.request("PATCH", path, {"active": False})


@needs_chromium
def test_in_a_browser_a_form_starts_a_training_whose_metric_is_found_in_mlflow(
    up: Up, lines: Path, tmp_path: Path
) -> None:
    from playwright.sync_api import Page, expect, sync_playwright

    images = Path(os.environ.get("UNFREEZE_SCREENSHOTS", tmp_path))
    images.mkdir(parents=True, exist_ok=True)
    prefect = up.api.removesuffix("/api")
    ids = deployments(up)

    def form(page: Page, deployment: str) -> None:
        page.goto(f"{prefect}/deployments/deployment/{ids[deployment]}/run")
        expect(page.get_by_role("button", name="Submit")).to_be_visible(timeout=30_000)
        expect(page.get_by_text("Parameters", exact=True)).to_be_visible()

    def field(page: Page, label: str) -> Any:
        found = f"//span[contains(@class, 'schema-form-property__label') and normalize-space() = '{label} (Optional)']"
        return page.locator(f"{found}/ancestor::div[contains(concat(' ', @class, ' '), ' p-label ')][1]").first

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1500, "height": 1000})
        page.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        strangers = foreign_requests(page)
        sign_in(page, up)

        for deployment in DEPLOYMENTS:
            form(page, deployment)
            labels = page.locator(".schema-form-property__label").all_inner_texts()
            described = page.locator(".schema-form-property__description").count()
            assert len(labels) > 1, deployment
            assert described >= len(labels) - 1, f"{deployment}: {len(labels)} fields, {described} descriptions"
            page.screenshot(path=images / f"form-{deployment}.png")
        page.set_viewport_size({"width": 400, "height": 900})
        form(page, "train")
        page.screenshot(path=images / "form-train-narrow.png")
        page.set_viewport_size({"width": 1500, "height": 1000})

        # A bad value is refused on the spot, by the field's name.
        form(page, "train-images")
        field(page, "Valid Fraction").locator("input").fill("7")
        page.get_by_role("button", name="Submit").click()
        expect(page.get_by_text("Validation failed for field 'params.data.valid_fraction'").first).to_be_visible()
        page.screenshot(path=images / "refused.png")

        form(page, "train-images")
        field(page, "Source").locator("textarea").fill(str(lines))
        field(page, "Backbone").locator("textarea").fill("timm/test_resnet")
        field(page, "Weights").locator("textarea").fill("none")
        field(page, "Steps").locator("input").fill("12")
        page.screenshot(path=images / "filled-in.png")
        page.get_by_role("button", name="Submit").click()
        # Not read off the deployment's page: that excludes runs that are only scheduled, and looks again much later.
        assert until(lambda: len(_flow_runs(up, "train-images")) == 1, 30)
        run = _flow_runs(up, "train-images")[0]["id"]
        up.wait(run, "COMPLETED", seconds=240)
        page.goto(f"{prefect}/runs/flow-run/{run}")
        expect(page.get_by_text("Completed").first).to_be_visible()
        expect(page.get_by_text(re.compile(r"train .*lines")).first).to_be_visible()
        expect(page.get_by_text(re.compile("epoch 1 of")).first).to_be_visible()  # the flow's own log
        page.screenshot(path=images / "run.png")

        page.get_by_role("tab", name="Artifacts").or_(page.get_by_text("Artifacts", exact=True)).first.click()
        page.get_by_text("mlflow-run").first.click()
        link = page.get_by_role("link", name="Open the run in MLflow")
        page.screenshot(path=images / "artifact.png")
        page.goto(str(link.get_attribute("href")))
        expect(page.get_by_text("valid/accuracy").first).to_be_visible()
        page.screenshot(path=images / "mlflow-run.png")

        again = up.start("train-images/train-images", {"params": tiny_training(lines, seed=1).model_dump(mode="json")})
        sweep = {"params": {"trials": 3, "study": "seen"}, "training": tiny_training(lines).model_dump(mode="json")}
        swept = up.start("sweep/sweep", sweep)
        up.wait(again, "COMPLETED")
        up.wait(swept, "COMPLETED")
        address = next(
            line.split()[-1] for line in up.unfreeze("open", "--print").stdout.splitlines() if ", unfreeze " in line
        )
        page.set_viewport_size({"width": 2600, "height": 1000})  # columns beyond the edge are not made
        page.goto(address)
        for text in ("sweep seen", "valid/accuracy", "lines-classifier"):
            expect(page.get_by_text(text).first).to_be_visible()
        expect(page.get_by_text(re.compile(r"lines \([0-9a-f]{8}\)")).first).to_be_visible()
        page.screenshot(path=images / "mlflow-runs.png")
        cells = page.locator(".ag-header-cell")
        columns = cells.evaluate_all("found => found.map(cell => cell.getAttribute('col-id'))")
        assert columns[1:4] == ["attributes.`Run Name`", "runDateAndNestInfo", "metrics.`valid/accuracy`"]
        # The trials are folded away below their sweep.
        assert page.get_by_text(re.compile(r"^trial 0")).count() == 0
        page.goto(f"{address}&compareRunsMode=CHART")
        for section, metric in (("train", "train/loss"), ("valid", "valid/accuracy"), ("lr", "lr/head")):
            page.get_by_placeholder("Search metric charts").fill(metric)
            expect(
                page.get_by_role("figure").filter(has_text=re.compile(rf"{section}\s*\(\d+\)")).first
            ).to_be_visible()
        page.screenshot(path=images / "mlflow-charts.png")
        runs = _runs(up, "train-images")
        experiment = re.search(r"experiments/(\d+)", address)
        assert experiment is not None
        page.goto(f'{up.mlflow}/#/compare-runs?runs=["{runs[0]}","{runs[1]}"]&experiments=["{experiment[1]}"]')
        expect(page.get_by_text("Comparing 2 Runs").first).to_be_visible()
        expect(page.get_by_text("seed", exact=True).first).to_be_visible()
        page.screenshot(path=images / "mlflow-compare.png", full_page=True)
        browser.close()
        assert strangers == []


def test_new_data_are_seen_by_the_sensor_and_retrained_on_by_the_automation(up: Up, lines: Path) -> None:
    if not _runs(up, "train-images"):
        trained = up.start("train-images/train-images", {"params": tiny_training(lines).model_dump(mode="json")})
        up.wait(trained, "COMPLETED")
    watch = up.start("watch/watch", {})
    up.wait(watch, "COMPLETED")
    assert _flow_runs(up, "retrain") == []  # nothing is new yet
    draw_stripes(lines, 6, seed=5)
    watch = up.start("watch/watch", {})
    up.wait(watch, "COMPLETED")
    assert until(lambda: len(_flow_runs(up, "retrain")) == 1, 60), up.request("POST", "/events/filter", {})
    (run,) = _flow_runs(up, "retrain")
    assert run["parameters"]["params"]["model"] == "lines-classifier"
    up.wait(run["id"], "COMPLETED", seconds=240)
    (model,) = json.loads(up.unfreeze("status", "--json").stdout)["models"]
    assert model["latest retraining"]


def test_a_version_is_promoted_by_hand_and_back(up: Up) -> None:
    up.unfreeze("promote", "lines", "1")
    assert "version 2 is champion instead of version 1" in up.unfreeze("promote", "lines", "2").stderr
    assert "version 2 is champion already" in up.unfreeze("promote", "lines", "2").stderr
    assert "version 1 is champion instead of version 2" in up.unfreeze("promote", "lines", "back").stderr
    unknown = up.unfreeze("promote", "lines", "99")
    assert unknown.returncode == 2
    assert "no version '99'" in unknown.stderr


def test_a_second_folder_that_uses_the_same_server_cancels_nothing_but_its_own(
    up: Up, lines: Path, tmp_path: Path
) -> None:
    endless = {"recipe.full.cycles": 12, "recipe.full.patience": None, "seed": 2}
    long = tiny_training(lines, **endless).model_dump(mode="json")
    run = up.start("train-images/train-images", {"params": long})
    up.wait(run, "RUNNING")
    server = {"PREFECT_API_URL": up.api, "PREFECT_API_AUTH_STRING": up.environment["PREFECT_API_AUTH_STRING"]}
    with running_up(tmp_path, **server) as second:
        assert len(json.loads(up.unfreeze("status", "--json").stdout)["workers"]) == 2
        second.process.send_signal(signal.SIGINT)
        assert second.process.wait(120) == 0, second.printed
    assert up.flow_run(run)["state_type"] == "RUNNING"
    assert "cancelled" not in second.printed
    up.request("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
    up.wait(run, "CANCELLED", seconds=90)


def test_ctrl_c_cancels_what_runs_and_leaves_no_process(up: Up, lines: Path) -> None:
    family = psutil.Process(up.process.pid).children(recursive=True)
    long = tiny_training(lines, **{"recipe.full.cycles": 12}).model_dump(mode="json")
    run = up.start("train-images/train-images", {"params": long})
    up.wait(run, "RUNNING")
    assert until(lambda: any("epoch" in line for line in up.log(run)), 120)
    family += psutil.Process(up.process.pid).children(recursive=True)
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(120) == 0, up.printed
    assert [process for process in family if process.is_running()] == []
    assert not (up.home / "data" / "service.json").exists()
    assert "was cancelled" in up.printed or "were cancelled" in up.printed


def _answers(address: str) -> bool:
    try:
        return httpx.get(address).status_code == 200
    except httpx.HTTPError:
        return False


def _flow_runs(up: Up, flow: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = up.request("POST", "/flow_runs/filter", {"flows": {"name": {"any_": [flow]}}})
    return found


def _runs(up: Up, kind: str) -> list[str]:
    api = f"{up.mlflow}/api/2.0/mlflow"
    experiments = httpx.post(f"{api}/experiments/search", json={"max_results": 50}).json()["experiments"]
    body = {
        "experiment_ids": [each["experiment_id"] for each in experiments],
        "filter": f"tags.`unfreeze.kind` = '{kind}'",
    }
    return [run["info"]["run_id"] for run in httpx.post(f"{api}/runs/search", json=body).json().get("runs", [])]
