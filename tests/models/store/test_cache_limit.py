"""The limit of the cache's size."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from unfreeze.models.errors import UserError
from unfreeze.models.store.cache_limit import LIMIT, cached_files, evict, hold, is_in_use, size_limit, unfinished_files
from unfreeze.models.store.sealed_files import checksum_file, is_intact, publish
from unfreeze.models.store.workspace import Derived, Workspace

KB = 1000


def cached(cache: Path, name: str, size: int, used: float) -> Path:
    """A cached file of this size, last used at this time."""
    path = cache / "things" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(bytes(size))
    publish(partial, path)
    os.utime(checksum_file(path), (used, used))
    return path


def test_what_was_not_used_for_longest_goes_first_and_no_more_than_needed(tmp_path: Path) -> None:
    old, oldest, new = (cached(tmp_path, name, 40 * KB, used) for name, used in [("a", 2), ("b", 1), ("c", 3)])
    removed = evict(tmp_path, 90 * KB)
    assert [each.path for each in removed] == [oldest]
    assert not checksum_file(oldest).exists()
    assert is_intact(old)
    assert is_intact(new)
    assert evict(tmp_path, 90 * KB) == []


def test_the_files_of_a_derived_folder_count_as_one(tmp_path: Path) -> None:
    files = [cached(tmp_path, name, 40 * KB, used) for name, used in [("a", 2), ("b", 1)]]
    partial = tmp_path / "models" / "m.partial"
    partial.mkdir(parents=True)
    for name in ("weights", "weights.xxh3"):
        (partial / name).write_bytes(bytes(KB))
    publish(partial, tmp_path / "models" / "m")
    assert {each.path: each.size for each in cached_files(tmp_path)} == {
        **dict.fromkeys(files, 40 * KB),
        tmp_path / "models" / "m": 2 * KB,
    }
    assert [each.path for each in evict(tmp_path, 50 * KB)] == [files[1]]


def test_a_file_that_this_process_uses_stays(tmp_path: Path) -> None:
    used, free = cached(tmp_path, "a", 40 * KB, 1), cached(tmp_path, "b", 40 * KB, 2)
    hold(tmp_path, [used])
    assert [each.path for each in evict(tmp_path, 0)] == [free]
    assert is_intact(used)


def test_a_file_that_another_process_uses_stays_until_that_ends_however_it_ends(tmp_path: Path) -> None:
    path = cached(tmp_path, "a", 40 * KB, 1)
    code = (
        "import sys, time; from pathlib import Path; from unfreeze.models.store.cache_limit import hold;"
        f"hold(Path({str(tmp_path)!r}), [Path({str(path)!r})]); print('held', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert evict(tmp_path, 0) == []
        other.kill()
        other.wait()
    assert not is_in_use(tmp_path, path)
    assert [each.path for each in evict(tmp_path, 0)] == [path]


def test_a_workspace_keeps_to_the_limit_and_holds_what_it_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LIMIT, "100 kB")
    old = cached(tmp_path / "cache", "old", 60 * KB, 1)

    def derive(name: str) -> Path:
        def write(wanted: dict[str, Path]) -> None:
            wanted["it"].write_bytes(bytes(60 * KB))

        return Workspace(tmp_path).derive(name, {"it": Derived("things", name)}, write)["it"]

    first = derive("first")
    assert not old.exists()
    second = derive("second")
    assert first.exists()  # more than the limit, but this process uses it
    assert second.exists()


def test_asking_for_a_file_counts_as_using_it(tmp_path: Path) -> None:
    workspace, wanted = Workspace(tmp_path), {"it": Derived("things", "a")}
    path = workspace.derive("build", wanted, lambda files: files["it"].write_bytes(b"content") and None)["it"]
    os.utime(checksum_file(path), (1, 1))
    workspace.derive("build", wanted, lambda files: pytest.fail("built again"))
    (found,) = cached_files(tmp_path / "cache")
    assert time.time() - found.used < 60


@pytest.mark.parametrize(
    ("text", "bytes_"), [("1500", 1500), ("20 GB", 20 * 10**9), ("1.5MB", 1_500_000), ("2 tib", 2 * 2**40), ("0", 0)]
)
def test_the_limit_is_read_in_any_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, bytes_: int) -> None:
    monkeypatch.setenv(LIMIT, text)
    assert size_limit(tmp_path) == bytes_


def test_a_limit_that_is_no_size_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIMIT, "plenty")
    with pytest.raises(UserError, match="'plenty' is not a size"):
        size_limit(tmp_path)


def test_a_fifth_of_the_disk_is_the_limit_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LIMIT, raising=False)
    assert size_limit(tmp_path) > 0


def test_what_a_killed_builder_left_is_found_and_what_is_being_built_is_not(tmp_path: Path) -> None:
    from filelock import FileLock

    (tmp_path / "things").mkdir()
    left, built = (tmp_path / "things" / f"{name}.arrow.{'0' * 32}.partial" for name in ("left", "built"))
    left.touch()
    built.touch()
    with FileLock(tmp_path / "things" / "built.arrow.lock"):
        assert unfinished_files(tmp_path) == [left]
