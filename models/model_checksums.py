"""Checksums of a model folder: ``checksums.json`` has the XXH3 hash of every other file."""

import json
from pathlib import Path

from unfreeze.models.sealed_files import checksum, has_checksum

DESCRIPTION = "model.json"
JUDGED = "judged"
"""Folder within that of a refitted model: the model as the validation rows judged it, which never learnt from them."""
CHECKSUMS = "checksums.json"


def write_checksums(folder: Path) -> None:
    """Write those of all files that are in a folder now."""
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    checksums = {name: checksum(folder / name) for name in files if name != CHECKSUMS}
    (folder / CHECKSUMS).write_text(json.dumps(checksums, indent=1))


def damaged_file(folder: Path) -> str | None:
    """The first file of a model folder that is missing or not as it was written; None if there is none."""
    try:
        checksums: dict[str, str] = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
        named = [(folder / name, known) for name, known in checksums.items()]
    except (OSError, ValueError, TypeError, AttributeError):
        return CHECKSUMS
    for path, known in named:
        if not path.is_file() or not has_checksum(path, known):
            return path.relative_to(folder).as_posix()
    return None
