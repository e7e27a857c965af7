"""MLflow, on a real SQLite store."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow import MlflowClient

from unfreeze.flows.cli import main
from unfreeze.models.errors import UserError
from unfreeze.models.settings.fields import flatten
from unfreeze.tasks import tracking
from unfreeze.tasks.tracking.runs import find_run, recent_runs

pytestmark = pytest.mark.usefixtures("home_with_store")


def start(name: str, experiment: str = "tests", kind: str = "test") -> str:
    """A run that MLflow has and nobody trains: what is logged to it goes there at once."""
    spec = {"seed": 1, "recipe": [{"name": "head"}]}
    with tracking.new_run(experiment, name, spec, {"unfreeze.kind": kind}) as key:
        pass
    return str(tracking.get_run(key).info.run_id)


def history(run_id: str, key: str) -> list[tuple[int, float]]:
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    return [(metric.step, metric.value) for metric in client.get_metric_history(run_id, key)]


def test_settings_are_flattened_by_dotted_name() -> None:
    nested = {"data": {"size": None}, "recipe": [{"name": "head"}, {"lrs": [0.1, 0.2]}], "metrics": ["f1"]}
    assert flatten(nested) == {
        "data.size": None,
        "recipe.0.name": "head",
        "recipe.1.lrs": "[0.1, 0.2]",
        "metrics": '["f1"]',
    }


def test_a_run_is_found_by_the_beginning_of_its_id_its_name_or_as_the_last_training() -> None:
    cats, dogs = start("cats resnet34", kind="train-images"), start("dogs", kind="train-images")
    start("a sweep", kind="sweep")
    most = next(length for length in range(1, 32) if cats[:length] != dogs[:length])
    for given, expected in {
        cats: cats,
        cats[: most + 4]: cats,
        "cats resnet34": cats,
        "dogs": dogs,
        "last": dogs,
    }.items():
        assert find_run(given) == expected


def test_a_name_of_several_runs_or_of_none_is_refused_with_the_choices() -> None:
    runs = [start("cats", kind="train-images") for _ in range(2)]
    with pytest.raises(UserError, match=r"'cats' may be any of 2 runs: ") as refused:
        find_run("cats")
    assert all(run in str(refused.value) for run in runs)
    with pytest.raises(UserError, match="there is no run 'birds'; give the id of one in `unfreeze runs`"):
        find_run("birds")


def test_a_run_that_failed_for_its_settings_says_what_to_correct_before_it_is_resumed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(UserError), tracking.new_run("tests", "wrong", {}, {"unfreeze.kind": "train-images"}) as key:
        raise UserError("metrics: cost fails")
    (row,) = recent_runs(1)
    assert row["why"] == "metrics: cost fails"
    assert main(["runs"]) == 0
    said = f"failed: metrics: cost fails; once that is corrected, continue with: unfreeze resume {row['run']}"
    assert said in capsys.readouterr().out
    assert row["run"] == tracking.get_run(key).info.run_id


def test_two_parallel_runs_log_to_their_own_runs() -> None:
    runs = [start("first"), start("second")]

    def work(number: int) -> None:
        with tracking.MetricLog(runs[number]) as log:
            for step in range(700):
                log.log({"train/loss": number * 1000 + step}, step)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(2)))
    for number, run_id in enumerate(runs):
        assert history(run_id, "train/loss") == [(step, number * 1000.0 + step) for step in range(700)]


def test_metrics_of_a_block_that_fails_are_sent_all_the_same() -> None:
    run_id = start("failing")
    with pytest.raises(ZeroDivisionError), tracking.MetricLog(run_id) as log:
        log.log({"train/loss": 1.5}, 1)
        raise ZeroDivisionError
    assert history(run_id, "train/loss") == [(1, 1.5)]


def test_a_deleted_experiment_is_named_in_the_error() -> None:
    tracking.client().delete_experiment(tracking.experiment_id("gone"))
    with pytest.raises(UserError, match="'gone' was deleted"):
        tracking.experiment_id("gone")


def test_an_undefined_metric_is_rejected() -> None:
    assert tracking.as_float({"auc": float("nan"), "loss": float("inf"), "accuracy": 1}) == {"accuracy": 1.0}


def test_a_missing_artifact_is_none() -> None:
    assert tracking.fetch(start("empty"), "checkpoints/none.safetensors") is None


@pytest.mark.parametrize("name", ["../../evil", "a/b:c", "/tmp", "..", "猫と犬", "#x?y", "a\\..\\b", "x" * 256])
def test_an_experiment_of_any_name_keeps_its_artifacts_in_one_folder_of_the_home(
    name: str, home_with_store: Path
) -> None:
    run_id = start("run", name)
    tracking.log_text(run_id, "content", "note.txt")
    (note,) = home_with_store.parent.rglob("note.txt")
    assert note.parents[3] == home_with_store / "mlflow-artifacts"
    kept = tracking.fetch(run_id, "note.txt")
    assert kept is not None
    assert kept.read_text() == "content"
