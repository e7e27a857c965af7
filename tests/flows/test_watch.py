"""The sensor: new data are announced before they count as seen, and one broken source hides no other."""

from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client

from tests.conftest import draw_stripes
from tests.deployments.service import until
from tests.flows.tiny import tiny_training
from unfreeze.models.retrain_spec import Watch
from unfreeze.tasks.deployments import NEW_DATA, RESOURCE

pytestmark = pytest.mark.usefixtures("prefect_api")


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
        patch.setattr(unfreeze.flows.watch, "announce_new_data", server_is_away)
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
