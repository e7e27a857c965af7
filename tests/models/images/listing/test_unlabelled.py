import os
import tempfile
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, strategies as st

from unfreeze.models.errors import UserError
from unfreeze.models.images.listing.folder_files import files_below
from unfreeze.models.images.listing.sources import list_unlabelled
from unfreeze.models.settings.predict import Predict


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for name in ("b.jpg", "a.jpg", "in/deeper/c.png", "notes.txt", ".hidden.jpg", ".folder/d.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def test_a_folder_gives_all_files_that_are_not_hidden_sorted(photos: Path, tmp_path: Path) -> None:
    listed = list_unlabelled(Predict(source=str(photos)), tmp_path)
    assert listed.files == [str(photos / name) for name in ("a.jpg", "b.jpg", "in/deeper/c.png", "notes.txt")]
    assert listed.names == listed.files
    assert listed.understood == "4 files in 2 folders"


def test_the_predictions_themselves_are_no_images(photos: Path, tmp_path: Path) -> None:
    listed = list_unlabelled(Predict(source=str(photos)), tmp_path, [photos / "notes.txt", photos / "in"])
    assert listed.files == [str(photos / "a.jpg"), str(photos / "b.jpg")]


def test_one_image_is_a_source(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos)
    assert list_unlabelled(Predict(source="a.jpg"), tmp_path).files == [str(photos / "a.jpg")]


@pytest.mark.parametrize("suffix", [".csv", ".feather", ".parquet"])
def test_a_table_keeps_its_rows_in_order_and_its_paths_as_written(photos: Path, tmp_path: Path, suffix: str) -> None:
    frame = pd.DataFrame({"id": [1, 2, 3, 4], "file": ["b.jpg", "in/../a.jpg", None, str(photos / "gone.jpg")]})
    table = photos / f"list{suffix}"
    {".csv": frame.to_csv, ".feather": frame.to_feather, ".parquet": frame.to_parquet}[suffix](table)
    listed = list_unlabelled(Predict(source=str(table), path_column="file"), tmp_path)
    assert listed.names == ["b.jpg", "in/../a.jpg", "", str(photos / "gone.jpg")]
    assert listed.files == [str(photos / "b.jpg"), str(photos / "a.jpg"), "", str(photos / "gone.jpg")]


def test_the_digits_are_a_source(tmp_path: Path) -> None:
    listed = list_unlabelled(Predict(source="digits"), tmp_path)
    assert len(listed.files) == 1797
    assert Path(listed.files[0]).is_file()


def test_a_file_name_that_is_no_text_is_listed_and_shown_with_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    name = os.fsdecode(os.fsencode(str(tmp_path / "photos")) + b"/a\xff.jpg")
    Path(name).write_bytes(b"")
    listed = list_unlabelled(Predict(source=str(tmp_path / "photos")), tmp_path)
    assert listed.files == [name]
    assert listed.names[0].endswith("a\\xff.jpg")


def test_what_is_no_source_is_said(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.csv").write_text("file\ngone.jpg\n")
    (tmp_path / "none.csv").write_text("path\n")
    (tmp_path / "bad.parquet").write_text("no table")
    for source, words in {
        tmp_path / "empty": "there is no file in",
        tmp_path / "nowhere": "does not exist",
        tmp_path / "list.csv": "has no column 'path'; its columns are 'file'. Set path_column",
        tmp_path / "none.csv": "has no rows",
        tmp_path / "bad.parquet": "cannot be read as a table",
    }.items():
        with pytest.raises(UserError, match=words):
            list_unlabelled(Predict(source=str(source)), tmp_path)


_NAMES = st.text("ab-. 0/é", min_size=1, max_size=8)


@given(names=st.lists(_NAMES, min_size=1, max_size=12))
def test_files_are_found_in_the_order_of_their_paths(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            path = Path(folder, *(f"x{part}x" for part in name.split("/")))
            path.mkdir(parents=True, exist_ok=True)
            (path / "1.jpg").touch()
            (path.parent / f"{path.name}.jpg").touch()
        found = list(files_below(folder))
    assert found == sorted(found)
    assert found
