"""The sensor: new data are announced before they count as seen, and one broken source hides no other."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client

from tests.conftest import draw_stripes
from tests.deployments.service import until
from tests.flows.tiny import tiny_training
from unfreeze.models.settings.retrain import Watch
from unfreeze.tasks import tracking
from unfreeze.tasks.retraining.watching import NEW_DATA, RESOURCE
from unfreeze.tasks.tracking import registry

pytestmark = [pytest.mark.usefixtures("prefect_api"), pytest.mark.slow]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory, prefect_api: None) -> dict[str, Path]:
    """Sources of two registered models, by the model's name."""
    from unfreeze.flows.train_images import train_images

    folders = {name: tmp_path_factory.mktemp("sources") / name for name in ("first", "second")}
    for seed, (name, folder) in enumerate(folders.items()):
        draw_stripes(folder, 8, seed=seed)
        head = [{"name": "head", "precompute": True, "lr": 0.01}]
        train_images(tiny_training(folder, recipe=head, **{"tracking.model_name": f"watched-{name}"}))
    return folders


def watched(*names: str) -> Any:
    from unfreeze.flows.watch import watch

    return watch(Watch(models=[f"watched-{name}" for name in names]), return_state=True)


@pytest.fixture
def foreign_model() -> Iterator[str]:
    """A registered champion of another program, of no run."""
    client = tracking.client()
    client.create_registered_model("foreign")
    client.create_model_version("foreign", "/models/foreign")
    client.set_registered_model_alias("foreign", "champion", "1")
    yield "foreign"
    client.delete_registered_model("foreign")


def events_of(name: str) -> int:
    """How many events the server has that announce new data of a model."""
    wanted = {
        "filter": {
            "event": {"name": [NEW_DATA]},
            "resource": {"id": [f"{RESOURCE}.watched-{name}"]},
        }
    }
    with get_client(sync_client=True) as client:
        answer = client.request("POST", "/events/filter", json=wanted)
    return int(answer.json()["total"])


def test_data_count_as_seen_only_once_the_event_is_out(
    sources: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import unfreeze.flows.watch

    assert watched("first").result()["new data"] == []
    draw_stripes(sources["first"], 2, seed=7)

    def server_is_away(model: str) -> None:
        raise ConnectionError("the server is away")

    with monkeypatch.context() as patch:
        patch.setattr(unfreeze.flows.watch, "report_new_data", server_is_away)
        assert watched("first").is_failed()
    assert events_of("first") == 0

    assert watched("first").result()["new data"] == ["watched-first"]
    assert until(lambda: events_of("first") == 1, 30)
    # And then they do.
    assert watched("first").result()["new data"] == []
    assert events_of("first") == 1


def test_a_broken_source_hides_no_other_and_fails_the_run_in_the_end(sources: dict[str, Path]) -> None:
    watched("first", "second")
    away = sources["first"].rename(sources["first"].with_name("away"))
    draw_stripes(sources["second"], 2, seed=9)
    try:
        state = watched("first", "second")
    finally:
        away.rename(sources["first"])
    assert state.is_failed()
    assert "watched-first" in state.message
    assert "does not exist" in state.message
    assert until(lambda: events_of("second") == 1, 30)


def test_a_name_that_no_model_has_hides_no_other(sources: dict[str, Path]) -> None:
    watched("first", "second")
    draw_stripes(sources["second"], 2, seed=11)
    before = events_of("second")
    state = watched("nobody", "second")
    assert state.is_failed()
    assert "there is no registered model 'watched-nobody'" in state.message
    assert until(lambda: events_of("second") == before + 1, 30)


def test_by_default_only_models_that_unfreeze_trained_are_watched(sources: dict[str, Path], foreign_model: str) -> None:
    from unfreeze.flows.watch import watch

    state: Any = watch(Watch(), return_state=True)
    assert state.is_completed(), state.message
    assert {"watched-first", "watched-second"} <= set(state.result()["models"])
    assert foreign_model not in state.result()["models"]
    row = next(row for row in registry.champions() if row["model"] == foreign_model)
    assert (str(row["champion"]), row["run"]) == ("1", None)
