import random
import shutil
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pytest
from hypothesis import given, strategies as st
from PIL import Image

from unfreeze.models.errors import UserError
from unfreeze.models.images.listing.rows import ListedFile, Listing, on_disk
from unfreeze.models.images.listing.sources import resolve_source
from unfreeze.models.images.pixels import verify as verify_module
from unfreeze.models.images.pixels.decode import ImageFacts, check_image
from unfreeze.models.images.pixels.index import Index, build_index
from unfreeze.models.reading.split_words import Part
from unfreeze.models.settings import DataSpec
from unfreeze.models.store.content import hash_files

CATS_DOGS = Path(__file__).resolve().parents[5] / "shared" / "data" / "cats_dogs"

VERIFIED = ImageFacts(8, 8, None, 50.0, 1, 100)


def image(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)).save(path)
    return path


def folder(root: Path, counts: dict[str, int], first_seed: int = 0) -> Path:
    seed = first_seed
    for label, count in counts.items():
        for number in range(count):
            image(root / label / f"{number}.png", seed)
            seed += 1
    return root


def indexed(root: Path, **spec: object) -> Index:
    data = DataSpec.model_validate({"source": str(root), **spec})
    listing = resolve_source(data, root)
    return build_index(listing, hash_files([file.path for file in listing.files], 2), data, threads=2)


def reasons(index: Index) -> dict[str, str]:
    return {Path(row["path"]).name: row["reason"] for row in index.rejected.to_pylist()}


def refusal(root: Path) -> str:
    with pytest.raises(UserError) as error:
        indexed(root)
    return str(error.value)


def test_an_index_describes_every_image(tmp_path):
    index = indexed(folder(tmp_path, {"dog": 5, "cat": 5}))
    assert index.classes == ("cat", "dog")
    assert index.rows["label"].to_pylist() == ["cat"] * 5 + ["dog"] * 5
    assert index.targets().tolist() == [0] * 5 + [1] * 5
    assert set(index.rows["width"].to_pylist()) == {16}
    assert set(index.rows["height"].to_pylist()) == {12}
    first = Path(index.rows["path"][0].as_py())
    assert index.rows["bytes"][0].as_py() == first.stat().st_size
    assert index.rejected.num_rows == 0
    assert len(index.rows_of("valid")) == 2
    assert {array.dtype for array in (index.targets(), index.rows_of("train"), index.rows_of("valid"))} == {
        np.dtype(np.int64)
    }
    assert sorted([*index.rows_of("train"), *index.rows_of("valid")]) == list(range(len(index)))


def test_a_saved_index_is_loaded_unchanged(tmp_path):
    folder(tmp_path / "images", {"cat": 4, "dög": 4})
    (tmp_path / "images/cat/bad.png").touch()
    index = indexed(tmp_path / "images")
    index.save(tmp_path / "index.feather")
    loaded = Index.load(tmp_path / "index.feather")
    assert loaded.rows.equals(index.rows, check_metadata=True)
    assert loaded.rejected.equals(index.rejected, check_metadata=True)
    assert (loaded.classes, loaded.digest) == (index.classes, index.digest)


def test_a_file_that_is_no_index_is_refused(tmp_path):
    (tmp_path / "index.feather").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="not an image index"):
        Index.load(tmp_path / "index.feather")


def test_an_index_without_one_of_its_columns_is_refused(tmp_path):
    folder(tmp_path / "images", {"cat": 2, "dog": 2})
    path = tmp_path / "index.feather"
    indexed(tmp_path / "images").save(path)
    pa.feather.write_feather(pa.feather.read_table(str(path)).drop_columns("content"), str(path))
    with pytest.raises(UserError, match="not an image index"):
        Index.load(path)


def test_bad_files_are_rejected_with_their_reasons(tmp_path):
    folder(tmp_path, {"cat": 4, "dog": 4})
    (tmp_path / "cat/empty.jpg").touch()
    (tmp_path / "cat/notes.txt").write_text("not an image")
    Image.new("RGB", (1, 1)).save(tmp_path / "cat/dot.png")
    Image.new("L", (200, 200)).save(tmp_path / "cat/large.png")
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (99, 99, 3), np.uint8))
    noise.save(tmp_path / "dog/cut.jpg")
    content = (tmp_path / "dog/cut.jpg").read_bytes()
    (tmp_path / "dog/cut.jpg").write_bytes(content[: len(content) // 2])
    (tmp_path / "dog/gone.jpg").symlink_to(tmp_path / "nowhere")
    before = sorted(path for path in tmp_path.rglob("*"))
    index = indexed(tmp_path, max_megapixels=0.02)
    found = reasons(index)
    assert found.pop("cut.jpg").startswith("truncated or damaged: ")
    assert found == {
        "empty.jpg": "zero bytes",
        "notes.txt": "not an image; export other formats as JPEG, PNG or TIFF",
        "dot.png": "1x1 pixels: too small",
        "large.png": "0.04 megapixels exceed data.max_megapixels=0.02",
        "gone.jpg": "cannot be read: No such file or directory",
    }
    assert len(index) == 8
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_one_image_under_two_labels_is_a_contradiction_that_names_both_files(tmp_path):
    folder(tmp_path, {"cat": 3, "dog": 3})
    for name in ("cat/twin1.png", "cat/twin2.png", "dog/twin3.png"):
        image(tmp_path / name, 99)
    assert reasons(indexed(tmp_path)) == {
        "twin1.png": f"contradiction: the same image is labelled 'dog' as {tmp_path / 'dog/twin3.png'}",
        "twin2.png": f"contradiction: the same image is labelled 'dog' as {tmp_path / 'dog/twin3.png'}",
        "twin3.png": f"contradiction: the same image is labelled 'cat' as {tmp_path / 'cat/twin1.png'}",
    }


def test_a_class_that_contradictions_use_up_is_refused_with_one_of_them(tmp_path):
    for label in ("cat", "dog"):
        for number in range(3):
            image(tmp_path / label / f"{number}.png", number)
    message = refusal(tmp_path)
    assert "6 of 6 files were rejected, most often (6) because: contradiction: " in message
    assert f"labelled 'dog' as {tmp_path / 'dog/0.png'}" in message


def test_a_split_of_the_source_is_kept_and_its_leaks_rejected(tmp_path):
    folder(tmp_path / "train", {"cat": 3, "dog": 3})
    folder(tmp_path / "valid", {"cat": 2, "dog": 2}, first_seed=50)
    image(tmp_path / "valid/cat/leak.png", 0)
    index = indexed(tmp_path)
    assert reasons(index) == {"leak.png": "the same image is in train as 0.png"}
    assert index.rejected["split"].to_pylist() == ["valid"]
    sides = [Path(path).parts[-3] for path in index.rows["path"].to_pylist()]
    assert sides == index.rows["split"].to_pylist()
    assert (len(index.rows_of("train")), len(index.rows_of("valid"))) == (6, 4)


def test_test_images_of_the_source_test_and_their_copies_elsewhere_are_rejected(tmp_path):
    folder(tmp_path / "train", {"cat": 3, "dog": 3})
    folder(tmp_path / "test", {"cat": 2, "dog": 2}, first_seed=50)
    image(tmp_path / "test/cat/leak.png", 0)
    index = indexed(tmp_path)
    assert reasons(index) == {"leak.png": "the same image is in train as 0.png"}
    tests = index.rows["path"].take(index.rows_of("test")).to_pylist()
    assert {Path(path).parts[-3] for path in tests} == {"test"}
    assert [len(index.rows_of(split)) for split in ("train", "valid", "test")] == [4, 2, 4]


def test_a_class_that_is_never_trained_is_refused(tmp_path):
    folder(tmp_path / "train", {"cat": 3, "dog": 3})
    folder(tmp_path / "valid", {"cat": 2, "bird": 2}, first_seed=50)
    assert "no training image of 'bird'" in refusal(tmp_path)


def test_a_split_without_usable_validation_is_refused(tmp_path):
    folder(tmp_path / "train", {"cat": 3, "dog": 3})
    image(tmp_path / "valid/cat/leak.png", 0)
    assert "no usable validation image" in refusal(tmp_path)


def test_a_class_with_one_image_is_refused_with_the_commonest_reason(tmp_path):
    folder(tmp_path, {"cat": 3, "dog": 1})
    image(tmp_path / "dog/copy.png", 3)
    for number in range(3):
        (tmp_path / f"dog/{number}.jpg").touch()
    message = refusal(tmp_path)
    assert "'dog' has 1" in message
    assert "3 of 8 files were rejected, most often (3) because: zero bytes" in message


def test_a_class_without_any_usable_image_is_refused(tmp_path):
    folder(tmp_path, {"cat": 3, "dog": 3})
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.png").write_text("text")
    assert "'notes' has 0" in refusal(tmp_path)


def test_nothing_usable_at_all_is_refused(tmp_path):
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "a.jpg").touch()
    assert "none of the 2 files is a usable image" in refusal(tmp_path)


def test_hashes_follow_the_content_and_the_order(tmp_path):
    first, second = image(tmp_path / "a.png", 1), image(tmp_path / "b.png", 2)
    copy = image(tmp_path / "c.png", 1)
    hashes = hash_files([first, second, copy, tmp_path / "gone"], threads=2)
    assert hashes[0] == hashes[2] != hashes[1]
    assert len(hashes[0]) == 32
    assert hashes[3] == ""


def test_the_digest_follows_content_label_and_split_and_not_the_place(tmp_path):
    here, there = (indexed(folder(tmp_path / name, {"cat": 5, "dog": 5})) for name in ("here", "there"))
    assert here.digest == there.digest
    assert indexed(tmp_path / "here", split_seed=1).digest != here.digest
    (tmp_path / "there/dog").rename(tmp_path / "there/wolf")
    assert indexed(tmp_path / "there").digest != here.digest
    image(tmp_path / "here/cat/0.png", 77)
    assert indexed(tmp_path / "here").digest != here.digest


def test_progress_counts_up_to_all_images(tmp_path):
    data = DataSpec(source=str(folder(tmp_path, {"cat": 3, "dog": 3})))
    listing = resolve_source(data, tmp_path)
    seen = []
    hashes = hash_files([file.path for file in listing.files], 2)
    build_index(listing, hashes, data, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(number, 6) for number in range(1, 7)]


# The properties of the split need no image files: contents are made up and the check of the file is skipped.
contents_of_classes = st.dictionaries(
    st.sampled_from("abcd"), st.lists(st.integers(0, 30), min_size=2, max_size=60), min_size=2
).filter(lambda classes: all(len(set(contents)) > 1 for contents in classes.values()))


def split_of(
    classes: dict[str, list[int]], split: Part | None = None, earlier: dict[str, str] | None = None, **spec: object
) -> Index:
    files, hashes = [], []
    for label, contents in sorted(classes.items()):
        for number, content in enumerate(contents):
            files.append(ListedFile(Path(f"/{label}/{number}.png"), label, split))
            hashes.append(f"{label}-{content}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify_module, "check_image", lambda *_: VERIFIED)
        return build_index(Listing("made up", on_disk(files)), hashes, DataSpec.model_validate(spec), earlier=earlier)


@given(classes=contents_of_classes, fraction=st.floats(0.05, 0.95), seed=st.integers(0, 5))
def test_the_split_is_stratified_and_keeps_copies_together(classes, fraction, seed):
    index = split_of(classes, valid_fraction=fraction, split_seed=seed)
    sides = defaultdict(set)
    for row in index.rows.to_pylist():
        sides[row["content"]].add(row["split"])
    assert all(len(found) == 1 for found in sides.values())
    valid = Counter(content[0] for content, found in sides.items() if "valid" in found)
    for label, contents in classes.items():
        distinct = len(set(contents))
        assert valid[label] == min(max(1, round(fraction * distinct)), distinct - 1)


@given(classes=contents_of_classes, fraction=st.floats(0.05, 0.6), seed=st.integers(0, 5))
def test_test_images_are_a_share_of_every_class_that_leaves_two_others(classes, fraction, seed):
    index = split_of(classes, test_fraction=fraction, split_seed=seed)
    sides = {row["content"]: row["split"] for row in index.rows.to_pylist()}
    tested = Counter(content[0] for content, side in sides.items() if side == "test")
    for label, contents in classes.items():
        distinct = len(set(contents))
        assert tested[label] == max(min(max(1, round(fraction * distinct)), distinct - 2), 0)
    validated = {content[0] for content, side in sides.items() if side == "valid"}
    trained = {content[0] for content, side in sides.items() if side == "train"}
    assert validated == trained == set(classes)


@given(classes=contents_of_classes, added=st.integers(100, 200))
def test_with_an_earlier_split_no_image_leaves_its_side(classes: dict[str, list[int]], added: int):
    before = {row["content"]: row["split"] for row in split_of(classes, test_fraction=0.3).rows.to_pylist()}
    grown = {label: [*contents, added, added + 100] for label, contents in classes.items()}
    index = split_of(grown, earlier=before, test_fraction=0.3)
    after = {row["content"]: row["split"] for row in index.rows.to_pylist()}
    assert {content: after[content] for content in before} == before


@given(classes=contents_of_classes, shuffle=st.randoms(use_true_random=False))
def test_the_split_depends_on_contents_and_not_on_their_order(classes: dict[str, list[int]], shuffle: random.Random):
    index = split_of(classes)
    assert index.digest == split_of(classes).digest
    shuffled = {label: shuffle.sample(contents, len(contents)) for label, contents in classes.items()}
    sides = {row["content"]: row["split"] for row in index.rows.to_pylist()}
    assert sides == {row["content"]: row["split"] for row in split_of(shuffled).rows.to_pylist()}


@given(classes=contents_of_classes, added=st.integers(100, 200))
def test_one_more_image_moves_at_most_one_other(classes: dict[str, list[int]], added: int):
    label = min(classes)
    before = {row["content"]: row["split"] for row in split_of(classes).rows.to_pylist()}
    grown = {**classes, label: [*classes[label], added]}
    after = {row["content"]: row["split"] for row in split_of(grown).rows.to_pylist()}
    assert sum(after[content] != side for content, side in before.items()) <= 1


def test_rows_stay_in_the_order_of_the_listing():
    index = split_of({"a": [3, 1, 2], "b": [9, 8, 7]})
    assert index.rows["content"].to_pylist() == ["a-3", "a-1", "a-2", "b-9", "b-8", "b-7"]


@pytest.mark.skipif(not CATS_DOGS.is_dir(), reason="the cat and dog photos are not at ../shared/data/cats_dogs")
def test_the_cat_and_dog_photos_are_all_usable():
    index = indexed(CATS_DOGS)
    assert (len(index), index.rejected.num_rows, index.classes) == (1100, 0, ("cat", "dog"))
    assert np.bincount(index.targets()[index.rows_of("valid")]).tolist() == [110, 110]


def test_files_of_an_earlier_index_are_not_verified_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = DataSpec(source=str(folder(tmp_path, {"cat": 6, "dog": 6})))
    shutil.copy(tmp_path / "cat" / "0.png", tmp_path / "cat" / "copy.png")
    before = indexed(tmp_path)
    image(tmp_path / "dog" / "3.png", 99)
    image(tmp_path / "cat" / "new.png", 100)
    (tmp_path / "dog" / "bad.png").write_bytes(b"no image")
    wanted, verified = indexed(tmp_path), list[str]()

    def check(path: Path, limit: float) -> ImageFacts:
        verified.append(path.name)
        return check_image(path, limit)

    monkeypatch.setattr(verify_module, "check_image", check)
    listing = resolve_source(data, tmp_path)
    hashes = hash_files([file.path for file in listing.files], 2)
    index = build_index(listing, hashes, data, known=before.rows)
    assert sorted(verified) == ["3.png", "bad.png", "new.png"]
    assert index.rows.equals(wanted.rows)
    assert index.rejected.equals(wanted.rejected)
    assert index.digest == wanted.digest
