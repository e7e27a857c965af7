"""The index of images with several labels: targets, copies in class folders, the split."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st
from PIL import Image

from unfreeze.models.errors import UserError
from unfreeze.models.images.listing.rows import FEWEST, ListedFile, Listing, on_disk, unite_copies
from unfreeze.models.images.listing.sources import resolve_source
from unfreeze.models.images.modality import Images
from unfreeze.models.images.pixels import verify as verify_module
from unfreeze.models.images.pixels.decode import ImageFacts
from unfreeze.models.images.pixels.index import Index, build_index
from unfreeze.models.reading.labels import join
from unfreeze.models.settings import DataSpec, ModelSpec, TrainImages
from unfreeze.models.store.content import hash_files
from unfreeze.models.store.workspace import Workspace
from unfreeze.models.targets import MultiLabel

LABELS = ["a", "b", "c", "d"]

VERIFIED = ImageFacts(8, 8, None, 50.0, 1, 100)


def indexed(sets: list[list[str]], earlier: dict[str, str] | None = None, **spec: object) -> Index:
    """An index of made-up files, whose content is named after their number."""
    files = [ListedFile(Path(f"/{number}.png"), join(labels), None) for number, labels in enumerate(sets)]
    hashes = [f"content-{number}" for number in range(len(sets))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify_module, "check_image", lambda *_: VERIFIED)
        listing = Listing("made up", on_disk(files), multiple=True)
        return build_index(listing, hashes, DataSpec.model_validate(spec), earlier=earlier)


def drawn(seed: int, rows: int) -> list[list[str]]:
    generator = np.random.default_rng(seed)
    marks = generator.random((rows, len(LABELS))) < (0.5, 0.4, 0.3, 0.15)
    marks[:3] = True
    return [[label for label, marked in zip(LABELS, row, strict=True) if marked] for row in marks]


def test_targets_are_a_row_of_0_and_1_per_image(tmp_path):
    index = indexed([["a", "b"], ["b"], [], ["a", "b"], ["a"]])
    assert index.classes == ("a", "b")
    assert index.targets().tolist() == [[1, 1], [0, 1], [0, 0], [1, 1], [1, 0]]
    assert index.targets().dtype == np.float32
    assert isinstance(index.target(), MultiLabel)
    assert index.labels([0, 2]).tolist() == [["a", "b"], []]
    assert Counter(index.occurrences(range(5))) == {"a": 3, "b": 3, "": 1}
    index.save(tmp_path / "index.arrow")
    loaded = Index.load(tmp_path / "index.arrow")
    assert loaded.multiple
    np.testing.assert_array_equal(loaded.targets(), index.targets())


def test_the_digest_tells_labels_from_classes_of_the_same_names():
    several = indexed([["a"], ["b"]] * 4)
    files = tuple(ListedFile(Path(f"/{number}.png"), "ab"[number % 2], None) for number in range(8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify_module, "check_image", lambda *_: VERIFIED)
        one = build_index(Listing("made up", on_disk(files)), [f"content-{number}" for number in range(8)], DataSpec())
    assert several.digest != one.digest


@given(st.integers(0, 10_000), st.integers(60, 200), st.sampled_from([0.0, 0.2]))
def test_every_side_has_its_share_of_every_label(seed, rows, test_fraction):
    index = indexed(drawn(seed, rows), test_fraction=test_fraction)
    wanted = {"valid": 0.2 * (1 - test_fraction), "test": test_fraction}
    for split, share in wanted.items():
        counts = index.targets()[index.rows_of(split)].sum(0)
        assert np.abs(counts - share * index.targets().sum(0)).max() <= 5
    assert (index.targets()[index.rows_of("train")].sum(0) > 0).all()


@given(st.integers(0, 10_000))
def test_images_of_an_earlier_split_stay_where_they_were(seed):
    sets = drawn(seed, 80)
    before = indexed(sets[:60]).sides()
    after = indexed(sets, earlier=before)
    assert {content: after.sides()[content] for content in before} == before
    assert len(after.rows_of("valid")) in range(12, 21)


def test_labels_with_a_single_image_are_refused():
    with pytest.raises(UserError, match=r"every label needs at least two different usable images.*'c' has 1"):
        indexed([["a", "b"], ["b", "a"], ["c"], ["a"]])


# --- the same image in several class folders


def folders(root: Path, shared: int, alone: int) -> Path:
    for number in range(shared + alone):
        pixels = np.random.default_rng(number).integers(0, 256, (12, 12, 3), np.uint8)
        for label in ("cat", "indoor") if number < shared else (("cat", "indoor")[number % 2],):
            (root / label).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / label / f"{number}.png")
    return root


def united(root: Path, labels: str = "auto") -> Listing:
    listing = resolve_source(DataSpec(source=str(root)), root)
    return unite_copies(listing, hash_files([file.path for file in listing.files], 1), labels)[0]


def test_many_images_in_several_class_folders_have_several_labels(tmp_path):
    listing = united(folders(tmp_path, FEWEST, 20))
    assert listing.multiple
    assert Counter(file.label for file in listing.files) == {"cat|indoor": FEWEST, "cat": 10, "indoor": 10}
    assert f"{FEWEST} of 30 images are in several class folders" in listing.how


@pytest.mark.parametrize(("shared", "alone"), [(FEWEST - 1, 5), (FEWEST, 40)])
def test_a_few_of_them_are_a_mistake_unless_the_setting_says_otherwise(tmp_path, shared, alone):
    root = folders(tmp_path, shared, alone)
    assert not united(root).multiple
    assert united(root, "multiple").multiple
    assert not united(root, "single").multiple


def test_new_data_are_read_as_those_of_the_earlier_training_were(tmp_path):
    spec = TrainImages(
        data=DataSpec(source=str(folders(tmp_path / "images", FEWEST, 10)), size=32),
        model=ModelSpec(backbone="timm/test_resnet", weights="none"),
    )
    said: list[str] = []
    workspace = Workspace(tmp_path / "workspace")
    workspace.notice = said.append
    before = Images().index(spec, workspace)
    assert Index.load(before).multiple
    assert any("any number of labels per image" in line for line in said)
    folders(tmp_path / "images", FEWEST, 100)
    assert Index.load(Images().index(spec, workspace, earlier=before)).multiple
    assert not Index.load(Images().index(spec, workspace)).multiple
