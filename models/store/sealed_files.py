"""Files with checksums, verified before use.

``FILE.xxh3`` holds the XXH3 hash (128 bits) of a file or of a folder's files. A file is verified once per process,
before its first use, at disk speed or, from memory, at 10 GB a second. Damage found later could not be repaired
without undoing work.
"""

import contextlib
import json
import os
import shutil
from pathlib import Path

import xxhash

SUFFIX = ".xxh3"
DESCRIPTION = "model.json"
JUDGED = "judged"
"""Subfolder of a refitted model: the model before the refit, which was scored on the validation rows."""
CHECKSUMS = "checksums.json"
_BLOCK = 2**18
"""Read size in bytes; it fits a core's cache while it is hashed."""
_known: dict[Path, tuple[tuple[object, ...], str]] = {}
"""File -> its `_state` when it was read, and its checksum."""


def publish(temporary: Path, path: Path) -> None:
    """Rename a finished file or folder to `path` after flushing it and its checksum to disk."""
    for file in _files(temporary):
        flush_to_disk(file)
    beside = temporary.with_name(f"{temporary.name}{SUFFIX}")
    hashed = checksum(temporary)
    beside.write_text(hashed)
    flush_to_disk(beside)
    # Checksum first: until the file follows, the old one counts as damaged.
    os.replace(beside, checksum_file(path))
    if path.is_dir():  # os.replace cannot overwrite a folder
        shutil.rmtree(path)
    os.replace(temporary, path)
    with contextlib.suppress(OSError):  # some systems cannot open folders
        flush_to_disk(path.parent)
    _known[path] = _state(path), hashed


def is_intact(path: Path) -> bool:
    """Whether a published file exists and matches its checksum."""
    try:
        return has_checksum(path, checksum_file(path).read_text())
    except (OSError, UnicodeDecodeError):
        return False


def has_checksum(path: Path, wanted: str) -> bool:
    """Whether a file has this checksum; it is read again only after a change."""
    state = _state(path)
    if path not in _known or _known[path][0] != state:
        _known[path] = state, checksum(path)
    return _known[path][1] == wanted


def checksum_file(path: Path) -> Path:
    """Path of a file's checksum."""
    return path.with_name(f"{path.name}{SUFFIX}")


def checksum(path: Path) -> str:
    """XXH3 (128 bits, hexadecimal) of a file's content, or of the names and contents of a folder's files."""
    if path.is_dir():
        lines = [f"{file.relative_to(path).as_posix()} {checksum(file)}\n" for file in _files(path)]
        return xxhash.xxh3_128_hexdigest("".join(lines).encode())
    hashed, block = xxhash.xxh3_128(), memoryview(bytearray(_BLOCK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            hashed.update(block[:count])
    return hashed.hexdigest()


def flush_to_disk(path: Path) -> None:
    """Flush a file to disk; without this, a renamed file may be empty after a power loss."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _files(path: Path) -> list[Path]:
    """The file itself, or all files of a folder sorted by name."""
    return sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]


def _state(path: Path) -> tuple[object, ...]:
    """Stat values that change when a file is replaced or written to, but not when its content decays on disk."""
    stats = [(file, file.stat()) for file in _files(path)]
    return tuple((file, stat.st_ino, stat.st_size, stat.st_mtime_ns) for file, stat in stats)


def write_checksums(folder: Path) -> None:
    """Write the XXH3 hashes of all files now in a model folder into ``checksums.json``."""
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    checksums = {name: checksum(folder / name) for name in files if name != CHECKSUMS}
    (folder / CHECKSUMS).write_text(json.dumps(checksums, indent=1))


def damaged_file(folder: Path) -> str | None:
    """First file of a model folder that is missing or damaged, or None."""
    try:
        checksums: dict[str, str] = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
        named = [(folder / name, known) for name, known in checksums.items()]
    except (OSError, ValueError, TypeError, AttributeError):
        return CHECKSUMS
    for path, known in named:
        if not path.is_file() or not has_checksum(path, known):
            return path.relative_to(folder).as_posix()
    return None
