"""Images in Parquet and Arrow shards, tar shards and archives are what the same images in folders are."""

import io
import json
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from unfreeze.models.errors import UserError
from unfreeze.models.images.listing.packed import local_images
from unfreeze.models.images.modality import Images, list_images
from unfreeze.models.images.pixels.index import Index
from unfreeze.models.settings import TrainImages
from unfreeze.models.settings.overrides import build_spec
from unfreeze.models.settings.predict import Predict
from unfreeze.models.store import copies
from unfreeze.models.store.workspace import Workspace

LABELS = ("cat", "dog", "newt")
COUNT = 36


def content(number: int, suffix: str = "png") -> bytes:
    """An encoded image, another for each number."""
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 255, (9, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, {"png": "PNG", "jpg": "JPEG"}[suffix])
    return file.getvalue()


IMAGES = [(LABELS[number % 3], content(number)) for number in range(COUNT)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("plain") / "pets"
    for number, (label, data) in enumerate(IMAGES):
        (folder / label).mkdir(parents=True, exist_ok=True)
        (folder / label / f"{number}.png").write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def fingerprint(folders, tmp_path_factory) -> str:
    return index_of(folders, tmp_path_factory.mktemp("work")).fingerprint()


def index_of(source: Path | str, home: Path, **settings: object) -> Index:
    params = build_spec(TrainImages, {"data": {"source": str(source), **settings}}, {})
    return Index.load(Images().index(params, Workspace(home)))


def features(**columns: object) -> dict[bytes, bytes]:
    """Metadata of a schema, as the library `datasets` writes them."""
    return {b"huggingface": json.dumps({"info": {"features": columns}}).encode()}


CLASS_LABEL = {"names": list(LABELS), "_type": "ClassLabel"}


def rows(images: list[tuple[str, bytes]], **others: list) -> pa.Table:
    """Images as data sets on a hub have them: bytes and path, and the number of the class."""
    structs = [{"bytes": data, "path": f"{number}.png"} for number, (_, data) in enumerate(images)]
    numbers = pa.array([LABELS.index(label) if label else -1 for label, _ in images], pa.int64())
    table = pa.table({"image": structs, "label": numbers, **others})
    return table.replace_schema_metadata(features(image={"_type": "Image"}, label=CLASS_LABEL))


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def test_a_parquet_file_equals_folders(tmp_path, fingerprint):
    pa.parquet.write_table(rows(IMAGES), tmp_path / "pets.parquet", row_group_size=10)
    index = index_of(tmp_path / "pets.parquet", tmp_path / "home")
    assert index.fingerprint() == fingerprint
    assert index.classes == LABELS


def test_shards_of_a_hub_equal_folders_and_their_names_are_the_split(tmp_path, fingerprint):
    data = tmp_path / "pets/data"
    data.mkdir(parents=True)
    (tmp_path / "pets/README.md").write_text("# Pets")
    for number in range(2):
        shard = rows(IMAGES[12 * number : 12 * number + 12])
        pa.parquet.write_table(shard, data / f"train-0000{number}-of-00002.parquet", row_group_size=5)
    pa.parquet.write_table(rows(IMAGES[24:]), data / "validation-00000-of-00001.parquet")
    index = index_of(tmp_path / "pets", tmp_path / "home")
    assert index.fingerprint() == fingerprint
    sides = index.rows["split"].to_pylist()
    assert (sides.count("train"), sides.count("valid")) == (24, 12)


def test_arrow_files_of_the_stream_format_equal_folders(tmp_path, fingerprint):
    (tmp_path / "pets").mkdir()
    table = rows(IMAGES)
    for number in range(2):
        path = tmp_path / f"pets/data-0000{number}-of-00002.arrow"
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table.slice(18 * number, 18), max_chunksize=7)
    assert index_of(tmp_path / "pets", tmp_path / "home").fingerprint() == fingerprint


def test_unlabelled_images_of_a_shard_are_predicted_but_not_trained_on(tmp_path, fingerprint):
    (tmp_path / "pets").mkdir()
    pa.parquet.write_table(rows(IMAGES), tmp_path / "pets/train.parquet")
    pa.parquet.write_table(rows([("", content(99))]), tmp_path / "pets/test.parquet")
    workspace = Workspace(tmp_path / "home")
    assert index_of(tmp_path / "pets", tmp_path / "home").fingerprint() == fingerprint
    listed = list_images(Predict(source=str(tmp_path / "pets")), workspace)
    assert len(listed.files) == COUNT + 1
    assert listed.names[0] == f"{tmp_path}/pets/test/0000/0000000.png"


def test_several_labels_in_a_list_are_the_images_labels(tmp_path):
    tags = pa.array([[number % 3, (number + 1) % 3] for number in range(COUNT)], pa.list_(pa.int64()))
    table = rows(IMAGES).drop_columns("label").append_column("tags", tags)
    table = table.replace_schema_metadata(features(tags={"feature": CLASS_LABEL, "_type": "Sequence"}))
    pa.parquet.write_table(table, tmp_path / "pets.parquet")
    index = index_of(tmp_path / "pets.parquet", tmp_path / "home", labels="multiple")
    assert index.multiple
    assert index.classes == LABELS


@pytest.mark.parametrize("kind", ["cls", "json"])
def test_webdataset_shards_equal_folders(tmp_path, fingerprint, kind):
    (tmp_path / "pets").mkdir()
    for shard in range(3):
        with tarfile.open(tmp_path / f"pets/pets-00000{shard}.tar", "w") as archive:
            for number in range(12 * shard, 12 * shard + 12):
                label, data = IMAGES[number]
                text = label if kind == "cls" else json.dumps({"label": label, "width": 8})
                add(archive, f"{number:05d}.png", data)
                add(archive, f"{number:05d}.{kind}", text.encode())
    index = index_of(tmp_path / "pets", tmp_path / "home")
    assert index.fingerprint() == fingerprint


@pytest.mark.parametrize("name", ["pets.zip", "pets.tar", "pets.tar.gz"])
def test_an_archive_of_class_folders_equals_folders(tmp_path, folders, fingerprint, name):
    path = tmp_path / name
    if name.endswith(".zip"):
        with zipfile.ZipFile(path, "w") as archive:
            for file in folders.rglob("*.png"):
                archive.write(file, file.relative_to(folders.parent))
            archive.writestr("__MACOSX/._pets", b"")
    else:
        with tarfile.open(path, "w:gz" if name.endswith("gz") else "w") as archive:
            archive.add(folders, "pets")
    home = tmp_path / "home"
    assert index_of(path, home).fingerprint() == fingerprint
    listed = list_images(Predict(source=str(path)), Workspace(home))
    assert listed.names[0] == f"{path}/pets/cat/0.png"


def test_an_archive_may_hold_a_table_of_its_images(tmp_path, fingerprint):
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        lines = [json.dumps({"file_name": f"{number}.png", "label": label}) for number, (label, _) in enumerate(IMAGES)]
        archive.writestr("images/metadata.jsonl", "\n".join(lines))
        for number, (_, data) in enumerate(IMAGES):
            archive.writestr(f"images/{number}.png", data)
    assert index_of(tmp_path / "pets.zip", tmp_path / "home").fingerprint() == fingerprint


def test_an_archive_per_side_is_the_split(tmp_path, fingerprint):
    (tmp_path / "pets").mkdir()
    for name, images in (("train", IMAGES[:24]), ("valid", IMAGES[24:])):
        with zipfile.ZipFile(tmp_path / f"pets/{name}.zip", "w") as archive:
            for number, (label, data) in enumerate(images):
                archive.writestr(f"{label}/{number}.png", data)
    index = index_of(tmp_path / "pets", tmp_path / "home")
    assert index.fingerprint() == fingerprint
    assert index.rows["split"].to_pylist().count("valid") == 12


def test_only_new_and_changed_shards_are_unpacked(tmp_path, monkeypatch):
    (tmp_path / "pets").mkdir()
    for number in range(3):
        pa.parquet.write_table(rows(IMAGES[9 * number : 9 * number + 9]), tmp_path / f"pets/part-{number}.parquet")
    made, keep = list[str](), copies.Copies.keep

    def noting(self: copies.Copies, new: Iterable[copies.Made]) -> None:
        new = list(new)
        made.extend(each.name for each in new)
        keep(self, new)

    monkeypatch.setattr(copies.Copies, "keep", noting)
    workspace = Workspace(tmp_path / "home")
    local_images(str(tmp_path / "pets"), workspace)
    assert made == [f"pets/part-{number}" for number in range(3)]
    made.clear()
    local_images(str(tmp_path / "pets"), workspace)
    assert made == []
    pa.parquet.write_table(rows(IMAGES[27:]), tmp_path / "pets/part-1.parquet")
    (tmp_path / "pets/part-2.parquet").unlink()
    index = index_of(tmp_path / "pets", tmp_path / "home")
    assert made == ["pets/part-1"]
    assert len(index.rows) == 18
    (tmp_path / "pets/part-1.parquet").unlink()
    assert len(index_of(tmp_path / "pets", tmp_path / "home").rows) == 9


def test_a_stopped_unpacking_continues_with_the_next_shard(tmp_path):
    (tmp_path / "pets").mkdir()
    pa.parquet.write_table(rows(IMAGES[:18]), tmp_path / "pets/part-0.parquet")
    with tarfile.open(tmp_path / "pets/part-1.tar", "w") as archive:
        add(archive, "1.png", IMAGES[0][1])
    whole = (tmp_path / "pets/part-1.tar").read_bytes()
    (tmp_path / "pets/part-1.tar").write_bytes(whole[:600])
    workspace = Workspace(tmp_path / "home")
    with pytest.raises(UserError, match=r"part-1\.tar cannot be unpacked .*; copy or save it again"):
        local_images(str(tmp_path / "pets"), workspace)
    (tmp_path / "pets/part-1.tar").write_bytes(whole)
    folder = local_images(str(tmp_path / "pets"), workspace).path
    assert len(list(folder.glob("part-0/*/*.png"))) == 18
    assert (folder / "part-1/1.png").read_bytes() == IMAGES[0][1]


@pytest.mark.parametrize("name", ["../evil.png", "/evil.png", "a/../../evil.png", "..\\evil.png", "c:\\evil.png"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_member_outside_the_archive_is_refused(tmp_path, name, kind):
    path = tmp_path / f"pets.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, content(1))
    else:
        with tarfile.open(path, "w") as archive:
            add(archive, name, content(1))
    with pytest.raises(UserError, match="outside its own folder"):
        local_images(str(path), Workspace(tmp_path / "home"))
    assert not list(tmp_path.rglob("evil.png"))


def test_a_shard_of_paths_without_bytes_is_refused(tmp_path):
    image = pa.array([{"bytes": None, "path": "a.png"}], pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    pa.parquet.write_table(pa.table({"image": image}), tmp_path / "pets.parquet")
    with pytest.raises(UserError, match="holds paths of images instead of their bytes"):
        local_images(str(tmp_path / "pets.parquet"), Workspace(tmp_path / "home"))


def test_archives_beside_images_are_left_alone(folders, tmp_path):
    with zipfile.ZipFile(folders.parent / "old.zip", "w") as archive:
        archive.writestr("a.png", content(1))
    assert local_images(str(folders.parent), Workspace(tmp_path)).path == folders.parent
    (folders.parent / "old.zip").unlink()


def test_a_table_of_paths_at_a_url_comes_with_the_folder_that_it_is_in(folders, fingerprint, tmp_path):
    system = fsspec.filesystem("memory")
    system.put(str(folders), "/bucket/pets", recursive=True)
    lines = [f"{label}/{number}.png,{label}" for number, (label, _) in enumerate(IMAGES)]
    system.pipe("/bucket/pets/labels.csv", "\n".join(["path,label", *lines]).encode())
    try:
        assert index_of("memory://bucket/pets/labels.csv", tmp_path).fingerprint() == fingerprint
        listed = list_images(Predict(source="memory://bucket/pets/cat"), Workspace(tmp_path))
        assert listed.names[0] == "memory://bucket/pets/cat/0.png"
    finally:
        system.store.clear()
