"""Two trainings compared, through a real Prefect API and a real MLflow store."""

import json
from pathlib import Path

import pytest

from tests.flows.tiny import tiny_table, tiny_training, write_sales
from unfreeze.flows.cli import main
from unfreeze.models.errors import UserError

pytestmark = pytest.mark.usefixtures("prefect_api")


@pytest.mark.slow
def test_two_trainings_are_compared_on_the_images_that_both_evaluated(
    stripes: Path, home_with_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from unfreeze.flows.train_images import train_images

    untrained = [{"name": "head", "lr": 1e-8, "precompute": True}]
    quick = [{"name": "head", "lr": 0.01, "precompute": True, "cycles": 5, "cycle_len": 3}]
    runs = [
        train_images(tiny_training(stripes, recipe=recipe, keep="trained"))["run_id"] for recipe in (untrained, quick)
    ]
    assert main(["compare", *runs, "--json"]) == 0
    output = capsys.readouterr()
    found = json.loads(output.out.splitlines()[-1])
    comparison = found["comparison"]
    gained, lost = found["flipped"]
    assert comparison["test"] == "McNemar"
    assert comparison["improvement"] == pytest.approx((gained - lost) / found["rows"])
    assert comparison["low"] <= comparison["improvement"] <= comparison["high"]
    assert len(found["better"]) == gained
    assert f"On {found['rows']} valid rows" in output.err
    assert main(["compare", *reversed(runs), "--json"]) == 0
    back = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert back["flipped"] == [lost, gained]


@pytest.mark.slow
def test_tables_are_compared_on_the_same_rows_only(tmp_path: Path, home_with_store: Path) -> None:
    from unfreeze.flows.train_images import train_tables
    from unfreeze.tasks.retraining.compare import compare_runs

    sales = write_sales(tmp_path)
    one = train_tables(tiny_table(sales, trees=False))["run_id"]
    two = train_tables(tiny_table(sales, trees=False, seed=1))["run_id"]
    other = train_tables(tiny_table(sales, trees=False, **{"data.valid_days": 20}))["run_id"]
    found = compare_runs(one, two)
    assert found["comparison"]["metric"] == "rmspe"
    assert "blocks" in found["comparison"]["test"]
    assert found["rows"] > 0
    with pytest.raises(UserError, match="evaluated other rows"):
        compare_runs(one, other)


def test_a_run_without_predictions_is_refused(home_with_store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "0" * 32, "1" * 32]) == 2
    assert "0" * 32 in capsys.readouterr().err
