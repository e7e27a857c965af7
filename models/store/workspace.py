"""Cache of derived files, keyed by their inputs."""

import hashlib
import json
import os
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from filelock import FileLock

from unfreeze.models.store.cache_limit import LIMIT, evict, hold, remove_tree, size_limit
from unfreeze.models.store.progress import Advance, progress_bar
from unfreeze.models.store.sealed_files import checksum_file, is_intact, publish

Result = TypeVar("Result")
Build = Callable[[dict[str, Path]], Iterator[str] | None]
"""Writes files (name -> temporary path); yields the name of each finished file, or returns after all."""


def key_of(*parts: Any) -> str:
    """Hash JSON-serialisable parts: content hashes, parameters and version constants; never a path or a date.

    An iterator counts as the list of its items, but is not held in memory.
    """
    hashed = hashlib.blake2b(b"[", digest_size=16)
    for number, part in enumerate(parts):
        hashed.update(b"," if number else b"")
        if not isinstance(part, Iterator):
            hashed.update(_json(part))
            continue
        separator = b"["
        while chunk := list(islice(part, 4096)):
            hashed.update(separator + _json(chunk)[1:-1])
            separator = b","
        hashed.update(b"[]" if separator == b"[" else b"]")
    hashed.update(b"]")
    return hashed.hexdigest()


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


class Derived(NamedTuple):
    """Identity of a derived file.

    Attributes
    ----------
    kind
        Cache folder or subfolder.
    key
        Hash of its inputs.
    suffix
        File suffix.
    is_usable
        Whether everything that an intact file refers to exists.
    """

    kind: str
    key: str
    suffix: str = ".arrow"
    is_usable: Callable[[Path], bool] = lambda path: True


class Workspace:
    """Folder of derived files and data sets, with progress reporting: this class prints, a flow's shows tasks.

    Parameters
    ----------
    folder
        Created if necessary.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.built = 0
        """Number of builds so far."""

    @property
    def datasets(self) -> Path:
        """Folder of downloaded data sets."""
        return self.folder / "datasets"

    @property
    def cache(self) -> Path:
        """Folder of derived files."""
        return self.folder / "cache"

    def path(self, derived: Derived) -> Path:
        """Path of a derived file, which may not exist yet."""
        return self.cache / derived.kind / f"{derived.key}{derived.suffix}"

    def step(self, name: str, function: Callable[[], Result]) -> Result:
        """Run a named step."""
        return function()

    def derive(self, name: str, files: Mapping[str, Derived], build: Build) -> dict[str, Path]:
        """Build missing or damaged derived files as a named step, and return the paths of all.

        Protects them from removal while this process runs. May evict least recently used files.

        Parameters
        ----------
        name
            Name of the step.
        files
            Requested files by any name.
        build
            Writes the missing files (name -> temporary path). A file whose name it yields is published at once, even if
            a later one fails.
        """
        paths = {each: self.path(derived) for each, derived in files.items()}
        hold(self.cache, paths.values())
        with locked(paths.values()):
            names = {path: each for each, path in paths.items()}  # equal keys share a file
            missing = {each: path for path, each in names.items() if not self._is_ready(files[each])}
            if missing:
                self._build(missing, build)
        note_use(paths.values())
        if missing:
            self._keep_to_limit()
        return paths

    def unready(self, files: Iterable[Derived]) -> list[Path]:
        """Paths of the derived files that must be built; the others are protected while this process runs."""
        paths = {self.path(derived): derived for derived in files}
        hold(self.cache, paths)
        with locked(paths):
            unready = [path for path, derived in paths.items() if not self._is_ready(derived)]
        note_use(set(paths) - set(unready))
        return unready

    def _is_ready(self, derived: Derived) -> bool:
        """Whether a locked file is intact and usable."""
        path = self.path(derived)
        return is_intact(path) and derived.is_usable(path)

    def _build(self, missing: Mapping[str, Path], build: Build) -> None:
        """Build locked files under temporary names and rename each when it is finished."""
        self.built += 1
        for path in missing.values():
            if path.exists() and not is_intact(path):
                self.notice(f"{path} is damaged: its content is not that of its checksum; it is built again")
            for left in path.parent.glob(f"{path.name}.*.partial*"):  # left by a killed builder
                remove_tree(left)
        temporary = {name: path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial") for name, path in missing.items()}
        try:
            finished = set[str]()
            for name in build(dict(temporary)) or ():
                publish(temporary[name], missing[name])
                finished.add(name)
            for name, path in missing.items():
                if name not in finished:
                    publish(temporary[name], path)
        finally:
            for source in temporary.values():
                remove_tree(source)

    def _keep_to_limit(self) -> None:
        limit = size_limit(self.cache)
        if removed := evict(self.cache, limit):
            freed = sum(each.size for each in removed) / 1e6
            self.log(
                f"removed the {len(removed)} least recently used files of {freed:,.0f} MB: the limit of "
                f"the cache is {limit / 1e9:,.1f} GB ({LIMIT})"
            )

    @contextmanager
    def progress(self, text: str, note: Callable[[], str] = lambda: "") -> Iterator[Advance]:
        """Report progress within a block."""
        with progress_bar(text, note) as advance:
            yield advance

    def log(self, line: str) -> None:
        """Write a line to the log."""

    def notice(self, line: str) -> None:
        """Show a line to the user."""
        print(line, file=sys.stderr)


@contextmanager
def locked(paths: Iterable[Path]) -> Iterator[None]:
    """Lock files against other builders and eviction."""
    with ExitStack() as locks:
        for path in sorted(set(paths)):  # sorted order prevents deadlocks
            path.parent.mkdir(parents=True, exist_ok=True)
            locks.enter_context(FileLock(f"{path}.lock"))
        yield


def note_use(paths: Iterable[Path]) -> None:
    """Record a use as the modification time of a file's checksum; eviction goes by that time."""
    for path in paths:
        os.utime(checksum_file(path))
