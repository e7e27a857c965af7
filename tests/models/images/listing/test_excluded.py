from pathlib import Path

import pytest

from unfreeze.models.errors import UserError
from unfreeze.models.images.listing.rows import ListedFile, Listing, on_disk, without_excluded


@pytest.fixture
def listing(tmp_path: Path) -> Listing:
    files = [
        ListedFile(tmp_path / "photos" / label / f"{number}.jpg", label, None) for label in "ab" for number in (1, 2)
    ]
    return Listing("photos", on_disk(files))


def names(listing: Listing) -> list[str]:
    return [f"{file.label}/{file.path.name}" for file in listing.files]


def test_listed_images_are_left_out_by_absolute_path_and_by_one_from_the_files_folder(listing, tmp_path):
    listed = tmp_path / "wrong.txt"
    listed.write_text(f"{tmp_path}/photos/a/1.jpg\n\nphotos/b/2.jpg\nphotos/gone.jpg\n")
    kept, note = without_excluded(listing, str(listed))
    assert names(kept) == ["a/2.jpg", "b/1.jpg"]
    assert note == f"2 images are left out by {listed}, which lists 1 more that are not there"


def test_without_a_file_nothing_is_left_out(listing):
    assert without_excluded(listing, None) == (listing, "")


def test_a_file_that_cannot_be_used_is_an_error_that_says_why(listing, tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*nowhere.txt: No such file"):
        without_excluded(listing, str(tmp_path / "nowhere.txt"))
    listed = tmp_path / "all.txt"
    listed.write_text("photos/a/1.jpg\nphotos/a/2.jpg\n")
    with pytest.raises(UserError, match="fewer than two classes"):
        without_excluded(listing, str(listed))
    listed.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not UTF-8"):
        without_excluded(listing, str(listed))
