"""`unfreeze explain`: what registered models of images and of tables look at."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.flows.tiny import tiny_table, write_sales
from unfreeze.flows.cli import main

pytestmark = pytest.mark.usefixtures("prefect_api")


@pytest.fixture
def lines(stripes: Path, lines_model: dict[str, Any]) -> Path:
    """An image to explain, of those that `lines-classifier` was trained on."""
    return min((stripes / "down").iterdir())


@pytest.fixture(scope="module")
def sales(tmp_path_factory: pytest.TempPathFactory, prefect_api: None) -> Path:
    """A model of sales with trees and features of events, registered as `takings-table`, and the file of its rows."""
    from unfreeze.flows.train_images import train_tables

    folder = write_sales(tmp_path_factory.mktemp("sales"))
    train_tables(tiny_table(folder, **{"tracking.model_name": "takings-table"}))
    return folder / "sales.csv"


def explained(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["explain", *arguments, "--device", "cpu", "--json"]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return result


def page_of(result: dict[str, Any]) -> str:
    """The page, which must ask for nothing."""
    page = Path(result["out"]).read_text()
    assert "http" not in page.replace("http-equiv", "")
    assert "src=" not in page.replace('src="data:image/', "")
    return page


def test_a_classifier_is_explained_by_maps(lines: Path, tmp_path: Path, capsys) -> None:
    (broken := tmp_path / "broken.png").write_text("no image")
    result = explained(capsys, "lines", str(lines), str(broken), "--out", str(tmp_path / "page.html"))
    page = page_of(result)
    for text in ("across", "down", lines.name):
        assert text in page
    (row,) = result["tables"]["answers"][1]
    assert {row["class"], row["class 2"]} == {"across", "down"}
    assert row["probability"] + row["probability 2"] == pytest.approx(1, abs=1e-3)
    assert any("broken.png cannot be read" in notice for notice in result["notices"])


@pytest.mark.slow
def test_a_table_is_explained_by_its_columns(sales: Path, tmp_path: Path, capsys) -> None:
    result = explained(capsys, "takings", str(sales), "--out", str(tmp_path / "page.html"))
    page, importance = page_of(result), {row["column"]: row for row in result["tables"]["importance"][1]}
    assert set(importance) >= {"shop", "day", "promo"}
    assert importance["shop"]["worse by"] > 3 * importance["shop"]["deviation"]
    assert all(name in page for name in importance)
    kept_trees = any(key.startswith("shap") for key in result["tables"])
    assert kept_trees != any("kept no trees" in line for line in result["lines"])


@pytest.mark.slow
def test_without_targets_it_says_why_there_is_no_importance(sales: Path, tmp_path: Path, capsys) -> None:
    coming = tmp_path / "coming.csv"
    pd.read_csv(sales).drop(columns="sales").head(20).to_csv(coming, index=False)
    result = explained(capsys, "takings", str(coming), "--out", str(tmp_path / "page.html"))
    assert "importance" not in result["tables"]
    assert "permutation importance is left out: the file has no target column 'sales'" in result["lines"]


@pytest.mark.slow
def test_what_does_not_fit_is_said(lines: Path, sales: Path, tmp_path: Path, capsys) -> None:
    out = ["--out", str(tmp_path / "page.html")]
    for arguments, problem in (
        (["takings", str(sales), str(sales), *out], "give one file, not 2"),
        (["lines", str(lines), "--out", "/nowhere/page.html"], "there is no folder /nowhere"),
        (["unknown", str(lines), *out], "there is no registered model 'unknown'"),
    ):
        assert main(["explain", *arguments]) == 2
        assert problem in capsys.readouterr().err
