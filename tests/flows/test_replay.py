"""A run trained anew, through a real Prefect API and a real MLflow store."""

import json
from pathlib import Path

import pytest

from tests.flows.tiny import tiny_table, tiny_training, write_sales
from unfreeze.flows.cli import main

pytestmark = pytest.mark.usefixtures("prefect_api")


def replay(run_id: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, object], str]:
    """Status, JSON and what a person reads."""
    capsys.readouterr()
    status = main(["replay", run_id, "--json"])
    output = capsys.readouterr()
    return status, json.loads(output.out.splitlines()[-1]), output.err


@pytest.mark.slow
def test_a_replay_ends_with_the_same_model_and_leaves_the_champion_alone(
    stripes: Path, home_with_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from unfreeze.flows.train_images import train_images
    from unfreeze.tasks import tracking

    trained = train_images(tiny_training(stripes))
    status, found, said = replay(trained["run_id"], capsys)
    assert (status, found["equal"], found["differences"]) == (0, True, [])
    assert "the same model" in said
    names = {each.name for each in tracking.client().search_registered_models()}
    assert names == {trained["model"]["name"], f"{trained['model']['name']}-replay"}
    assert len(tracking.client().search_model_versions(f"name = '{trained['model']['name']}'")) == 1


@pytest.mark.slow
def test_other_data_are_named(tmp_path: Path, home_with_store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from unfreeze.flows.train_images import train_tables

    sales = write_sales(tmp_path)
    trained = train_tables(tiny_table(sales))
    table = sales / "sales.csv"
    table.write_text("\n".join([*table.read_text().splitlines()[:-1], ""]))
    status, found, said = replay(trained["run_id"], capsys)
    assert (status, found["equal"]) == (1, False)
    assert found["differences"] == ["data: other rows, targets or split"]
    assert "another model" in said


def test_a_run_without_a_model_is_refused(home_with_store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", "0123456789abcdef0123456789abcdef"]) == 2
    assert "0123456789abcdef0123456789abcdef" in capsys.readouterr().err
