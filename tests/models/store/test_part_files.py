from pathlib import Path

import pyarrow as pa
import pytest

from tests.damage import DAMAGES, Damage
from unfreeze.models.errors import UserError
from unfreeze.models.store.part_files import PartFiles

SCHEMA = pa.schema([("row", pa.int64())])


def part(first: int, count: int) -> pa.RecordBatch:
    return pa.record_batch([pa.array(range(first, first + count))], schema=SCHEMA)


@pytest.fixture
def parts(tmp_path: Path) -> PartFiles:
    """Ten rows, four in a part, none of them there."""
    return PartFiles(tmp_path / "out.partial", 10, 4)


def write_all(parts: PartFiles) -> None:
    for first in (0, 4, 8):
        parts.write(first, part(first, min(4, 10 - first)))


def test_parts_come_back_as_one_table_in_order(parts: PartFiles) -> None:
    write_all(parts)
    assert parts.done() == 10
    assert parts.schema() == SCHEMA
    assert pa.Table.from_batches(parts.batches())["row"].to_pylist() == list(range(10))


def test_only_whole_parts_without_a_gap_count(parts: PartFiles, tmp_path: Path) -> None:
    assert parts.done() == 0
    parts.write(0, part(0, 4))
    parts.write(8, part(8, 2))
    assert parts.done() == 4
    parts.write(4, part(4, 4))
    assert parts.done() == 10


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_part_is_none(parts: PartFiles, tmp_path: Path, damage: Damage) -> None:
    write_all(parts)
    damaged = sorted((tmp_path / "out.partial").glob("*.arrow"))[1]
    damage(damaged)
    assert parts.done() == 4
    with pytest.raises(UserError, match=f"{damaged.name} is damaged"):
        list(parts.batches())
    parts.write(4, part(4, 4))
    assert parts.done() == 10


def test_an_unfinished_part_is_none_and_is_written_again(parts: PartFiles, tmp_path: Path) -> None:
    parts.write(0, part(0, 4))
    (tmp_path / "out.partial" / "part-000000000004.unfinished").write_bytes(b"half")
    assert parts.done() == 4
    parts.write(4, part(4, 4))
    parts.write(8, part(8, 2))
    assert parts.done() == 10


def test_a_part_that_cannot_be_written_leaves_none(parts: PartFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        raise OSError("no space left")

    parts.write(0, part(0, 4))
    with monkeypatch.context() as patch:
        patch.setattr("unfreeze.models.store.sealed_files.flush_to_disk", full)
        with pytest.raises(OSError, match="no space"):
            parts.write(4, part(4, 4))
    assert parts.done() == 4


def test_the_folder_goes_with_its_parts_but_not_with_what_a_person_put_there(parts: PartFiles, tmp_path: Path) -> None:
    write_all(parts)
    note = tmp_path / "out.partial" / "part-notes.arrow"
    note.write_text("mine")
    parts.remove()
    assert list((tmp_path / "out.partial").iterdir()) == [note]
    note.unlink()
    parts.remove()
    assert not (tmp_path / "out.partial").exists()
    parts.remove()  # there is nothing to remove any more
