"""What a person is told about images that a training excludes."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import draw_stripes
from tests.flows.tiny import tiny_training
from unfreeze.tasks import tracking

pytestmark = [pytest.mark.usefixtures("prefect_api"), pytest.mark.slow]


def test_a_contradiction_and_a_test_folder_are_told_in_lines_and_kept_in_the_run(
    stripes: Path, tmp_path: Path, log_lines: list[str]
) -> None:
    from unfreeze.flows.train_images import train_images

    source = tmp_path / "split"
    shutil.copytree(stripes, source / "Train")
    draw_stripes(source / "Test", 12, seed=9)
    first = min((source / "Train" / "across").iterdir())
    second = source / "Train" / "down" / "copy.png"
    shutil.copy(first, second)
    result = train_images(tiny_training(source, recipe=[{"name": "head", "lr": 0.01, "precompute": True}]))
    assert "split: Test/ only tests the final model" in "\n".join(log_lines)
    (warning,) = [line for line in log_lines if line.startswith("warning: ")]
    assert "2 files are rejected because the same image has another label elsewhere" in warning
    for part in (str(first), str(second), "labelled 'across'", "labelled 'down'"):
        assert part in warning
    path = tracking.fetch(result["run_id"], "data/rejected.feather")
    assert path is not None
    kept = pd.read_feather(path)
    assert sorted(kept["path"]) == sorted([str(first), str(second)])
    assert kept["reason"].str.startswith("contradiction: ").all()
    assert tracking.tags_of(result["run_id"])["data.rows"] == str(47 + 2 * 12)
