"""`unfreeze export` of registered models."""

import json
from pathlib import Path
from typing import Any

import pytest

from unfreeze.flows.cli import main
from unfreeze.models.images.pixels.index import Index
from unfreeze.tasks.steps.prepare import kept_file
from unfreeze.tasks.tracking import registry

pytestmark = [pytest.mark.usefixtures("prefect_api"), pytest.mark.slow]


def test_a_registered_model_is_checked_on_its_validation_images(
    lines_model: dict[str, Any], tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", "lines", "--to", "torch", "--json"]) == 0
    shown = capsys.readouterr()
    result = json.loads(shown.out.splitlines()[-1])
    assert (result["model"], result["out"]) == ("lines-classifier", "lines-classifier-torch")
    assert result["check"]["rows"] == len(Index.load(kept_file(lines_model["run_id"])).rows_of("valid"))
    assert not result["check"]["generated"]
    assert "answers are the same" in shown.err
    assert (tmp_path / "lines-classifier-torch" / "model.pt2").is_file()
    assert main(["export", "lines", "--to", "torch"]) == 2
    assert "exists already" in capsys.readouterr().err


def test_a_folder_is_checked_on_given_or_generated_images(
    lines_model: dict[str, Any], stripes: Path, tmp_path: Path, capsys
) -> None:
    folder = registry.folder_of(registry.version_of("lines-classifier", "champion"))
    assert main(["export", str(folder), "--to", "torch", "--out", str(tmp_path / "a"), "--check", str(stripes)]) == 0
    assert "generated" not in capsys.readouterr().err
    assert main(["export", str(folder), "--to", "torch", "--out", str(tmp_path / "b")]) == 0
    assert "checked on 100 generated images (give real ones with --check)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--to", "tflite"], "for --to. Choose from"),
        (["--out", "/nowhere/at/all"], "there is no folder /nowhere/at"),
        (["--check", "gone"], "'gone' does not exist"),
        (["--to", "timm"], "--to onnx"),
    ],
)
def test_what_does_not_work_is_said_in_a_line(
    lines_model: dict[str, Any], tmp_path: Path, capsys, monkeypatch, arguments: list[str], problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", "lines", *arguments]) == 2
    assert problem in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_table_is_not_exported(tmp_path: Path, capsys) -> None:
    from unfreeze.models.store.model_folder import save_model_folder

    save_model_folder(tmp_path / "sales", [], {"modality": "tables"})
    assert main(["export", str(tmp_path / "sales")]) == 2
    assert "is one of tables: export is for image classifiers" in capsys.readouterr().err
