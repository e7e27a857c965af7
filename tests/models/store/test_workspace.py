"""The content-addressed cache."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.damage import DAMAGES, Damage, flip_bit
from unfreeze.models.store import sealed_files
from unfreeze.models.store.sealed_files import checksum_file
from unfreeze.models.store.workspace import Derived, Workspace, key_of


def test_a_key_changes_with_every_part_and_with_nothing_else() -> None:
    assert key_of("a", {"x": 1, "y": 2}) == key_of("a", {"y": 2, "x": 1})
    for many in ([], ["b"], [["b", "ö"]] * 5000):
        assert key_of("a", iter(many), 1) == key_of("a", many, 1)
    assert len({key_of("a", 1), key_of("a", 2), key_of("b", 1), key_of("a", [1])}) == 4


def test_only_missing_files_are_built(tmp_path: Path) -> None:
    files = {name: Derived("things", name) for name in "abc"}

    def build(wanted: dict[str, Path]) -> None:
        for name, path in wanted.items():
            path.write_text(f"{name} of {''.join(wanted)}")

    Workspace(tmp_path).derive("build", {"a": files["a"]}, build)
    paths = Workspace(tmp_path).derive("build", files, build)
    assert [path.read_text() for path in paths.values()] == ["a of a", "b of bc", "c of bc"]
    paths["b"].unlink()
    Workspace(tmp_path).derive("build", files, build)
    assert [path.read_text() for path in paths.values()] == ["a of a", "b of b", "c of bc"]


def test_a_builder_that_fails_leaves_no_file_behind(tmp_path: Path) -> None:
    def fail(wanted: dict[str, Path]) -> None:
        wanted["it"].write_text("half")
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        Workspace(tmp_path).derive("build", {"it": FILE}, fail)
    assert [each for each in (tmp_path / "cache" / "things").iterdir() if each.suffix != ".lock"] == []


def test_two_builders_of_one_file_take_turns_and_the_second_finds_it(tmp_path: Path) -> None:
    built: list[int] = []

    def slow(wanted: dict[str, Path]) -> None:
        built.append(1)
        write(wanted)

    def derive() -> None:
        Workspace(tmp_path).derive("build", {"it": FILE}, slow)

    threads = [threading.Thread(target=derive) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert built == [1]


@pytest.fixture
def derive(tmp_path: Path) -> Callable[[], Path]:
    """A function that asks a new workspace of one folder for a file of 100 kB."""
    return lambda: Workspace(tmp_path).derive("build", {"it": FILE}, write)["it"]


FILE = Derived("things", key_of(6), ".bin")
CONTENT = bytes(range(200)) * 500


def write(wanted: dict[str, Path]) -> None:
    wanted["it"].write_bytes(CONTENT)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_built_again_and_named(
    derive: Callable[[], Path], damage: Damage, capsys: pytest.CaptureFixture[str]
) -> None:
    path = derive()
    damage(path)
    assert derive().read_bytes() == CONTENT
    (line,) = capsys.readouterr().err.splitlines()
    assert str(path) in line
    assert "damaged" in line
    assert "built again" in line


def test_a_file_in_a_derived_folder_is_checked_as_well(tmp_path: Path) -> None:
    def write_folder(wanted: dict[str, Path]) -> None:
        (wanted["it"] / "inner").mkdir(parents=True)
        (wanted["it"] / "inner" / "weights").write_bytes(CONTENT)

    def derive_folder() -> Path:
        return Workspace(tmp_path).derive("build", {"it": Derived("folders", "a", "")}, write_folder)["it"]

    flip_bit(derive_folder() / "inner" / "weights")
    assert (derive_folder() / "inner" / "weights").read_bytes() == CONTENT
    (derive_folder() / "inner" / "weights").unlink()
    assert (derive_folder() / "inner" / "weights").read_bytes() == CONTENT


def test_a_file_without_its_checksum_is_built_again(derive: Callable[[], Path]) -> None:
    path = derive()
    path.write_bytes(b"from elsewhere")
    checksum_file(path).unlink()
    assert derive().read_bytes() == CONTENT


def test_a_file_is_read_for_its_checksum_once_per_process(
    derive: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = derive()
    os.utime(path, (1, 1))
    derive()  # its time changed, so it is read once
    monkeypatch.setattr(sealed_files, "checksum", lambda path: pytest.fail("read again"))
    derive()


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    rename = os.replace

    def renamed(source: Path, target: Path) -> None:
        events.append(f"rename {target.name}")
        rename(source, target)

    monkeypatch.setattr(sealed_files, "flush_to_disk", lambda path: events.append(f"flush {path.name}"))
    monkeypatch.setattr(os, "replace", renamed)
    (tmp_path / "partial").write_bytes(CONTENT)
    sealed_files.publish(tmp_path / "partial", tmp_path / "file")
    first, second = events.index("flush partial"), events.index("rename file")
    assert first < events.index("rename file.xxh3") < second


def test_what_a_killed_builder_of_the_same_file_left_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "things" / "a.arrow"
    path.parent.mkdir(parents=True)
    for name in ("a.arrow.1234.partial", "a.arrow.1234.partial.xxh3", "b.arrow.1234.partial"):
        (path.parent / name).touch()
    Workspace(tmp_path).derive("build", {"it": Derived("things", "a")}, write)
    assert [each.name for each in path.parent.glob("*.partial*")] == ["b.arrow.1234.partial"]


def test_what_a_builder_yields_is_there_even_if_the_rest_fails(tmp_path: Path) -> None:
    files = {name: Derived("views", name) for name in ("a", "b", "c")}
    asked: list[list[str]] = []

    def view(wanted: dict[str, Path], fails_at: str) -> Iterator[str]:
        asked.append(list(wanted))
        for name, path in wanted.items():
            if name == fails_at:
                path.write_text("half")
                raise RuntimeError("no more")
            path.write_text(name)
            yield name

    with pytest.raises(RuntimeError, match="no more"):
        Workspace(tmp_path).derive("build", files, lambda wanted: view(wanted, "b"))
    assert [path.name for path in (tmp_path / "cache" / "views").glob("*.arrow")] == ["a.arrow"]
    paths = Workspace(tmp_path).derive("build", files, lambda wanted: view(wanted, "none"))
    assert asked == [["a", "b", "c"], ["b", "c"]]
    assert {name: path.read_text() for name, path in paths.items()} == {"a": "a", "b": "b", "c": "c"}
    assert not list((tmp_path / "cache" / "views").glob("*.partial*"))
