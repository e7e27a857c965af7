"""Damage of what is kept: noticed, said, mended where it can be, and never computed with."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient

from tests.damage import Damage, empty, flip_20_kb, flip_bit
from tests.flows.tiny import latest_checkpoint, tiny_training
from unfreeze.models.errors import UserError
from unfreeze.models.store import sealed_files
from unfreeze.models.training.loop import fit
from unfreeze.tasks import tracking
from unfreeze.tasks.machine.environment import home
from unfreeze.tasks.report.publish import report_to_file
from unfreeze.tasks.retraining.compare import compare_runs
from unfreeze.tasks.tracking import registry

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_api")]


class PlugPulledError(Exception):
    """Stands for whatever ends a process in the middle of a training."""


@pytest.fixture(scope="module")
def uninterrupted(stripes: Path, prefect_api: None) -> dict[str, Any]:
    from unfreeze.flows.train_images import train_images

    result: dict[str, Any] = train_images(tiny_training(stripes, seed=3))
    return result


@pytest.fixture
def stopped(stripes: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run that stopped in the last stage's second cycle, with two checkpoints, of which the first is an epoch old."""
    import unfreeze.models.training.loop
    from unfreeze.flows.train_images import train_images

    def pulled(learner: Any, settings: Any, *data: Any) -> Any:
        for step in fit(learner, settings, *data):
            yield step
            if settings.name == "full" and step.kind == "batch" and step.epoch == 1:
                raise PlugPulledError

    with monkeypatch.context() as patch:
        patch.setattr(unfreeze.models.training.loop, "fit", pulled)
        spec = tiny_training(stripes, seed=3, **{"tracking.cycle_checkpoints": False})
        assert train_images(spec, return_state=True).is_failed()
    (run,) = MlflowClient().search_runs([tracking.experiment_id("unfreeze")], max_results=1)
    return str(run.info.run_id)


def kept_checkpoints(run_id: str) -> dict[str, Path]:
    """The run's latest checkpoint and the other one."""
    latest = latest_checkpoint(run_id)
    assert latest is not None
    (other,) = (path for path in latest.parent.iterdir() if path != latest)
    return {"latest": latest, "other": other}


def resume(run_id: str, stripes: Path) -> dict[str, Any]:
    from unfreeze.flows.train_images import train_images

    resumed: dict[str, Any] = train_images(tiny_training(stripes), resume_run_id=run_id)
    return resumed


@pytest.mark.parametrize("damage", [flip_bit, Path.unlink])
def test_a_training_goes_on_from_the_checkpoint_before_a_damaged_one(
    damage: Damage, uninterrupted: dict[str, Any], stopped: str, stripes: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = kept_checkpoints(stopped)
    damage(files["latest"])
    caplog.clear()
    assert resume(stopped, stripes)["metrics"] == uninterrupted["metrics"]
    said = caplog.text
    what = "missing" if damage is Path.unlink else "damaged"
    assert f"{files['latest'].name} of run {stopped} is {what}" in said
    assert f"{files['other'].name} is used instead, from stage 2 after step 15" in said


def test_without_any_checkpoint_a_training_begins_again_and_says_so(
    uninterrupted: dict[str, Any], stopped: str, stripes: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for path in kept_checkpoints(stopped).values():
        empty(path)
    assert resume(stopped, stripes)["metrics"] == uninterrupted["metrics"]
    assert f"run {stopped} has no checkpoint that can be used: it begins again at its first epoch" in caplog.text


def artifact(run_id: str, name: str) -> Path:
    path = tracking.fetch(run_id, name)
    assert path is not None
    return path


def change_a_digit(path: Path) -> None:
    """What is no less valid than before."""
    text = path.read_text()
    assert '"seed": 3' in text
    path.write_text(text.replace('"seed": 3', '"seed": 2'))


@pytest.mark.parametrize("damage", [change_a_digit, flip_bit, empty, Path.unlink])
def test_a_training_whose_spec_is_damaged_continues_by_its_copy(
    damage: Damage, uninterrupted: dict[str, Any], stopped: str, stripes: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damage(artifact(stopped, "spec.json"))
    assert resume(stopped, stripes)["metrics"] == uninterrupted["metrics"]
    assert damage is Path.unlink or f"spec.json of run {stopped} is damaged" in caplog.text


def test_a_run_without_any_spec_that_can_be_used_is_refused(stopped: str, stripes: Path) -> None:
    for name in ("spec.json", "code/spec.json"):
        flip_bit(artifact(stopped, name))
    with pytest.raises(
        UserError, match=rf"^spec.json of run {stopped} is damaged \(its content is not what was logged"
    ):
        resume(stopped, stripes)


@pytest.mark.parametrize("damage", [flip_bit, empty])
@pytest.mark.parametrize("suffix", [".png", ".txt", ".json"])
def test_a_report_lacks_what_is_damaged_and_says_so(
    suffix: str,
    damage: Damage,
    uninterrupted: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_id = uninterrupted["run_id"]
    folder = artifact(run_id, "spec.json").parent
    paths = [path for path in folder.rglob(f"*{suffix}") if path.parent != folder and path.name != "data.json"]
    kept = {path: path.read_bytes() for path in paths}
    assert kept
    for path in paths:
        damage(path)
    page = report_to_file(run_id, tmp_path / "report.html")
    for path, content in kept.items():
        path.write_bytes(content)
    assert page
    told = "is damaged" in capsys.readouterr().err
    if suffix in (".png", ".txt"):  # shown as they are
        assert not told
    elif damage is empty:  # with one bit they may be as readable as before
        assert told


def test_predictions_that_are_damaged_are_not_compared(uninterrupted: dict[str, Any], stripes: Path) -> None:
    from unfreeze.flows.train_images import train_images

    other = train_images(tiny_training(stripes, seed=4))
    flip_bit(artifact(other["run_id"], "valid/predictions.feather"))
    with pytest.raises(UserError, match=f"valid/predictions.feather of run {other['run_id']} is damaged"):
        compare_runs(uninterrupted["run_id"], other["run_id"])


def test_damaged_caches_are_built_again_and_the_result_is_the_same(
    uninterrupted: dict[str, Any], stripes: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from unfreeze.flows.train_images import train_images

    files = [
        path
        for kind in ("indexes", "images", "activations")
        for path in sorted((home() / "cache" / kind).iterdir())
        if path.suffix in (".arrow", ".json", ".rows")
    ]
    assert len(files) > 4
    for path in files:
        flip_20_kb(path)
    caplog.clear()
    assert train_images(tiny_training(stripes, seed=3))["metrics"] == uninterrupted["metrics"]
    said = caplog.text
    named = [path for path in files if f"{path} is damaged" in said]
    kinds = {("indexes", ".arrow")} | {(kind, end) for kind in ("images", "activations") for end in (".json", ".rows")}
    assert {(path.parent.name, path.suffix) for path in named} == kinds
    assert all(sealed_files.is_intact(path) for path in named if path.suffix != ".rows")


def test_a_model_that_is_damaged_where_it_is_stored_is_refused_and_one_in_the_cache_is_fetched_again(
    uninterrupted: dict[str, Any], stripes: Path
) -> None:
    model = uninterrupted["model"]
    version = registry.version_of(model["name"], model["version"])
    folder = registry.folder_of(version)
    weights = (folder / "model.safetensors").read_bytes()
    flip_bit(folder / "model.safetensors")
    assert (registry.folder_of(version) / "model.safetensors").read_bytes() == weights

    model_id = model["model_uri"].removeprefix("models:/")
    (stored,) = (path for path in home().rglob("model.safetensors") if model_id in path.parts)
    flip_bit(stored)
    flip_bit(folder / "model.safetensors")
    with pytest.raises(UserError, match=r"version \d+: model.safetensors is damaged in models:/.*promote"):
        registry.folder_of(version)
    flip_bit(stored)


def test_a_model_whose_loss_is_no_number_is_not_registered(
    stripes: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from unfreeze.flows.cli import main
    from unfreeze.models.training.learner import Learner

    predict = Learner.predict

    def broken(self: Learner, batches: Any) -> tuple[torch.Tensor, torch.Tensor]:
        outputs, targets = predict(self, batches)
        return (outputs * float("nan") if self.progress.stage == 2 else outputs), targets

    monkeypatch.setattr(Learner, "predict", broken)
    config = home() / "diverging.json"
    config.write_text(tiny_training(stripes, **{"tracking.model_name": "never"}).model_dump_json())
    assert main(["train", "--config", str(config), "--json"]) not in (0, None)
    out, err = capfd.readouterr()
    assert not out
    last = err.strip().splitlines()[-1]
    assert last.startswith("unfreeze: stage 'full': the validation loss is not finite after step")
    assert "start again with a lower learning rate, such as --recipe.full.lr" in last
    assert "Traceback" not in err
    (run,) = MlflowClient().search_runs([tracking.experiment_id("unfreeze")], max_results=1)
    assert run.info.status == "FAILED"
    assert registry.champion_of("never") is None


def test_the_last_line_is_json_where_a_metric_is_undefined(
    stripes: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from unfreeze.flows.cli import main
    from unfreeze.models.evaluation import metrics

    monkeypatch.setitem(metrics.CLASS_METRICS, "undefined", lambda *_: float("nan"))
    config = home() / "undefined.json"
    config.write_text(tiny_training(stripes, metrics=["undefined"]).model_dump_json())
    assert main(["train", "--config", str(config), "--json"]) == 0

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    result = json.loads(capfd.readouterr().out.splitlines()[-1], parse_constant=refuse)
    assert result["stages"][0]["metrics"]["undefined"] is None
