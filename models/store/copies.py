"""Local copies of a source's parts (objects of a bucket, shards), made again only if their originals changed."""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from unfreeze.models.store.cache_limit import remove_tree


class Made(NamedTuple):
    """A finished copy: its name in the folder, where it was made, and the identity of its original."""

    name: str
    path: Path
    identity: str


class Copies:
    """Copies in a folder, each with the identity that its original had; see `copies_in`."""

    def __init__(self, folder: Path, database: sqlite3.Connection) -> None:
        self.folder, self._database = folder, database
        self._known: dict[str, tuple[str, int]] = {
            name: (identity, size) for name, identity, size in database.execute("SELECT * FROM copies")
        }

    def outdated(self, wanted: Mapping[str, str]) -> list[str]:
        """Remove copies that are not `wanted` (name -> identity), and return the names that must be made."""
        gone = self._known.keys() - wanted.keys()
        for name in gone:
            remove_tree(self.folder / name)
            with suppress(OSError):
                os.removedirs((self.folder / name).parent)  # as far as they are empty
        with self._database:
            self._database.executemany("DELETE FROM copies WHERE name = ?", [(name,) for name in gone])
        return [
            name for name, identity in wanted.items() if self._known.get(name) != (identity, _size(self.folder / name))
        ]

    def keep(self, made: Iterable[Made]) -> None:
        """Move finished copies into place."""
        rows = []
        for each in made:
            target = self.folder / each.name
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_dir():
                remove_tree(target)
            os.replace(each.path, target)
            rows.append((each.name, each.identity, _size(target)))
        with self._database:
            self._database.executemany("INSERT OR REPLACE INTO copies VALUES (?, ?, ?)", rows)

    @contextmanager
    def workplace(self) -> Iterator[Path]:
        """A hidden, empty folder beside the copies, removed at the end."""
        place = self.folder / ".unfinished"
        remove_tree(place)
        place.mkdir()
        try:
            yield place
        finally:
            remove_tree(place)


@contextmanager
def copies_in(folder: Path) -> Iterator[Copies]:
    """Open a folder of copies, which one process at a time may change."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"), closing(sqlite3.connect(folder / ".copies.sqlite")) as database:
        database.execute("CREATE TABLE IF NOT EXISTS copies (name TEXT PRIMARY KEY, identity TEXT, size INTEGER)")
        yield Copies(folder, database)


def _size(path: Path) -> int:
    """Bytes of a file, 0 of a folder, -1 of a missing path."""
    try:
        return 0 if path.is_dir() else path.stat().st_size
    except OSError:
        return -1
