"""Images that belong together: which are, on which side of the split, and what is said of them."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st
from PIL import Image
from pydantic import ValidationError

from unfreeze.models.images.data import notes_of
from unfreeze.models.images.listing.sources import resolve_source
from unfreeze.models.images.listing.splits import group_label, grouped, units_of
from unfreeze.models.images.pixels.index import Index, build_index
from unfreeze.models.settings import DataSpec
from unfreeze.models.store.content import hash_files

PATTERN = r"(p\d+)/"


def patients(root: Path, count: int, first: int = 0) -> Path:
    """Folders of patients, with two images of each, inside two classes."""
    for number in range(2 * first, 2 * (first + count)):
        path = root / "ab"[number // 2 % 2] / f"p{number // 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return root


def indexed(root: Path, earlier: Index | None = None, **settings: object) -> Index:
    data = DataSpec.model_validate({"source": str(root), **settings})
    listing = grouped(resolve_source(data, root), data)
    hashes = hash_files([file.path for file in listing.files], 1)
    return build_index(listing, hashes, data, threads=1, earlier=earlier.sides() if earlier is not None else None)


def sides_of_groups(index: Index) -> dict[str, set[str]]:
    rows = index.rows.select(["group", "split"]).to_pandas()
    return {str(group): set(splits) for group, splits in rows.groupby("group")["split"]}


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(["", "1", "2", "3", "4"]))))
def test_units_are_what_copies_and_groups_connect(images):
    units = units_of(images)
    assert units.keys() == {content for content, _ in images}
    for content, group in images:
        for other, its_group in images:
            if group and group == its_group:
                assert units[content] == units[other]
    # No further apart than necessary: as many units as merging pair by pair leaves.
    merged = {content: {content} for content, _ in images}
    for content, group in images:
        for other, its_group in images:
            if group and group == its_group and merged[content] is not merged[other]:
                merged[content] |= merged[other]
                for each in merged[other]:
                    merged[each] = merged[content]
    assert len(set(units.values())) == len({id(each) for each in merged.values()})


def test_a_group_stays_where_it_was_when_new_images_come(tmp_path):
    before = indexed(patients(tmp_path, 20), group_pattern=PATTERN, test_fraction=0.2)
    after = indexed(patients(tmp_path, 10, first=20), earlier=before, group_pattern=PATTERN, test_fraction=0.2)
    then, now = sides_of_groups(before), sides_of_groups(after)
    assert all(now[group] == sides for group, sides in then.items())
    assert all(len(sides) == 1 for sides in now.values())
    assert {side for sides in now.values() for side in sides} == {"train", "valid", "test"}


def test_a_group_that_an_earlier_split_parted_trains(tmp_path):
    before = indexed(patients(tmp_path, 30))
    parted = {
        path.split("/")[-2]
        for path in before.rows.filter(np.asarray(before.rows["split"]) == "valid")["path"].to_pylist()
    }
    after = sides_of_groups(indexed(tmp_path, earlier=before, group_pattern=PATTERN))
    both = [group for group in parted if len(splits_of(before, group)) == 2]
    assert both
    assert all(after[group] == {"train"} for group in both)


def splits_of(index: Index, patient: str) -> set[str]:
    rows = index.rows.select(["path", "split"]).to_pylist()
    return {row["split"] for row in rows if row["path"].split("/")[-2] == patient}


def test_folders_inside_the_classes_are_offered_as_groups(tmp_path):
    data = DataSpec(source=str(patients(tmp_path, 6)))
    line = group_label(resolve_source(data, tmp_path))
    assert line.startswith("images are in 6 folders inside the classes, such as p0:")
    pattern = line.split("'")[1]
    grouping = grouped(resolve_source(data, tmp_path), data.model_copy(update={"group_pattern": pattern}))
    assert group_label(grouping) == "6 groups, each on one side of the split"


def test_classes_without_folders_inside_are_offered_nothing(tmp_path):
    for number, side in enumerate(["train", "valid", "test"] * 4):
        path = tmp_path / side / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert group_label(resolve_source(DataSpec(source=str(tmp_path)), tmp_path)) == ""


def test_an_index_keeps_groups_and_ranges(tmp_path):
    index = indexed(patients(tmp_path / "data", 6), group_pattern=PATTERN)
    index.save(tmp_path / "index.arrow")
    again = Index.load(tmp_path / "index.arrow")
    assert again.rows.equals(index.rows)
    groups = again.groups(np.arange(12))
    assert groups is not None
    assert [len(set(groups[[row, row + 1]])) for row in range(0, 12, 2)] == [1] * 6
    assert len(set(groups)) == 6
    assert indexed(tmp_path / "data").groups(np.arange(12)) is None


def test_other_groups_are_another_data_set(tmp_path):
    patients(tmp_path, 6)
    assert indexed(tmp_path, group_pattern=PATTERN).digest != indexed(tmp_path, group_pattern=r"(\d)\.png").digest


def test_groups_that_leave_a_class_nothing_to_validate_are_named(tmp_path):
    for number in range(40):  # one camera has all but two images of class b, and most of class a
        label, camera = ("b", 0) if number % 4 == 0 else ("a", number % 10)
        camera = 1 + number % 3 if number in (0, 4) else camera
        path = tmp_path / label / f"cam{camera}_{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    index = indexed(tmp_path, group_pattern=r"cam(\d)")
    valid = set(index.occurrences(index.rows_of("valid")))
    assert (valid == {"a", "b"}) != any("leave no image to validate" in note for note in notes_of(index))


@pytest.mark.parametrize(
    "settings",
    [
        {"group_pattern": "patient"},
        {"group_pattern": "(a)(b)"},
        {"group_pattern": "(a"},
        {"group_pattern": "(a)", "group_column": "patient"},
        {"pixel_range": [5, 5]},
        {"pixel_range": [0, float("inf")]},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ValidationError):
        DataSpec.model_validate(settings)
