"""Rows by content, in shards."""

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
from unfreeze.models.images.pixels import row_shards
from unfreeze.models.images.pixels.row_shards import MANY_SMALL, RowStore, ShardedRows, missing_lots, shards_of
from unfreeze.models.store import cache_limit
from unfreeze.models.store.cache_limit import cached_files, evict
from unfreeze.models.store.sealed_files import checksum_file, is_intact
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

    def rows(shard: Sequence[str], stores: Sequence[str]) -> Iterator[Mapping[str, np.ndarray]]:
        for content in shard:
            made.append(content)
            yield {stores[0]: row(content)}

    def build(wanted: dict[str, Path]) -> None:
        for lot in missing_lots({"it": store}, contents):
            lot.write(rows)
        store.write_list(wanted["it"], contents)

    return workspace.derive("build", {"it": store.list_of(contents)}, build)["it"]


def read(path: Path) -> list[int]:
    rows = ShardedRows(path)
    gathered = rows.gather(np.arange(len(rows)))
    assert (gathered == gathered[:, :1]).all()
    return gathered[:, 0].tolist()


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def end_process(folder: Path) -> None:
    """Let go of what is in use, as the end of the process would."""
    cache_limit._lists.pop(folder / "cache", None)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_shards, "MOST_ROWS", 8)


@pytest.fixture
def made() -> list[str]:
    return []


def test_rows_come_back_in_the_order_of_the_list_and_copies_are_made_once(tmp_path: Path, made: list[str]) -> None:
    contents = [*names(20), "000003", "000003"]
    path = complete(tmp_path, contents, made)
    assert read(path) == [*range(20), 3, 3]
    assert made == names(20)
    assert [len(ShardedRows(path)), ShardedRows(path).width, len(shards_of(path))] == [22, WIDTH, 3]
    assert ShardedRows(path).metadata == {"note": "größe", "key": "store"}


def test_a_row_outside_the_list_is_refused(tmp_path: Path, made: list[str]) -> None:
    rows = ShardedRows(complete(tmp_path, names(10), made))
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
        patch.setattr(row_shards, "MOST_ROWS", most)
        for numbers in sets:
            assert read(complete(Path(folder), [f"{number:06d}" for number in numbers], made)) == numbers
        end_process(Path(folder))
    assert len(made) == len(set(made)) == len({number for numbers in sets for number in numbers})


@pytest.mark.parametrize("damage", [*DAMAGES, Path.unlink])
def test_a_damaged_shard_is_made_again_by_itself(
    tmp_path: Path, made: list[str], damage: Damage, capsys: pytest.CaptureFixture[str]
) -> None:
    path = complete(tmp_path, names(30), made)
    shard = shards_of(path)[1]
    made.clear()
    damage(shard)
    assert read(complete(tmp_path, names(30), made)) == list(range(30))
    assert made == names(8, 8)
    assert is_intact(shard)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == (damage is not Path.unlink)
    assert all(f"{shard} is damaged" in line for line in said)


def test_a_damaged_shard_whose_contents_are_partly_gone_is_made_as_far_as_it_is_needed(
    tmp_path: Path, made: list[str]
) -> None:
    shard = shards_of(complete(tmp_path, names(30), made))[1]
    made.clear()
    DAMAGES[0](shard)
    assert read(complete(tmp_path, names(12), made)) == list(range(12))
    assert made == names(4, 8)
    assert not shard.exists()


def test_opening_a_list_counts_as_using_its_shards(tmp_path: Path, made: list[str]) -> None:
    complete(tmp_path, names(30), made)
    for each in cached_files(tmp_path / "cache"):
        os.utime(checksum_file(each.path), (1, 1))
    complete(tmp_path, names(30), made)
    assert all(time.time() - each.used < 60 for each in cached_files(tmp_path / "cache"))


def test_a_shard_that_is_used_stays_and_afterwards_the_oldest_goes_alone_and_is_made_again(
    tmp_path: Path, made: list[str]
) -> None:
    path, cache = complete(tmp_path, names(30), made), tmp_path / "cache"
    shard = shards_of(path)[2]
    os.utime(checksum_file(shard), (1, 1))
    limit = sum(each.size for each in cached_files(cache)) - 1
    assert evict(cache, limit) == []
    end_process(tmp_path)
    assert [each.path for each in evict(cache, limit)] == [shard]
    with pytest.raises(UserError, match="not a complete cache file"):
        ShardedRows(path)
    workspace = Workspace(tmp_path)
    wanted = RowStore(workspace, "things", "store", WIDTH, np.int32, {}).list_of(names(30))
    assert workspace.unready([wanted]) == [path]
    made.clear()
    assert complete(tmp_path, names(30), made) == path
    assert made == names(8, 16)
    assert workspace.unready([wanted]) == []


def test_contents_that_are_added_one_by_one_do_not_stay_a_shard_each(
    tmp_path: Path, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_shards, "MOST_ROWS", 64)
    for count in range(1, 60):
        path = complete(tmp_path, names(count), made)
    assert read(path) == list(range(59))
    assert made == names(59)
    assert len(shards_of(path)) < 2 * MANY_SMALL


def test_several_stores_are_filled_together_each_with_what_it_lacks(tmp_path: Path, made: list[str]) -> None:
    complete(tmp_path, names(4), made, key="one")
    workspace, asked = Workspace(tmp_path), list[tuple[list[str], list[str]]]()
    stores = {key: RowStore(workspace, "things", key, WIDTH, np.int32, {}) for key in ("one", "two")}

    def rows(shard: Sequence[str], stores: Sequence[str]) -> Iterator[Mapping[str, np.ndarray]]:
        asked.append((list(shard), list(stores)))
        for content in shard:
            yield dict.fromkeys(stores, row(content))

    for lot in missing_lots(stores, names(6)):
        lot.write(rows)
    assert asked == [(names(4), ["two"]), (names(2, 4), ["one", "two"])]
    for store in stores.values():
        path = workspace.path(store.list_of(names(6)))
        store.write_list(path, names(6))
        assert read(path) == list(range(6))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no list of open files")
def test_open_lists_keep_no_file_open(tmp_path: Path, made: list[str]) -> None:
    path = complete(tmp_path, names(100), made)
    before = len(os.listdir("/proc/self/fd"))
    rows = ShardedRows(path)
    assert len(os.listdir("/proc/self/fd")) == before
    rows.gather(np.arange(100)).add_(1)  # copies: the files must not be reachable for writing
    assert read(path) == list(range(100))


BUILDER = """
import os, signal, sys, time
from pathlib import Path
from tests.models.images.pixels import test_row_shards
from unfreeze.models.images.pixels import row_shards

class Made(list):
    def append(self, content):
        super().append(content)
        with open(sys.argv[2], "a") as file:
            file.write(content + chr(10))
        time.sleep(0.005)
        if len(self) == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)

row_shards.MOST_ROWS = 8
print("ready", flush=True)
sys.stdin.readline()
path = test_row_shards.complete(Path(sys.argv[1]), test_row_shards.names(int(sys.argv[4])), Made())
assert test_row_shards.read(path) == list(range(int(sys.argv[4])))
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


def test_a_kill_loses_the_shard_under_way_and_no_other(tmp_path: Path, made: list[str]) -> None:
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
    log = tmp_path / "log"
    run = partial(builder, tmp_path, log, 0)
    with run(50) as one, run(63) as other:
        assert go(one, other) == [0, 0]
    assert all(is_intact(each.path) for each in cached_files(tmp_path / "cache"))
