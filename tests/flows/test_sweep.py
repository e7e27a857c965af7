"""A whole sweep on a tiny data set: what comes out, what is shared, what stopping leaves behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow.entities import Run

from tests.deployments.service import until
from tests.flows.tiny import tiny_training
from unfreeze.models.errors import UserError
from unfreeze.models.settings import TrainImages
from unfreeze.models.settings.search import Dimension, SweepSpec, TableSweep
from unfreeze.tasks import tracking

pytestmark = pytest.mark.usefixtures("prefect_api")


def short_training(source: Path, **overrides: object) -> TrainImages:
    recipe = [
        {"name": "head", "precompute": True, "find_lr": True, "cycles": 1},
        {"name": "full", "train": "all", "find_lr": True, "ratio": 3, "cycles": 2},
    ]
    return tiny_training(source, **{"recipe": recipe, **overrides})


def children(run_id: str) -> list[Run]:
    experiments = [tracking.experiment_id("unfreeze")]
    return list(tracking.client().search_runs(experiments, f"tags.`mlflow.parentRunId` = '{run_id}'"))


@pytest.fixture(scope="module")
def swept(stripes: Path, prefect_api: None) -> dict[str, Any]:
    from unfreeze.flows.sweep import sweep

    result: dict[str, Any] = sweep(SweepSpec(trials=5, study="swept"), short_training(stripes))
    return {**result, "children": children(result["run_id"])}  # another test adds to the study


def test_the_result_names_the_study_the_best_trial_and_what_became_of_the_others(swept: dict[str, Any]) -> None:
    assert swept["study"] == "swept"
    assert set(swept["best"]["params"]) == {"body_ratio", "early_ratio", "head_factor"}
    assert swept["trials"]["complete"] + swept["trials"]["pruned"] == 5
    assert swept["trials"]["failed"] == 0


def test_what_trials_share_is_computed_once(swept: dict[str, Any]) -> None:
    assert swept["prefix_builds"] == 1


def test_each_trial_is_a_child_run_with_its_true_state_and_curves(swept: dict[str, Any]) -> None:
    runs = swept["children"]
    assert len(runs) == 5
    ended = [run.info.status for run in runs]
    assert ended.count("FINISHED") == swept["trials"]["complete"]
    assert ended.count("KILLED") == swept["trials"]["pruned"]
    for run in runs:
        assert {"body_ratio", "early_ratio", "head_factor"} <= set(run.data.params)
        assert {"valid/loss", "train/loss", "lr/early"} <= set(run.data.metrics)


def test_the_parent_shows_the_best_and_the_images(swept: dict[str, Any]) -> None:
    client = tracking.client()
    metrics = client.get_run(swept["run_id"]).data.metrics
    assert metrics["best_value"] == pytest.approx(swept["best"]["value"])
    assert metrics["best_body_ratio"] == pytest.approx(swept["best"]["params"]["body_ratio"])
    names = {item.path for item in client.list_artifacts(swept["run_id"], "sweep")}
    assert {"sweep/history.html", "sweep/history.png", "sweep/search_vs_rule_of_thumb.txt"} <= names


def test_the_course_s_ratios_come_first(swept: dict[str, Any]) -> None:
    by_number = {int(run.data.tags["unfreeze.trial"]): run for run in children(swept["run_id"])}
    assert [float(by_number[number].data.params["body_ratio"]) for number in range(3)] == [10, 3, 1]


@pytest.mark.slow
def test_a_trial_equals_a_training_of_its_own_with_the_same_settings(swept: dict[str, Any], stripes: Path) -> None:
    """The shared prefix changes nothing: train by the recipe, with the finder's lr as the trial had it."""
    from unfreeze.flows.train_images import train_images

    run = next(run for run in children(swept["run_id"]) if run.data.tags["unfreeze.trial"] == "1")
    assert run.info.status == "FINISHED"
    # Of the network as trained, with ratio 3, as the trial; the finder measures at this ratio as well
    alone = train_images(short_training(stripes, keep="trained"))
    # The two add up the rows in another way, so the last digit may differ.
    assert run.data.metrics["valid/loss"] == pytest.approx(alone["metrics"]["valid/loss"], rel=1e-12)


@pytest.mark.slow
def test_the_same_command_continues_where_the_study_stopped(swept: dict[str, Any], stripes: Path) -> None:
    from unfreeze.flows.sweep import sweep

    again = sweep(SweepSpec(trials=6, study="swept"), short_training(stripes))
    assert again["run_id"] == swept["run_id"]
    assert sum(again["trials"].values()) == 6
    assert again["prefix_builds"] == 1


@pytest.mark.slow
def test_the_best_trial_becomes_a_registered_model(swept: dict[str, Any]) -> None:
    from unfreeze.flows.sweep import register_best

    result = register_best("swept")
    assert result["model"]["name"] == "stripes0-classifier" or result["model"]["version"]
    assert "valid/accuracy_tta" in result["metrics"]


def test_a_storage_with_a_password_is_refused_before_the_best_is_looked_for() -> None:
    from unfreeze.flows.sweep import register_best

    with pytest.raises(UserError, match="UNFREEZE_STORAGE_PASSWORD") as refused:
        register_best("swept", "postgresql://me:s3cret@db/studies")
    assert "s3cret" not in str(refused.value)
    form = register_best.parameters.properties["storage"]
    assert form["pattern"] == SweepSpec.model_json_schema()["properties"]["storage"]["pattern"]


def test_the_forms_of_sweeps_begin_with_what_suits_their_kind() -> None:
    from unfreeze.flows.sweep import sweep, sweep_tables

    for flow, spec in ((sweep, SweepSpec), (sweep_tables, TableSweep)):
        form = flow.parameters.definitions[spec.__name__]["properties"]["space"]["default"]
        assert form == [each.model_dump() for each in spec().space]


def test_the_command_that_resumes_a_sweep_names_its_storage(stripes: Path, tmp_path: Path) -> None:
    from unfreeze.tasks.sweeps.sweep import open_sweep

    search = SweepSpec(trials=5, study="in a database", storage=f"sqlite:///{tmp_path / 'studies.db'}")
    with pytest.raises(KeyboardInterrupt) as stopped, open_sweep(search, short_training(stripes)):
        raise KeyboardInterrupt
    command = f"unfreeze sweep --study 'in a database' --trials 5 --storage {search.storage}"
    assert stopped.value.__notes__ == [f"continue with: {command}"]


@pytest.mark.slow
def test_a_sweep_with_another_optimizer_shares_nothing_with_an_earlier_one(
    swept: dict[str, Any], stripes: Path
) -> None:
    from unfreeze.flows.sweep import sweep

    other = short_training(stripes, **{"optimizer.label_smoothing": 0.2})
    assert sweep(SweepSpec(trials=1, study="smoothed"), other)["prefix_builds"] == 1
    assert sweep(SweepSpec(trials=1, study="again"), short_training(stripes))["prefix_builds"] == 0


@pytest.mark.slow
def test_two_prefixes_are_built_where_the_choices_reach_the_head_stage(stripes: Path) -> None:
    from unfreeze.flows.sweep import sweep

    space = [
        Dimension(name="recipe.head.cycles", choices=[1, 2]),
        Dimension(name="body_ratio", low=1, high=9, log=True),
    ]
    result = sweep(SweepSpec(trials=6, study="prefixes", space=space, sampler="random", pruner="none"),
                   short_training(stripes, seed=11))  # fmt: skip
    tried = {run.data.params["recipe.head.cycles"] for run in children(result["run_id"])}
    assert result["prefix_builds"] == len(tried) == 2


@pytest.mark.slow
def test_repeats_train_other_seeds_and_judge_by_their_mean(stripes: Path) -> None:
    from unfreeze.flows.sweep import sweep

    result = sweep(SweepSpec(trials=3, study="repeats", repeats=2), short_training(stripes))
    assert all("improvement low" in row for row in result["comparison"] if row["trial"] != result["best"]["number"])
    run = next(
        run for run in children(result["run_id"]) if int(run.data.tags["unfreeze.trial"]) == result["best"]["number"]
    )
    seeds = [run.data.metrics["valid/loss"], run.data.metrics["seed-1/valid/loss"]]
    assert result["best"]["value"] == pytest.approx(sum(seeds) / 2)


@pytest.mark.slow
def test_several_objectives_give_a_front(stripes: Path) -> None:
    from unfreeze.flows.sweep import sweep

    search = SweepSpec(trials=3, study="front", objectives=["accuracy", "seconds"], sampler="random")
    result = sweep(search, short_training(stripes))
    assert len(result["best"]["values"]) == 2
    names = {item.path for item in tracking.client().list_artifacts(result["run_id"], "sweep")}
    assert "sweep/pareto_front.png" in names


def test_a_wrong_space_is_refused_before_the_first_trial(stripes: Path) -> None:
    from unfreeze.flows.sweep import sweep

    space = [Dimension(name="data.sizes", choices=[32])]
    with pytest.raises(UserError, match=r"data\.size\b"):
        sweep(SweepSpec(study="wrong", space=space), short_training(stripes))


def test_a_study_that_continues_refuses_flags_that_would_change_it(
    swept: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    from unfreeze.flows.cli import main

    assert main(["sweep", "--study", "swept", "--data.size", "64", "--space", "seed=1,2"]) == 2
    assert "--data.size, --space: study 'swept' keeps the settings" in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_stops_a_sweep_of_two_workers_and_the_study_continues(stripes: Path, home_with_store: Path) -> None:
    config = home_with_store / "spec.yaml"
    config.write_text(yaml.safe_dump(short_training(stripes, **{"recipe.full.cycles": 6}).model_dump(mode="json")))
    command = [sys.executable, "-m", "unfreeze.flows.cli", "sweep", "--study", "stopped"]
    environment = {**os.environ, "PREFECT_LOGGING_LEVEL": "INFO"}
    flags = ["--config", str(config), "--trials", "200", "--workers", "2", "--pruner", "none"]
    with (home_with_store / "log").open("w") as log:
        process = subprocess.Popen([*command, *flags], stdout=log, stderr=log, env=environment)
        worker = home_with_store / "logs" / "sweep-stopped-worker-1.log"

        def worker_trained() -> bool:
            return process.poll() is not None or (worker.exists() and " of 200 trials" in worker.read_text())

        assert until(worker_trained, 400), (home_with_store / "log").read_text()
        assert process.poll() is None, (home_with_store / "log").read_text()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130, (home_with_store / "log").read_text()
    assert "Cancelled" in (home_with_store / "log").read_text()

    again = [*command, "--trials", "8", "--json"]
    done = subprocess.run(again, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (parent,) = tracking.client().search_runs([tracking.experiment_id("unfreeze")], "tags.`unfreeze.kind` = 'sweep'")
    assert parent.info.status == "FINISHED"
    assert "RUNNING" not in {run.info.status for run in children(parent.info.run_id)}
