"""Hashes of files that are kept."""

import os
from pathlib import Path

import pytest

from unfreeze.models.store import known_contents
from unfreeze.models.store.content import hash_file
from unfreeze.models.store.known_contents import hash_changed
from unfreeze.models.store.sealed_files import checksum_file


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read, from now on; changes count as settled at once."""
    names: list[str] = []

    def hash_and_note(path: Path) -> str:
        names.append(path.name)
        return hash_file(path)

    monkeypatch.setattr(known_contents, "hash_file", hash_and_note)
    monkeypatch.setattr(known_contents, "_SETTLED", -1)
    return names


def hashed(folder: Path, kept: Path) -> list[str]:
    return list(hash_changed((os.fsencode(path) for path in sorted(folder.iterdir())), kept, 2))


def photos(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}.jpg").write_text(f"photo {number}")
    return folder


def test_only_new_and_changed_files_are_read_again(tmp_path: Path, read: list[str]) -> None:
    folder, kept = photos(tmp_path / "photos", 6), tmp_path / "kept.arrow"
    before = hashed(folder, kept)
    assert before == [hash_file(folder / f"{number}.jpg") for number in range(6)]
    assert sorted(read) == [f"{number}.jpg" for number in range(6)]
    read.clear()
    (folder / "3.jpg").write_text("PHOTO 3")
    (folder / "2b.jpg").write_text("new")
    (folder / "5.jpg").unlink()
    after = hashed(folder, kept)
    assert sorted(read) == ["2b.jpg", "3.jpg"]
    assert after == [*before[:3], hash_file(folder / "2b.jpg"), hash_file(folder / "3.jpg"), before[4]]


def test_a_file_of_the_same_size_and_time_in_the_place_of_another_is_read(tmp_path: Path, read: list[str]) -> None:
    folder, kept = photos(tmp_path / "photos", 2), tmp_path / "kept.arrow"
    hashed(folder, kept)
    times = (folder / "0.jpg").stat()
    (folder / "0.jpg").write_text("PHOTO 0")
    os.utime(folder / "0.jpg", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert hashed(folder, kept)[0] == hash_file(folder / "0.jpg")


def test_a_file_that_was_just_written_is_read_again(
    tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_contents, "_SETTLED", 10**12)
    folder, kept = photos(tmp_path / "photos", 2), tmp_path / "kept.arrow"
    hashed(folder, kept)
    read.clear()
    hashed(folder, kept)
    assert sorted(read) == ["0.jpg", "1.jpg"]


def test_damaged_hashes_are_made_again(tmp_path: Path, read: list[str]) -> None:
    folder, kept = photos(tmp_path / "photos", 2), tmp_path / "kept.arrow"
    before = hashed(folder, kept)
    kept.write_bytes(kept.read_bytes()[:-9])
    assert hashed(folder, kept) == before
    kept.write_bytes(b"no table")
    checksum_file(kept).unlink()
    assert hashed(folder, kept) == before
    (folder / "1.jpg").unlink()
    (folder / "1.jpg").mkdir()
    assert hashed(folder, kept) == [before[0], ""]
