"""The content-addressed cache."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from unfreeze.models.workspace import build_files as build, key_of, missing


@pytest.fixture
def cache_path(tmp_path: Path) -> Callable[[str, str], Path]:
    return lambda kind, key: tmp_path / kind / key


def test_a_key_changes_with_every_part_and_with_nothing_else() -> None:
    assert key_of("a", {"x": 1, "y": 2}) == key_of("a", {"y": 2, "x": 1})
    assert len({key_of("a", 1), key_of("a", 2), key_of("b", 1), key_of("a", [1])}) == 4


def test_an_existing_file_is_not_built_again(cache_path: Callable[[str, str], Path]) -> None:
    path = cache_path("things", key_of(1))
    build([path], lambda temporary: temporary[0].write_text("first") and None)
    build([path], lambda temporary: pytest.fail("built again"))
    assert path.read_text() == "first"


def test_a_deleted_file_is_built_again(cache_path: Callable[[str, str], Path]) -> None:
    path = cache_path("things", key_of(2))
    for content in ("first", "second"):
        build([path], lambda temporary, content=content: temporary[0].write_text(content) and None)
        assert path.read_text() == content
        path.unlink()


def test_only_the_missing_files_are_built(cache_path: Callable[[str, str], Path]) -> None:
    paths = [cache_path("things", key_of(3, number)) for number in range(3)]
    build(paths[:1], lambda temporary: temporary[0].write_text("old") and None)
    wanted = missing(paths)

    def build_rest(temporary: list[Path]) -> None:
        assert len(temporary) == 2
        for path in temporary:
            path.write_text("new")

    assert build(paths, build_rest) == paths
    assert wanted == paths[1:]
    assert [path.read_text() for path in paths] == ["old", "new", "new"]


def test_a_builder_that_fails_leaves_no_file_behind(cache_path: Callable[[str, str], Path]) -> None:
    path = cache_path("things", key_of(4))

    def fail(temporary: list[Path]) -> None:
        temporary[0].write_text("half")
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        build([path], fail)
    assert [each for each in path.parent.iterdir() if each.suffix != ".lock"] == []


def test_two_builders_of_one_file_take_turns_and_the_second_finds_it(cache_path: Callable[[str, str], Path]) -> None:
    path = cache_path("things", key_of(5))
    built: list[int] = []
    inside = threading.Event()

    def slow(temporary: list[Path]) -> None:
        inside.set()
        built.append(1)
        temporary[0].write_text("one")

    threads = [threading.Thread(target=build, args=([path], slow)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert inside.is_set()
    assert built == [1]
