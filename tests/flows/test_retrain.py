"""Retraining with a champion, through a real Prefect API and a real MLflow store."""

import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from prefect.artifacts import Artifact
from prefect.blocks.abstract import NotificationBlock
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import StateType
from prefect.states import Completed, Running

from tests.conftest import draw_stripes
from tests.flows.tiny import tiny_table, tiny_training, write_sales
from unfreeze.models.errors import UserError
from unfreeze.models.images.pixels.index import Index
from unfreeze.models.settings.retrain import PromotionSpec, Retrain
from unfreeze.tasks import tracking
from unfreeze.tasks.steps.prepare import kept_file
from unfreeze.tasks.tracking import registry

pytestmark = pytest.mark.usefixtures("prefect_api")

ANYTHING_BETTER = PromotionSpec(significance=1)


@pytest.fixture
def champion(stripes: Path, home_with_store: Path, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A folder of images, and the result of training on it: the champion of `lines`."""
    from unfreeze.flows.train_images import train_images

    source = tmp_path / "images"
    shutil.copytree(stripes, source)
    recipe = [{"name": "full", "train": "all", "lr": 1e-6, "ratio": 3}]  # too slow to learn anything
    return source, train_images(tiny_training(source, recipe=recipe, **{"tracking.model_name": "lines-classifier"}))


class FileNotification(NotificationBlock):
    """Writes what people would be told into a file."""

    path: str

    async def notify(self, body: str, subject: str | None = None) -> None:
        with open(self.path, "a") as file:
            file.write(f"{subject}: {body}\n")


LEARNS = {"recipe.full.lr": "0.01", "recipe.full.cycles": "4"}


@pytest.mark.slow
def test_unchanged_data_are_not_trained_on_again(champion: tuple[Path, dict[str, Any]]) -> None:
    from unfreeze.flows.retrain import retrain

    state = retrain(Retrain(model="lines"), return_state=True)
    assert state.is_completed()
    assert "no new data" in str(state.message)
    assert state.result()["decision"] == "no new data"
    assert len(tracking.client().search_model_versions("name = 'lines-classifier'")) == 1


def test_a_challenger_that_wins_becomes_champion_and_the_decision_is_written_down(
    champion: tuple[Path, dict[str, Any]],
) -> None:
    from unfreeze.flows.retrain import retrain

    source, trained = champion
    before = Index.load(kept_file(trained["run_id"])).sides()
    draw_stripes(source, 30, seed=7)
    # Random weights fine-tuned at a lr that learns, against a champion that could not.
    result = retrain(Retrain(model="lines", warm_start="fresh", changes=LEARNS, promotion=ANYTHING_BETTER))

    assert result["decision"] == "promoted", result["reasons"]
    assert registry.version_of("lines-classifier", "champion").number == "2"
    assert registry.version_of("lines-classifier", "previous").number == "1"
    version = tracking.client().get_model_version("lines-classifier", "2")
    assert "Version 2 was promoted over version 1: accuracy" in version.description
    assert version.tags["unfreeze.decision"] == "promoted"
    assert json.loads(tracking.tags_of(result["run_id"])["unfreeze.decision.numbers"])["rows"] > 0
    artifact = Artifact.get("retrain-lines-classifier")
    assert artifact is not None
    assert "was promoted" in str(artifact.data)
    after = Index.load(kept_file(result["run_id"])).sides()
    assert {content: after[content] for content in before} == before
    assert result["comparison"]["rows"] == sum(side == "valid" for side in after.values())
    assert {row["what"] for row in result["drift"]} >= {"class balance", "brightness", "feature space"}


@pytest.mark.slow
def test_a_challenger_that_does_not_win_leaves_the_champion_and_is_not_tried_again(
    champion: tuple[Path, dict[str, Any]],
) -> None:
    from unfreeze.flows.retrain import retrain

    source, _ = champion
    draw_stripes(source, 3, seed=8)
    hopeless = Retrain(model="lines-classifier", promotion=PromotionSpec(margin=2))
    result = retrain(hopeless)
    assert result["decision"] == "kept champion"
    assert any(reason.startswith("accuracy") for reason in result["reasons"])
    assert registry.version_of("lines-classifier", "champion").number == "1"
    assert registry.version_of("lines-classifier", "challenger").number == "2"
    assert retrain(hopeless)["decision"] == "no new data"


@pytest.mark.slow
def test_a_warm_start_takes_over_the_champions_body(champion: tuple[Path, dict[str, Any]]) -> None:
    from unfreeze.flows.retrain import retrain

    result = retrain(Retrain(model="lines", even_if_unchanged=True, promotion=PromotionSpec(margin=2)))
    weights = Path(tracking.spec_of(result["run_id"])["model"]["weights"])
    assert (weights / "model.safetensors").exists()
    assert tracking.tags_of(result["run_id"])["unfreeze.fresh_weights"] == "none"
    assert tracking.tags_of(result["run_id"])["unfreeze.challenges"] == "lines-classifier/1"


@pytest.mark.slow
def test_two_retrainings_of_one_model_do_not_run_at_once(champion: tuple[Path, dict[str, Any]]) -> None:
    from unfreeze.flows.retrain import retrain

    with get_client(sync_client=True) as client:
        parameters = {"params": {"model": "lines-classifier"}}
        other = client.create_flow_run(retrain, parameters=parameters, state=Running())
        state = retrain(Retrain(model="lines"), return_state=True)
        client.set_flow_run_state(other.id, Completed(), force=True)
    assert state.name == "Skipped"
    assert "another retraining of lines-classifier is under way" in str(state.message)
    assert retrain(Retrain(model="lines"))["decision"] == "no new data"


def answer(run_input: dict[str, Any], answered: list[str]) -> None:
    """Wait for a paused flow run, as a person would on its page, and fill in its form."""
    paused = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED])))
    for _ in range(600):
        with get_client(sync_client=True) as client:
            found = client.read_flow_runs(flow_run_filter=paused)
            if found:
                client.resume_flow_run(found[0].id, run_input=run_input)
                answered.append(found[0].name)
                return
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.parametrize("promote", [True, False])
def test_a_person_has_the_last_word_where_approval_is_asked_for_and_blocks_are_told(
    champion: tuple[Path, dict[str, Any]], tmp_path: Path, promote: bool
) -> None:
    from unfreeze.flows.retrain import retrain

    log = tmp_path / "told.txt"
    FileNotification(path=str(log)).save("team", overwrite=True)
    draw_stripes(champion[0], 6, seed=9)
    answered: list[str] = []
    person = threading.Thread(target=answer, args=({"promote": promote, "comment": "seen by Ada"}, answered))
    person.start()
    settings = {"warm_start": "fresh", "changes": LEARNS, "promotion": ANYTHING_BETTER, "approval": True}
    result = retrain(Retrain(model="lines", notify=["filenotification/team"], **settings))
    person.join()
    assert answered == ["retrain lines"]
    assert result["decision"] == ("promoted" if promote else "kept champion")
    assert result["reasons"][-1] == f"a person {'approved' if promote else 'declined'}: seen by Ada"
    assert registry.version_of("lines-classifier", "champion").number == ("2" if promote else "1")
    assert ("has a new champion" in log.read_text()) if promote else not log.exists()


@pytest.mark.slow
def test_a_failure_is_told(champion: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    from unfreeze.flows.retrain import retrain

    FileNotification(path=str(tmp_path / "told.txt")).save("team", overwrite=True)
    shutil.rmtree(champion[0])
    with pytest.raises(UserError):
        retrain(Retrain(model="lines", notify=["filenotification/team"]))
    assert "retraining lines failed" in (tmp_path / "told.txt").read_text()


def test_an_unknown_model_and_block_are_named_before_anything_is_trained(home_with_store: Path) -> None:
    from unfreeze.flows.retrain import retrain

    with pytest.raises(UserError, match="no registered model 'cats'"):
        retrain(Retrain(model="cats"))
    with pytest.raises(UserError, match="no block 'slack-webhook/none'"):
        retrain(Retrain(model="cats", notify=["slack-webhook/none"]))


@pytest.mark.slow
def test_a_table_is_retrained_on_new_days_and_compared_on_them_alone(home_with_store: Path, tmp_path: Path) -> None:
    from unfreeze.flows.retrain import retrain
    from unfreeze.flows.train_images import train_tables

    write_sales(tmp_path, days=260)
    training = tiny_table(tmp_path)
    train_tables(training)
    assert retrain(Retrain(model="sales"))["decision"] == "no new data"
    write_sales(tmp_path)
    result = retrain(Retrain(model="sales", promotion=PromotionSpec(margin=10)))
    assert result["decision"] == "kept champion"
    assert result["comparison"]["metric"] == "rmspe"
    assert result["comparison"]["rows"] in range(50, 61)
    assert {"sales", "promo", "shop"} <= {row["column"] for row in result["drift"]}
    assert tracking.tags_of(result["run_id"])["data.trained_until"].startswith("2023-09-27")
