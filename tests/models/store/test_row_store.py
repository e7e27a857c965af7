"""Rows by content."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from tests.damage import DAMAGES, Damage
from unfreeze.models.errors import UserError
from unfreeze.models.store import cache_limit, row_store
from unfreeze.models.store.cache_limit import cached_files, evict
from unfreeze.models.store.row_store import RowStore, StoredRows, missing_lots
from unfreeze.models.store.sealed_files import checksum_file
from unfreeze.models.store.workspace import Workspace

WIDTH = 50


def names(count: int, first: int = 0) -> list[str]:
    return [f"{number:06d}" for number in range(first, first + count)]


def row(content: str) -> np.ndarray:
    return np.full((1, WIDTH), int(content), np.int32)


def complete(folder: Path, contents: Sequence[str], made: list[str], key: str = "store") -> Path:
    """The list of the rows of contents in a workspace; `made` gets those that had to be made."""
    workspace = Workspace(folder)
    store = RowStore(workspace, "things", key, WIDTH, np.int32, {"note": "größe"})

    def rows(positions: np.ndarray, stores: Sequence[str]) -> Iterator[Mapping[str, np.ndarray]]:
        for content in (contents[position] for position in positions):
            made.append(content)
            yield {stores[0]: row(content)}

    def build(wanted: dict[str, Path]) -> None:
        for lot in missing_lots({"it": store}, contents):
            lot.write(rows)
        store.write_list(wanted["it"], contents)

    return workspace.derive("build", {"it": store.list_of(contents)}, build)["it"]


def read(path: Path) -> list[int]:
    rows = StoredRows(path)
    gathered = rows.gather(np.arange(len(rows)))
    assert (gathered == gathered[:, :1]).all()
    return gathered[:, 0].tolist()


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def end_process(folder: Path) -> None:
    """Let go of what is in use, as the end of the process would."""
    cache_limit._held.clear()


def rows_in(folder: Path) -> Path:
    """The only file of rows."""
    (path,) = (folder / "cache" / "things").glob("*.rows")
    return path


@pytest.fixture(autouse=True)
def few_rows_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_store, "MOST_ROWS", 8)


@pytest.fixture
def made() -> list[str]:
    return []


def test_rows_come_back_in_the_order_of_the_list_and_copies_are_made_once(tmp_path: Path, made: list[str]) -> None:
    contents = [*names(20), "000003", "000003"]
    path = complete(tmp_path, contents, made)
    assert read(path) == [*range(20), 3, 3]
    assert made == names(20)
    assert [len(StoredRows(path)), StoredRows(path).width] == [22, WIDTH]
    assert StoredRows(path).metadata == {"note": "größe", "key": "store"}


def test_a_row_outside_the_list_is_refused(tmp_path: Path, made: list[str]) -> None:
    rows = StoredRows(complete(tmp_path, names(10), made))
    for outside in (-1, 10):
        with pytest.raises(IndexError):
            rows.gather(np.array([0, outside]))


def test_a_content_more_is_made_alone_and_costs_its_row_and_little_besides(tmp_path: Path, made: list[str]) -> None:
    complete(tmp_path, names(200), made)
    before, bytes_ = size_of(tmp_path), 200 * WIDTH * 4
    made.clear()
    path = complete(tmp_path, names(201), made)
    assert made == ["000200"]
    assert read(path) == list(range(201))
    assert size_of(tmp_path) - before < bytes_ / 4


def test_contents_that_are_gone_or_in_another_order_make_nothing(tmp_path: Path, made: list[str]) -> None:
    complete(tmp_path, names(30), made)
    made.clear()
    assert read(complete(tmp_path, names(30)[:3:-2], made)) == list(range(30))[:3:-2]
    assert made == []


def test_rows_of_another_key_are_others(tmp_path: Path, made: list[str]) -> None:
    complete(tmp_path, names(3), made)
    complete(tmp_path, names(3), made, key="another")
    assert made == names(3) * 2


@settings(max_examples=20)
@given(
    sets=st.lists(st.lists(st.integers(0, 60), min_size=1, max_size=60), min_size=1, max_size=6),
    most=st.integers(1, 20),
)
def test_any_sequence_of_sets_gives_their_rows_and_makes_each_once(sets: list[list[int]], most: int) -> None:
    made: list[str] = []
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_store, "MOST_ROWS", most)
        for numbers in sets:
            assert read(complete(Path(folder), [f"{number:06d}" for number in numbers], made)) == numbers
        end_process(Path(folder))
    assert len(made) == len(set(made)) == len({number for numbers in sets for number in numbers})


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_rows_keep_their_numbers_and_what_is_gathered_is_a_copy(tmp_path: Path, dtype: str) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (30, 7)).astype(dtype)
    store = RowStore(Workspace(tmp_path), "things", "store", 7, dtype, {})
    store.append(names(30), rows)
    store.write_list(tmp_path / "cache" / "things" / "list", names(30))
    stored = StoredRows(tmp_path / "cache" / "things" / "list")
    wanted = [29, 3, 3, 0]
    gathered = stored.gather(np.array(wanted))
    assert gathered.numpy().dtype == ("float32" if dtype == "float16" else dtype)
    np.testing.assert_array_equal(gathered, rows[wanted])
    gathered += 1
    np.testing.assert_array_equal(stored.gather(np.array(wanted)), rows[wanted])


@pytest.mark.parametrize("damage", [*DAMAGES, Path.unlink])
@pytest.mark.parametrize("of", ["rows", "checksums"])
def test_damaged_rows_are_made_again_and_no_others(
    tmp_path: Path, made: list[str], damage: Damage, of: str, capsys: pytest.CaptureFixture[str]
) -> None:
    complete(tmp_path, names(30), made)
    path = rows_in(tmp_path)
    made.clear()
    damage(path if of == "rows" else checksum_file(path))
    os.utime(path) if path.exists() else None
    assert read(complete(tmp_path, names(30), made)) == list(range(30))
    assert made
    assert len(made) == len(set(made))
    if of == "rows" and damage is DAMAGES[0]:
        assert made == names(1, 14)
        assert f"{path} is damaged: 1 rows" in capsys.readouterr().err
    made.clear()
    complete(tmp_path, names(30), made)
    assert made == []


def test_a_damaged_row_that_no_list_needs_is_let_be(tmp_path: Path, made: list[str]) -> None:
    complete(tmp_path, names(30), made)
    made.clear()
    DAMAGES[0](rows_in(tmp_path))
    assert read(complete(tmp_path, names(12), made)) == list(range(12))
    assert made == []


def test_opening_a_list_counts_as_using_its_rows(tmp_path: Path, made: list[str]) -> None:
    complete(tmp_path, names(30), made)
    for each in cached_files(tmp_path / "cache"):
        os.utime(checksum_file(each.path), (1, 1))
    complete(tmp_path, names(30), made)
    assert all(time.time() - each.used < 60 for each in cached_files(tmp_path / "cache"))


def test_rows_in_use_stay_and_are_removed_and_made_again_afterwards(tmp_path: Path, made: list[str]) -> None:
    path, cache = complete(tmp_path, names(30), made), tmp_path / "cache"
    rows = rows_in(tmp_path)
    os.utime(checksum_file(rows), (1, 1))
    limit = sum(each.size for each in cached_files(cache)) - 1
    assert evict(cache, limit) == []
    end_process(tmp_path)
    assert [each.path for each in evict(cache, limit)] == [rows]
    with pytest.raises(UserError, match="not a complete cache file"):
        StoredRows(path)
    workspace = Workspace(tmp_path)
    wanted = RowStore(workspace, "things", "store", WIDTH, np.int32, {}).list_of(names(30))
    assert workspace.unready([wanted]) == [path]
    made.clear()
    assert complete(tmp_path, names(30), made) == path
    assert made == names(30)
    assert workspace.unready([wanted]) == []


def test_several_stores_are_filled_together_each_with_what_it_lacks(tmp_path: Path, made: list[str]) -> None:
    complete(tmp_path, names(4), made, key="one")
    workspace, asked = Workspace(tmp_path), list[tuple[list[str], list[str]]]()
    stores = {key: RowStore(workspace, "things", key, WIDTH, np.int32, {}) for key in ("one", "two")}

    def rows(positions: np.ndarray, stores: Sequence[str]) -> Iterator[Mapping[str, np.ndarray]]:
        shard = [names(6)[position] for position in positions]
        asked.append((shard, list(stores)))
        for content in shard:
            yield dict.fromkeys(stores, row(content))

    for lot in missing_lots(stores, names(6)):
        lot.write(rows)
    assert asked == [(names(4), ["two"]), (names(2, 4), ["one", "two"])]
    for store in stores.values():
        path = workspace.path(store.list_of(names(6)))
        store.write_list(path, names(6))
        assert read(path) == list(range(6))


BUILDER = """
import os, signal, sys, time
from pathlib import Path
from tests.models.store import test_row_store
from unfreeze.models.store import row_store

class Made(list):
    def append(self, content):
        super().append(content)
        with open(sys.argv[2], "a") as file:
            file.write(content + chr(10))
        time.sleep(0.005)
        if len(self) == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)

row_store.MOST_ROWS = 8
print("ready", flush=True)
sys.stdin.readline()
path = test_row_store.complete(Path(sys.argv[1]), test_row_store.names(int(sys.argv[4])), Made())
assert test_row_store.read(path) == list(range(int(sys.argv[4])))
"""


def builder(folder: Path, log: Path, dies_at: int, count: int) -> "subprocess.Popen[str]":
    """A process that waits for a line and then completes the list of so many contents."""
    command = [sys.executable, "-c", BUILDER, str(folder), str(log), str(dies_at), str(count)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(*processes: "subprocess.Popen[str]") -> list[int]:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return [process.wait(60) for process in processes]


def test_a_kill_loses_the_rows_that_were_not_appended_yet(tmp_path: Path, made: list[str]) -> None:
    with builder(tmp_path, tmp_path / "log", 20, 30) as killed:
        assert go(killed) == [-9]
    assert read(complete(tmp_path, names(30), made)) == list(range(30))
    assert made == names(14, 16)
    assert not list((tmp_path / "cache").rglob("*.partial*"))


@pytest.mark.slow
def test_two_processes_at_once_do_no_work_twice(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with builder(tmp_path, log, 0, 60) as one, builder(tmp_path, log, 0, 60) as other:
        assert go(one, other) == [0, 0]
    assert sorted(log.read_text().split()) == names(60)


@pytest.mark.slow
def test_two_processes_with_overlapping_contents_both_get_their_rows(tmp_path: Path) -> None:
    run = partial(builder, tmp_path, tmp_path / "log", 0)
    with run(50) as one, run(63) as other:
        assert go(one, other) == [0, 0]
