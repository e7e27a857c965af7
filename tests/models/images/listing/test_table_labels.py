"""Labels and files of tables: ids without folder or suffix, separated texts, lists, columns of 0 and 1."""

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from pydantic import ValidationError

from unfreeze.models.errors import UserError
from unfreeze.models.images.listing.rows import Listing
from unfreeze.models.images.listing.sources import list_unlabelled, resolve_source
from unfreeze.models.settings import DataSpec
from unfreeze.models.settings.predict import Predict

TAGS = ["cat indoor", "outdoor dog", "dog indoor", "indoor cat", "cat outdoor", ""]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for number in range(6):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / "photos" / f"{number}.JPG")
    return tmp_path


def listed(folder: Path, columns: dict[str, list], name: str = "t.csv", **settings: object) -> Listing:
    frame = pd.DataFrame(columns)
    path = folder / name
    frame.to_csv(path, index=False) if path.suffix == ".csv" else frame.to_feather(path)
    spec = {"source": str(path), "path_column": "id", "image_folder": "photos", "suffix": ".JPG", **settings}
    return resolve_source(DataSpec.model_validate(spec), folder)


def labels(listing: Listing) -> list[str]:
    return [file.label for file in listing.files]


IDS = [str(number) for number in range(6)]


def test_ids_are_completed_by_a_folder_and_a_suffix(photos):
    listing = listed(photos, {"id": ["0", "1.JPG"], "label": ["x", "y"]})
    assert [file.path for file in listing.files] == [photos / "photos" / "0.JPG", photos / "photos" / "1.JPG"]


def test_ids_that_one_folder_and_one_suffix_complete_need_no_setting(photos):
    listing = listed(photos, {"id": IDS, "label": list("xyxyxy")}, image_folder=None, suffix="")
    assert [file.path for file in listing.files] == [photos / "photos" / f"{name}.JPG" for name in IDS]
    assert listing.note == f"paths such as '0' are read as {photos / 'photos' / '0.JPG'}"


def test_ids_that_two_folders_complete_are_refused(photos):
    (photos / "small").mkdir()
    for name in IDS:
        (photos / "small" / f"{name}.JPG").touch()
    with pytest.raises(UserError, match="6 rows: no file at the path"):
        listed(photos, {"id": IDS, "label": list("xyxyxy")}, image_folder=None, suffix="")


def test_ids_that_lead_nowhere_say_what_completes_them(photos):
    with pytest.raises(UserError, match=r"or complete ids by data\.image_folder and data\.suffix"):
        listed(photos, {"id": ["a", *IDS[1:]], "label": list("xyxyxy")}, image_folder=None, suffix="")
    with pytest.raises(UserError, match=r"no file at the path: row 1 \(.*/photos/0\.png\).*Correct or remove them\."):
        listed(photos, {"id": IDS, "label": list("xyxyxy")}, suffix=".png")


def test_a_folder_that_begins_with_the_name_of_no_user_is_a_folder_that_does_not_exist(photos):
    with pytest.raises(UserError, match=r"no file at the path: row 1 \(.*/~no-such-user/0\.JPG\)"):
        listed(photos, {"id": IDS, "label": list("xyxyxy")}, image_folder="~no-such-user")


def test_a_folder_whose_name_is_too_long_for_a_disk_has_no_images(photos):
    with pytest.raises(UserError, match=r"no file at the path: row 1 \(.*/aaaa"):
        listed(photos, {"id": IDS, "label": list("xyxyxy")}, image_folder="a" * 300)


def test_images_to_predict_are_found_by_their_ids_as_well(photos):
    pd.DataFrame({"id": ["3", "", "4"]}).to_csv(photos / "ids.csv", index=False)
    spec = Predict(source=str(photos / "ids.csv"), path_column="id", image_folder="photos", suffix=".JPG")
    found = list_unlabelled(spec, photos)
    assert found.names == ["3", "", "4"]
    assert found.files == [str(photos / "photos" / "3.JPG"), "", str(photos / "photos" / "4.JPG")]


def test_separated_labels_are_found_sorted_and_said(photos):
    listing = listed(photos, {"id": IDS, "label": TAGS}, label_separator="space")
    assert listing.multiple
    assert labels(listing) == ["cat|indoor", "dog|outdoor", "dog|indoor", "cat|indoor", "cat|outdoor", ""]
    assert "separated by spaces" in listing.how


def test_the_same_text_is_one_class_if_that_is_set_and_then_it_must_be_there(photos):
    listing = listed(photos, {"id": IDS, "label": [*TAGS[:5], "none"]}, labels="single")
    assert not listing.multiple
    assert labels(listing)[0] == "cat indoor"
    assert listing.how == ""
    assert (
        "`--data.labels multiple` splits them at spaces"
        in listed(photos, {"id": IDS, "label": [*TAGS[:5], "none"]}).how
    )
    with pytest.raises(UserError, match="1 rows: empty 'label': row 6"):
        listed(photos, {"id": IDS, "label": TAGS}, labels="single")


def test_a_class_of_two_words_stays_one_and_the_setting_that_splits_it_is_said(photos):
    listing = listed(photos, {"id": IDS, "label": ["tabby cat", "golden retriever"] * 3})
    assert not listing.multiple
    assert listing.how == "one label per image, such as 'tabby cat'; `--data.labels multiple` splits them at spaces"


def test_columns_of_lists_are_labels(photos):
    lists = [["b c", "a"], [], ["a"], ["b c"], ["a"], None]
    assert labels(listed(photos, {"id": IDS, "label": lists}, "t.feather")) == ["a|b c", "", "a", "b c", "a", ""]
    texts = [str(each) if each is not None else "" for each in lists]
    assert labels(listed(photos, {"id": IDS, "label": texts})) == ["a|b c", "", "a", "b c", "a", ""]


@pytest.mark.parametrize("name", ["t.csv", "t.feather"])
@pytest.mark.parametrize("kind", [int, float, bool])
def test_columns_of_0_and_1_are_labels(photos, name, kind):
    marks = {"cat": [1, 0, 1, 0, 1, 0], "in": [1, 1, 0, 0, 0, 0], "out": [0, 1, 0, 1, 0, 0]}
    columns = {"id": IDS, "side": ["train", "valid"] * 3, **{key: list(map(kind, each)) for key, each in marks.items()}}
    listing = listed(photos, columns, name, split_column="side")
    assert listing.multiple
    assert labels(listing) == ["cat|in", "in|out", "cat", "out", "cat", ""]


def test_columns_of_0_and_1_with_one_1_in_each_row_are_classes(photos):
    columns = {"id": IDS, "cat": [1, 0] * 3, "dog": [0, 1] * 3}
    listing = listed(photos, columns)
    assert (listing.multiple, labels(listing)) == (False, ["cat", "dog"] * 3)
    assert "`--data.labels multiple`" in listing.how
    assert listed(photos, columns, labels="multiple").multiple


def test_columns_can_be_named_where_others_are_of_another_kind(photos):
    columns = {"id": IDS, "cat": [1, 0] * 3, "dog": [1, 1, 0] * 2, "age": [3, 5, 8, 1, 2, 3]}
    with pytest.raises(UserError, match=r"no column 'label'.*data\.label_columns"):
        listed(photos, columns)
    assert labels(listed(photos, columns, label_columns=["cat", "dog"]))[:2] == ["cat|dog", "dog"]
    with pytest.raises(UserError, match="5 rows: 'age' is neither 0 nor 1: row 1 \\('3'\\)"):
        listed(photos, columns, label_columns=["cat", "age"])
    with pytest.raises(UserError, match="exactly one label column must be 1: row 1"):
        listed(photos, columns, label_columns=["cat", "dog"], labels="single")


def test_a_row_per_label_is_put_together_if_several_are_expected(photos):
    columns = {"id": ["0", "1", "0", "2"], "label": ["cat", "dog", "indoor", "cat"]}
    with pytest.raises(UserError, match=r"another label in an earlier row: .*set data\.labels to multiple"):
        listed(photos, columns)
    listing = listed(photos, columns, labels="multiple")
    assert [(file.path.stem, file.label) for file in listing.files] == [("0", "cat|indoor"), ("1", "dog"), ("2", "cat")]


def test_the_same_labels_for_every_image_are_refused(photos):
    with pytest.raises(UserError, match="the same labels for every image"):
        listed(photos, {"id": IDS, "label": ["a b"] * 6}, labels="multiple")


@pytest.mark.parametrize(
    "settings",
    [{"labels": "single", "label_separator": ";"}, {"label_columns": ["a"], "label_separator": ";"}],
)
def test_settings_that_contradict_each_other_are_refused(settings):
    with pytest.raises(ValidationError, match="label_separator"):
        DataSpec.model_validate(settings)


def test_a_list_with_a_column_whose_name_is_not_text_is_refused_with_its_name(photos):
    pd.DataFrame({"id": IDS, "label": list("xyxyxy")}).to_feather(photos / "t.feather", compression="uncompressed")
    damaged = (photos / "t.feather").read_bytes().replace(b"label", b"lab\xee\x00")
    (photos / "t.feather").write_bytes(damaged)
    with pytest.raises(UserError, match=r"t\.feather cannot be read as a table"):
        resolve_source(DataSpec(source=str(photos / "t.feather"), path_column="id"), photos)
