"""`unfreeze look`: what there is in a folder of images and what is wrong with it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.conftest import draw_stripes
from tests.deployments.browser import needs_chromium, views_without_a_network
from unfreeze.flows.cli import main
from unfreeze.models.images.listing.sources import resolve_source
from unfreeze.models.images.listing.splits import grouped
from unfreeze.models.settings import DataSpec

SETTINGS = ["--model.backbone", "timm/test_resnet", "--model.weights", "none", "--data.size", "32"]


@pytest.fixture
def messy(tmp_path: Path) -> Path:
    """Stripes, of which two are in the wrong folder, one is there twice, one was compressed again, one is no image."""
    folder = tmp_path / "stripes"
    draw_stripes(folder, 30, seed=0)
    across, down = (sorted((folder / name).iterdir()) for name in ("across", "down"))
    shutil.copy(across[0], folder / "across" / "copy.png")
    Image.open(across[5]).convert("RGB").resize((60, 60)).save(folder / "across" / "again.jpg", quality=90)
    for file in down[:2]:
        file.rename(folder / "across" / f"down-{file.name}")
    (folder / "down" / "notes.png").write_text("no image")
    return folder


@pytest.fixture
def looked(messy: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> dict:
    monkeypatch.chdir(messy.parent)
    assert main(["look", "stripes", *SETTINGS, "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def names(rows: list[dict[str, str]], column: str = "path") -> set[str]:
    return {Path(row[column]).name for row in rows}


def test_copies_wrong_labels_and_unusable_files_are_found(looked: dict, messy: Path) -> None:
    tables = {key: rows for key, (_, rows) in looked["tables"].items()}
    assert names(tables["rejected"]) == {"notes.png"}
    assert names(tables["duplicates"]) == {"copy.png", "0-0.png"}
    pairs = [{Path(row["path"]).name, Path(row["like"]).name} for row in tables["near-duplicates"]]
    twin = next(pair for pair in pairs if "again.jpg" in pair)
    assert len(twin) == 2
    moved = {name for name in names(tables["label-errors"]) if name.startswith("down-")}
    assert moved == {path.name for path in (messy / "across").glob("down-*")}
    counts = {row["class"]: row["train"] + row["valid"] for row in tables["classes"]}
    assert counts == {"across": 34, "down": 28}


def test_near_copies_across_the_split_are_a_table_of_groups_to_train_on(
    messy: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, file in enumerate(sorted((messy / "down").glob("0-*.png"))[:8]):
        Image.open(file).convert("RGB").resize((60, 60)).save(messy / "down" / f"again-{number}.jpg", quality=90)
    monkeypatch.chdir(messy.parent)
    assert main(["look", "stripes", *SETTINGS, "--data.valid_fraction", "0.5", "--json"]) == 0
    looked = json.loads(capsys.readouterr().out.splitlines()[-1])
    table = pd.read_csv(looked["groups"])
    group = dict(zip(table["path"], table["group"], strict=True))
    pairs = looked["tables"]["near-duplicates"][1]
    assert any(row["split"] != row["its split"] for row in pairs)
    assert all(group[row["path"]] == group[row["like"]] for row in pairs)
    data = DataSpec(source=looked["groups"], group_column="group")
    assert len(grouped(resolve_source(data, Path()), data).files) == len(table)


def test_the_page_holds_everything_and_the_list_can_be_excluded(looked: dict, messy: Path) -> None:
    page = Path(looked["out"]).read_text()
    assert "http" not in page.replace("http-equiv", "")
    assert "data:image/jpeg;base64," in page
    listed = Path(looked["exclude"]).read_text().splitlines()
    assert set(map(str, (messy / "across").resolve().glob("down-*"))) <= {str(Path(path).resolve()) for path in listed}
    again = ["look", "stripes", *SETTINGS, "--data.exclude", looked["exclude"], "--out", "again.html", "--json"]
    assert main(again) == 0


@pytest.mark.slow
@needs_chromium
def test_a_browser_without_a_network_shows_the_page_on_a_phone_and_on_a_wide_screen(looked: dict) -> None:
    for page in views_without_a_network(Path(looked["out"]).resolve(), "look"):
        assert page.locator("img").count() >= 1


def test_a_page_that_cannot_be_written_is_said_first(messy: Path, own_home: Path, capsys) -> None:
    assert main(["look", str(messy), *SETTINGS, "--out", "/nowhere/look.html"]) == 2
    assert "--out: there is no folder /nowhere" in capsys.readouterr().err


def test_numbers_in_json_are_plain(looked: dict) -> None:
    assert all(isinstance(value, int | float) for value in looked["metrics"].values())
    assert np.isfinite(list(looked["metrics"].values())).all()
