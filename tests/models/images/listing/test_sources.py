import socket
import urllib.error
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torchvision
from PIL import Image

from unfreeze.models.errors import UserError
from unfreeze.models.images.listing import data_sets
from unfreeze.models.images.listing.data_sets import DATA_SETS
from unfreeze.models.images.listing.rows import Listing
from unfreeze.models.images.listing.sources import resolve_source
from unfreeze.models.settings import DataSpec


def image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)
    return path


def listed(source: Path | str, downloads: Path | None = None, **settings: str) -> Listing:
    return resolve_source(DataSpec(source=str(source), **settings), downloads or Path("/nonexistent"))


def refusal(source: Path | str, **settings: str) -> str:
    with pytest.raises(UserError) as error:
        listed(source, **settings)
    return str(error.value)


def table(path: Path, columns: dict[str, list]) -> Path:
    frame = pd.DataFrame(columns)
    frame.to_csv(path, index=False) if path.suffix == ".csv" else frame.to_feather(path)
    return path


@pytest.fixture
def two_images(tmp_path) -> Path:
    image(tmp_path / "a.png")
    image(tmp_path / "sub" / "b.png")
    return tmp_path


def test_the_digits_are_written_once(tmp_path):
    listing = listed("digits", tmp_path)
    assert listing.name == "digits"
    assert len(listing.files) == 1797
    assert sorted({file.label for file in listing.files}) == list("0123456789")
    with Image.open(listing.files[0].path) as image:
        assert (image.size, image.mode) == ((8, 8), "L")
    assert [entry.name for entry in tmp_path.iterdir()] == ["digits"]
    written = (tmp_path / "digits").stat().st_mtime_ns
    assert listed("digits", tmp_path) == listing
    assert (tmp_path / "digits").stat().st_mtime_ns == written


def test_an_interrupted_build_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(data_sets, "_write_images", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        listed("digits", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_per_class_is_listed_in_order_without_hidden_files(tmp_path):
    root = tmp_path / "pets"
    for name in ("dog/b.png", "dog/a.png", "cat/deep/er/c.png", "cat/.DS_Store.png", "dog/.ipynb_checkpoints/a.png"):
        image(root / name)
    image(root / "__MACOSX" / "x.png")
    image(root / ".hidden" / "x.png")
    (root / "dog" / "notes.txt").write_text("listed, and rejected by the index")
    listing = listed(root)
    assert listing.name == "pets"
    assert [(file.path.relative_to(root).as_posix(), file.label, file.split) for file in listing.files] == [
        ("cat/deep/er/c.png", "cat", None),
        ("dog/a.png", "dog", None),
        ("dog/b.png", "dog", None),
        ("dog/notes.txt", "dog", None),
    ]


def test_a_relative_source_is_listed_by_absolute_paths(tmp_path, monkeypatch):
    image(tmp_path / "pets/cat/a.png")
    image(tmp_path / "pets/dog/a.png")
    monkeypatch.chdir(tmp_path)
    assert [file.path for file in listed("pets").files] == [tmp_path / "pets/cat/a.png", tmp_path / "pets/dog/a.png"]


@pytest.mark.parametrize(
    ("train", "valid", "test"),
    [
        ("train", "valid", "test"),
        ("train", "val", "Test"),
        ("Train", "Valid", "TEST"),
        ("Training", "Validation", "Testing"),
        ("TRAIN", "dev", "annotations"),
    ],
)
def test_a_folder_with_train_and_valid_has_its_own_split(tmp_path, train, valid, test):
    for name in (f"{train}/cat/a.png", f"{train}/dog/a.png", f"{valid}/cat/b.png", f"{valid}/dog/b.png"):
        image(tmp_path / name)
    image(tmp_path / test / "cat/c.png")
    found = sorted((file.split, file.label, file.path.name) for file in listed(tmp_path).files)
    tests = [("test", "cat", "c.png")] if test.casefold().startswith("test") else []
    assert found == [
        *tests,
        ("train", "cat", "a.png"),
        ("train", "dog", "a.png"),
        ("valid", "cat", "b.png"),
        ("valid", "dog", "b.png"),
    ]


@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("Training", "Testing")])
def test_beside_a_test_side_alone_train_is_split_at_random(tmp_path, train, test):
    for name in (f"{train}/cat/a.png", f"{train}/dog/b.png", f"{test}/cat/c.png", f"{test}/dog/d.png"):
        image(tmp_path / name)
    listing = listed(tmp_path)
    found = [(file.label, file.split) for file in listing.files]
    assert sorted(found, key=str) == [("cat", "test"), ("cat", None), ("dog", "test"), ("dog", None)]
    assert listing.note is not None
    assert listing.note.startswith(f"{test}/ only tests the final model")


@pytest.mark.parametrize(
    "folders",
    [
        ["train", "cats"],
        ["Train", "Test", "cats"],
        ["test", "cats", "dogs"],
        ["Valid", "Test"],
        ["val", "cats"],
        ["Testing", "validation"],
    ],
)
def test_folders_of_a_split_that_is_not_whole_are_never_taken_for_classes(tmp_path, folders):
    for folder in folders:
        image(tmp_path / folder / "cat/a.png")
        image(tmp_path / folder / "dog/a.png")
    message = refusal(tmp_path)
    assert "\n" not in message
    assert f"has {', '.join(f'{folder}/' for folder in sorted(folders))}: " in message
    assert "which needs train/ and valid/" in message


@pytest.mark.parametrize(
    ("first", "second", "part"),
    [
        ("val", "validation", "valid"),
        ("Train", "train", "train"),
        ("Testing", "test", "test"),
        ("Dev", "valid", "valid"),
    ],
)
def test_two_folders_that_mean_the_same_part_are_refused(tmp_path, first, second, part):
    for folder in {"train", "valid", first, second}:
        image(tmp_path / folder / "cat/a.png")
        image(tmp_path / folder / "dog/a.png")
    if not (tmp_path / first).samefile(tmp_path / second):
        assert f"both mean {part}; merge them" in refusal(tmp_path)


def test_an_empty_side_of_a_split_is_refused(tmp_path):
    image(tmp_path / "train/cat/a.png")
    (tmp_path / "valid").mkdir()
    assert "for valid" in refusal(tmp_path)


def test_an_empty_folder_is_refused(tmp_path):
    assert "is empty" in refusal(tmp_path)


def test_flat_images_are_refused(tmp_path):
    image(tmp_path / "a.png")
    assert "1 images but no folders of classes. Layouts that are understood: " in refusal(tmp_path)


def test_a_single_class_is_refused_by_name(tmp_path):
    image(tmp_path / "cat/a.png")
    assert "only the class 'cat'" in refusal(tmp_path)


def test_something_else_is_refused_with_all_that_it_may_be(tmp_path):
    message = refusal("no-such-thing")
    assert "does not exist" in message
    for kind in ("digits", "folder of images per class", "train/", ".csv", "oxford-iiit-pet"):
        assert kind in message
    (tmp_path / "images.zip").touch()
    assert "type .zip" in refusal(tmp_path / "images.zip")


@pytest.mark.parametrize("name", ["t.csv", "t.feather", "t.arrow"])
def test_a_table_lists_relative_and_absolute_paths(two_images, name):
    paths = ["sub/b.png", str(two_images / "a.png")]
    source = table(two_images / name, {"path": paths, "label": ["NA", "007"]})
    listing = listed(source)
    assert listing.name == "t"
    found = [file[:3] for file in listing.files]
    assert found == [(two_images / "a.png", "007", None), (two_images / "sub/b.png", "NA", None)]


def test_a_feather_table_may_hold_numbers_and_categories(two_images):
    columns = {"path": pd.Categorical(["a.png", "sub/b.png"]), "label": [1, 0]}
    pd.DataFrame(columns).to_feather(two_images / "t.feather")
    assert [file.label for file in listed(two_images / "t.feather").files] == ["1", "0"]


def test_an_arrow_stream_is_read_as_well(two_images):
    rows = pa.table({"path": ["a.png", "sub/b.png"], "label": ["x", "y"]})
    with pa.OSFile(str(two_images / "t.arrow"), "wb") as file, pa.ipc.new_stream(file, rows.schema) as writer:
        writer.write_table(rows)
    assert [file.label for file in listed(two_images / "t.arrow").files] == ["x", "y"]


def test_a_table_may_name_its_columns_and_its_split(two_images):
    columns = {"file": ["a.png", "sub/b.png"], "kind": ["x", "y"], "side": ["train", "Val"], "path": ["", ""]}
    source = table(two_images / "t.csv", columns)
    files = listed(source, path_column="file", label_column="kind", split_column="side").files
    assert [(file.label, file.split) for file in files] == [("x", "train"), ("y", "valid")]


@pytest.mark.parametrize("name", ["t.csv", "t.feather"])
def test_a_missing_column_is_named_with_those_that_exist(two_images, name):
    source = table(two_images / name, {"file": ["gone.png"], "label": ["x"]})
    message = refusal(source)
    assert "no column 'path'" in message
    assert "'file', 'label'" in message


@pytest.mark.parametrize("name", ["t.csv", "t.feather"])
def test_empty_cells_are_refused_by_row(two_images, name):
    source = table(two_images / name, {"path": ["a.png", "sub/b.png", "a.png"], "label": ["x", None, ""]})
    assert "2 rows: empty 'label': row 2, 3" in refusal(source)


def test_a_row_with_too_few_fields_is_refused_by_row(two_images):
    (two_images / "t.csv").write_text("path,label\na.png,x\nsub/b.png\n")
    assert "t.csv, row 3: 1 field instead of 2" in refusal(two_images / "t.csv")


def test_missing_files_are_counted_and_named(two_images):
    names = ["a.png"] + [f"gone{number}.png" for number in range(7)]
    message = refusal(table(two_images / "t.csv", {"path": names, "label": list("xyxyxyxy")}))
    assert "7 rows: no file at the path: row 2 (" in message
    assert "gone0.png" in message
    assert "and 2 more" in message


def test_one_path_with_two_labels_is_refused(two_images):
    source = table(two_images / "t.csv", {"path": ["a.png", "sub/b.png", "./a.png"], "label": ["x", "y", "y"]})
    assert "row 3 (a.png: 'x', then 'y')" in refusal(source)


@pytest.mark.parametrize(("train", "valid", "test"), [("Training", "DEV", "testing"), ("train", "Validation", "TEST")])
def test_a_split_column_knows_the_words_that_folders_know(two_images, train, valid, test):
    image(two_images / "c.png")
    columns = {"path": ["a.png", "sub/b.png", "c.png"], "label": ["x", "y", "x"], "side": [train, valid, test]}
    listing = listed(table(two_images / "t.csv", columns), split_column="side")
    found = [(file.path.name, file.split) for file in listing.files]
    assert found == [("a.png", "train"), ("c.png", "test"), ("b.png", "valid")]
    assert listing.note is None


def test_a_split_column_of_train_and_test_leaves_it_open_what_validates(two_images):
    image(two_images / "c.png")
    columns = {"path": ["a.png", "sub/b.png", "c.png"], "label": ["x", "y", "x"], "side": ["train", "train", "test"]}
    listing = listed(table(two_images / "t.csv", columns), split_column="side")
    found = [(file.path.name, file.split) for file in listing.files]
    assert found == [("a.png", None), ("c.png", "test"), ("b.png", None)]
    assert listing.note is not None
    assert listing.note.startswith("`test` only tests the final model")


def test_unknown_and_one_sided_splits_are_refused(two_images):
    columns = {"path": ["a.png", "sub/b.png"], "label": ["x", "y"], "side": ["train", "other"]}
    assert "neither `train` nor `valid` nor `test`: row 2 " in refusal(
        table(two_images / "t.csv", columns), split_column="side"
    )
    columns["side"] = ["train", "train"]
    assert "no row has 'valid'" in refusal(table(two_images / "u.csv", columns), split_column="side")


def test_an_unreadable_table_is_refused(tmp_path):
    (tmp_path / "t.feather").write_bytes(b"not a table")
    (tmp_path / "t.csv").touch()
    assert "cannot be read as a table" in refusal(tmp_path / "t.feather")
    assert "t.csv is empty" in refusal(tmp_path / "t.csv")


def test_without_a_network_a_data_set_says_where_to_put_it(tmp_path, monkeypatch):
    def offline(root: str, **_: object) -> None:
        assert socket.getdefaulttimeout() == 5
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(torchvision.datasets, "OxfordIIITPet", offline)
    with pytest.raises(UserError, match="no route") as error:
        listed("oxford-iiit-pet", tmp_path)
    assert str(tmp_path / "oxford-iiit-pet" / "oxford-iiit-pet") in str(error.value)
    assert list(tmp_path.iterdir()) == []
    assert socket.getdefaulttimeout() is None


def test_a_data_set_of_files_is_used_in_place(tmp_path, monkeypatch):
    def pets(root: str, split: str, download: bool) -> SimpleNamespace:
        paths = [image(Path(root) / "images" / f"{split}{number}.png") for number in range(2)]
        return SimpleNamespace(_images=paths, _labels=[1, 0], classes=["cat", "dog"])

    monkeypatch.setattr(torchvision.datasets, "OxfordIIITPet", pets)
    files = tuple(file[:3] for file in listed("oxford-iiit-pet", tmp_path).files)
    images = tmp_path / "oxford-iiit-pet" / "images"
    assert files == (
        (images / "trainval0.png", "dog", "train"),
        (images / "trainval1.png", "cat", "train"),
        (images / "test0.png", "dog", "valid"),
        (images / "test1.png", "cat", "valid"),
    )


def test_a_data_set_without_files_is_written_once(tmp_path, monkeypatch):
    opened = []

    def mnist(root: str, train: bool, download: bool) -> SimpleNamespace:
        opened.append(train)
        pixels = np.full((3, 28, 28), 7 if train else 9, np.uint8)
        return SimpleNamespace(data=pixels, targets=[0, 1, 1], classes=["T-shirt/top", "Bag"])

    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", mnist)
    listing = listed("fashion-mnist", tmp_path)
    assert [(file.label, file.split) for file in listing.files] == [
        (label, split) for split in ("train", "valid") for label in ("Bag", "Bag", "T-shirt-top")
    ]
    with Image.open(listing.files[-1].path) as image:
        assert (np.asarray(image) == 9).all()
    count = len(opened)
    assert listed("fashion-mnist", tmp_path) == listing
    assert len(opened) == count


@pytest.mark.parametrize("name", sorted(DATA_SETS))
def test_every_data_set_name_has_its_torchvision_class(name):
    assert hasattr(torchvision.datasets, DATA_SETS[name].class_name)


def test_a_folder_goes_before_a_data_set_of_that_name(tmp_path, monkeypatch):
    image(tmp_path / "mnist/cat/a.png")
    image(tmp_path / "mnist/dog/a.png")
    monkeypatch.chdir(tmp_path)
    assert [file.label for file in listed("mnist").files] == ["cat", "dog"]
