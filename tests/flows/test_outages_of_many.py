"""Sweeps and retrainings whose MLflow goes away in their middle: nothing waits for it, everything is there later."""

import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run

from benchmarks.outages import Server, running
from tests.conftest import draw_stripes
from tests.flows.test_outages import steps_of
from tests.flows.tiny import tiny_training
from unfreeze.models.settings import TrainImages
from unfreeze.models.settings.retrain import PromotionSpec, Retrain
from unfreeze.models.settings.search import Dimension, SweepSpec
from unfreeze.models.training.loop import fit
from unfreeze.tasks import tracking
from unfreeze.tasks.tracking import registry
from unfreeze.tasks.tracking.folder import run_folders

Outage = tuple[Callable[[], object], Callable[[], object]]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_api")]


@pytest.fixture
def server(own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A real MLflow server on SQLite, which also keeps the artifacts."""
    with running(tmp_path) as started:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", started.address)
        yield started


@pytest.fixture
def once_in_training(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], object]], None]:
    """Have something done as the training loop begins for the so-manieth time from here on."""
    import unfreeze.models.training.loop

    def arrange(time_of: int, disturb: Callable[[], object]) -> None:
        begun = 0

        def disturbed(*arguments: Any) -> Any:
            nonlocal begun
            begun += 1
            if begun == time_of:
                disturb()
            yield from fit(*arguments)

        monkeypatch.setattr(unfreeze.models.training.loop, "fit", disturbed)

    return arrange


RECIPE = [{"name": "full", "train": "all", "lr": 0.01, "ratio": 3, "cycles": 2}]


def short_training(source: Path, **overrides: object) -> TrainImages:
    return tiny_training(source, recipe=RECIPE, **overrides)


def search(study: str, trials: int = 4) -> SweepSpec:
    space = [Dimension(name="recipe.full.lr", low=1e-3, high=1e-1, log=True)]
    return SweepSpec(trials=trials, study=study, space=space)


def children(run_id: str) -> dict[str, Run]:
    """Trials of a sweep by number."""
    experiments = [tracking.experiment_id("unfreeze")]
    found = tracking.client().search_runs(experiments, f"tags.`mlflow.parentRunId` = '{run_id}'")
    assert max(Counter(run.data.tags["unfreeze.trial"] for run in found).values()) == 1
    return {run.data.tags["unfreeze.trial"]: run for run in found}


@pytest.fixture(params=["killed", "stopped", "locked"])
def outage(request: pytest.FixtureRequest, own_home: Path) -> Outage:
    """How MLflow goes away, and how it comes back; a server, or the database of this data folder."""
    if request.param == "locked":
        own_home.mkdir()
        database = sqlite3.connect(own_home / "mlflow.db", isolation_level=None, timeout=60, check_same_thread=False)
        return lambda: database.execute("BEGIN EXCLUSIVE"), lambda: database.execute("ROLLBACK")
    server: Server = request.getfixturevalue("server")
    if request.param == "killed":
        return server.kill, server.start
    return lambda: server.signal(signal.SIGSTOP), lambda: server.signal(signal.SIGCONT)


def test_a_sweep_ends_as_ever_without_mlflow_and_each_trial_is_there_once_after_a_sync(
    outage: Outage,
    stripes: Path,
    once_in_training: Callable[[int, Callable[[], object]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from unfreeze.flows.sweep import register_best, sweep
    from unfreeze.tasks.tracking import publisher

    began = time.monotonic()
    usual = sweep(search("usual"), short_training(stripes))
    seconds = time.monotonic() - began
    monkeypatch.setattr(publisher, "PATIENCE", 1.0)
    disturb, mend = outage
    once_in_training(2, disturb)
    began = time.monotonic()
    result = sweep(search("disturbed"), short_training(stripes))
    assert time.monotonic() - began < seconds + 15
    ended = 1000 * time.time()
    assert result["trials"] == usual["trials"]
    assert result["best"] == usual["best"]
    mend()

    assert [(each.left, each.why) for each in tracking.sync()] == [(0, "")]
    assert tracking.sync() == []
    ours, theirs = children(result["run_id"]), children(usual["run_id"])
    for number, run in theirs.items():
        again = ours[number]
        assert again.info.status == run.info.status
        assert again.data.params == run.data.params
        assert steps_of(again.info.run_id) == steps_of(run.info.run_id)
        # Where checkpoints were removed, MLflow leaves an empty folder.
        assert set(tracking.artifacts(again.info.run_id)) >= {*tracking.artifacts(run.info.run_id)} - {"checkpoints"}
        assert again.info.end_time <= ended
    whole = tracking.get_run(result["run_id"])
    assert whole.info.status == "FINISHED"
    assert whole.data.metrics["best_value"] == usual["best"]["value"]
    assert tracking.artifacts(result["run_id"], "sweep") == tracking.artifacts(usual["run_id"], "sweep")
    assert steps_of(result["run_id"]) == steps_of(usual["run_id"])
    assert "version" in register_best("disturbed")["model"]


def test_trials_reach_mlflow_while_the_sweep_goes_on_once_it_is_back(
    server: Server, stripes: Path, once_in_training: Callable[[int, Callable[[], object]], None]
) -> None:
    from unfreeze.flows.sweep import sweep

    once_in_training(2, server.kill)
    back = threading.Timer(8, server.start)
    back.start()
    result = sweep(search("back", trials=3), short_training(stripes))
    back.join()
    assert run_folders() == []
    assert len(children(result["run_id"])) == 3
    assert "report.html" in tracking.artifacts(result["run_id"])


def write_images(folder: Path) -> Path:
    draw_stripes(folder / "images", 24, seed=0)
    return folder / "images"


@pytest.fixture
def champion(server: Server, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A folder of images of its own, and what a training came to that could not learn anything."""
    from unfreeze.flows.train_images import train_images

    source = write_images(tmp_path)
    training = short_training(source, **{"recipe.full.lr": 1e-6, "tracking.model_name": "lines-classifier"})
    return source, train_images(training)


BETTER = Retrain(
    model="lines",
    warm_start="fresh",
    changes={"recipe.full.lr": "0.01", "recipe.full.cycles": "4"},
    promotion=PromotionSpec(significance=1),
)


def test_a_retraining_without_mlflow_decides_and_is_carried_out_by_a_sync(
    server: Server,
    champion: tuple[Path, dict[str, Any]],
    once_in_training: Callable[[int, Callable[[], object]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from unfreeze.flows.retrain import retrain
    from unfreeze.tasks.tracking import publisher

    monkeypatch.setattr(publisher, "PATIENCE", 1.0)
    draw_stripes(champion[0], 30, seed=7)
    once_in_training(1, server.kill)
    result = retrain(BETTER)
    assert (result["decision"], result["champion"], result["challenger"]) == ("waits", "1", None)
    assert result["comparison"]["improvement"] > 0
    server.start()
    assert registry.version_of("lines-classifier", "champion").number == "1"

    (done,) = tracking.sync()
    assert done.left == 0, done.why
    assert done.news == ("Version 2 was promoted over version 1",)
    assert registry.version_of("lines-classifier", "champion").number == "2"
    assert registry.version_of("lines-classifier", "previous").number == "1"
    assert tracking.client().get_registered_model("lines-classifier").aliases.keys() == {"champion", "previous"}
    version = tracking.client().get_model_version("lines-classifier", "2")
    assert version.description.count("was promoted over version 1: accuracy") == 1
    run = tracking.get_run(result["run_id"])
    assert run.info.status == "FINISHED"
    assert (run.data.tags["unfreeze.decision"], run.data.tags["unfreeze.challenges"]) == (
        "promoted",
        "lines-classifier/1",
    )
    assert {"comparison", "drift", "valid"} <= set(tracking.artifacts(result["run_id"]))
    assert retrain(BETTER)["decision"] == "no new data"
    assert tracking.sync() == []


def test_a_promotion_that_waited_too_long_leaves_the_new_champion_alone(
    own_home: Path,
    tmp_path: Path,
    once_in_training: Callable[[int, Callable[[], object]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from unfreeze.flows.retrain import retrain
    from unfreeze.flows.train_images import train_images
    from unfreeze.tasks.tracking import publisher

    source = write_images(tmp_path)
    for lr in (1e-6, 1e-3):
        train_images(short_training(source, **{"recipe.full.lr": lr, "tracking.model_name": "lines-classifier"}))
    monkeypatch.setattr(publisher, "PATIENCE", 1.0)
    draw_stripes(source, 30, seed=7)
    database = sqlite3.connect(own_home / "mlflow.db", isolation_level=None, timeout=60, check_same_thread=False)
    once_in_training(1, lambda: database.execute("BEGIN EXCLUSIVE"))
    assert retrain(BETTER)["decision"] == "waits"
    database.execute("ROLLBACK")
    for thread in threading.enumerate():  # the retraining's process would be gone, and its attempt with it
        if thread.name.startswith("publisher"):
            thread.join(60)
    registry.promote("lines", "2")

    (done,) = tracking.sync()
    line = "Version 3 beat version 1, but version 2 is champion by now, so it was not promoted"
    assert (done.left, done.news) == (0, (line,))
    assert registry.version_of("lines-classifier", "champion").number == "2"
    assert registry.version_of("lines-classifier", "challenger").number == "3"
    assert line in tracking.client().get_model_version("lines-classifier", "3").description
