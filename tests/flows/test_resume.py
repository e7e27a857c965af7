"""Stopping and continuing: the same MLflow run, and bit for bit the same result."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file

from tests.flows.tiny import latest_checkpoint, tiny_training
from unfreeze.models.errors import UserError
from unfreeze.models.training.checkpoints import Checkpoint, load_checkpoint
from unfreeze.models.training.loop import fit
from unfreeze.tasks import tracking
from unfreeze.tasks.tracking import registry

pytestmark = pytest.mark.usefixtures("prefect_api")


class PlugPulledError(Exception):
    """Stands for whatever ends a process in the middle of a training."""


def last_checkpoint(run_id: str) -> Checkpoint:
    path = latest_checkpoint(run_id)
    assert path is not None
    return load_checkpoint(path)


def trained_weights(result: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Of the model that a training registered."""
    model = result["model"]
    return load_file(registry.folder_of(registry.version_of(model["name"], model["version"])) / "model.safetensors")


@pytest.fixture(scope="module")
def uninterrupted(stripes: Path, prefect_api: None) -> dict[str, Any]:
    from unfreeze.flows.train_images import train_images

    result: dict[str, Any] = train_images(tiny_training(stripes, seed=3, keep="trained"))
    return result


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "kind", "count"),
    [("full", "batch", 2), ("full", "cycle", 1)],
    ids=["right after unfreezing", "at a cycle's end"],
)
def test_a_resumed_training_equals_an_uninterrupted_one_bit_for_bit(
    stage: str,
    kind: str,
    count: int,
    uninterrupted: dict[str, Any],
    stripes: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import unfreeze.models.training.loop
    from unfreeze.flows.train_images import train_images

    def pulled(learner: Any, settings: Any, *data: Any) -> Any:
        seen = 0
        for step in fit(learner, settings, *data):
            yield step
            seen += settings.name == stage and step.kind == kind
            if seen == count:
                raise PlugPulledError

    with monkeypatch.context() as patch:
        patch.setattr(unfreeze.models.training.loop, "fit", pulled)
        state = train_images(tiny_training(stripes, seed=3, keep="trained"), return_state=True)
    assert state.is_failed()
    (run,) = MlflowClient().search_runs([tracking.experiment_id("unfreeze")], max_results=1)
    run_id = run.info.run_id
    assert run.info.status == "FAILED"

    resumed = train_images(tiny_training(stripes), resume_run_id=run_id)

    assert resumed["run_id"] == run_id
    assert resumed["metrics"] == uninterrupted["metrics"]
    found = trained_weights(resumed)
    for name, tensor in trained_weights(uninterrupted).items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.slow
def test_a_retried_flow_run_continues_in_its_own_mlflow_run(stripes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import unfreeze.models.training.loop
    from unfreeze.flows.train_images import train_images

    calls = []

    def once(*arguments: Any) -> Any:
        steps = fit(*arguments)
        calls.append(1)
        for number, step in enumerate(steps):
            yield step
            if len(calls) == 1 and number == 3:
                raise PlugPulledError

    monkeypatch.setattr(unfreeze.models.training.loop, "fit", once)
    before = len(MlflowClient().search_runs([tracking.experiment_id("unfreeze")]))
    result = train_images.with_options(retries=1)(tiny_training(stripes, seed=4))
    assert len(MlflowClient().search_runs([tracking.experiment_id("unfreeze")])) == before + 1
    assert MlflowClient().get_run(result["run_id"]).info.status == "FINISHED"


@pytest.mark.slow
def test_a_finished_run_is_not_resumed(uninterrupted: dict[str, Any]) -> None:
    run_id = uninterrupted["run_id"]
    with pytest.raises(UserError, match=f"{run_id} is finished"), tracking.resumed_run(run_id, {}):
        pass


def test_an_unknown_run_is_named_in_the_error() -> None:
    with pytest.raises(UserError, match="'nothing'"):
        tracking.spec_of("nothing")


@pytest.mark.slow
def test_a_run_is_not_resumed_with_other_images(stripes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    import unfreeze.models.training.loop
    from unfreeze.flows.train_images import train_images

    folder = tmp_path / "images"
    shutil.copytree(stripes, folder)

    def pulled(*arguments: Any) -> Any:
        yield next(fit(*arguments))
        raise PlugPulledError

    with monkeypatch.context() as patch:
        patch.setattr(unfreeze.models.training.loop, "fit", pulled)
        assert train_images(tiny_training(folder), return_state=True).is_failed()
    (run,) = MlflowClient().search_runs([tracking.experiment_id("unfreeze")], max_results=1)
    next(folder.glob("down/*.png")).unlink()
    with pytest.raises(UserError, match="changed since run"):
        train_images(tiny_training(folder), resume_run_id=run.info.run_id)


@pytest.mark.slow
def test_ctrl_c_saves_a_checkpoint_and_leaves_a_killed_run_that_can_be_resumed(
    stripes: Path, home_with_store: Path
) -> None:
    import yaml

    spec = tiny_training(stripes, **{"recipe.full.cycles": 8})
    config = home_with_store / "spec.yaml"
    config.write_text(yaml.safe_dump(spec.model_dump(mode="json")))
    environment = {**os.environ, "PREFECT_LOGGING_LEVEL": "INFO"}
    command = [sys.executable, "-m", "unfreeze.flows.cli", "train", "--config", str(config)]
    with (home_with_store / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        deadline = time.monotonic() + 120
        while "full: epoch 2 " not in (home_with_store / "log").read_text():
            assert process.poll() is None, (home_with_store / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    text = (home_with_store / "log").read_text()
    run_id = text.split("unfreeze resume ")[1].split()[0].strip("'\")")
    assert "Cancelled" in text
    assert tracking.get_run(run_id).info.status == "KILLED"
    assert last_checkpoint(run_id).stage == 2
    again = subprocess.run(
        [sys.executable, "-m", "unfreeze.flows.cli", "resume", run_id, "--json"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert again.returncode == 0, again.stderr
    assert f'"run_id": "{run_id}"' in again.stdout.splitlines()[-1]
