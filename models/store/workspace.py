"""Where derived files are kept: whatever can be derived again is kept under a key of what it was derived from."""

import hashlib
import json
import os
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from filelock import FileLock

from unfreeze.models.store.cache_limit import LIMIT, evict, hold, remove_tree, size_limit
from unfreeze.models.store.sealed_files import checksum_file, is_intact, publish

Result = TypeVar("Result")
Advance = Callable[[int, int], None]
"""Called with (done, total)."""
Build = Callable[[dict[str, Path]], Iterator[str] | None]
"""Writes files, given as name -> temporary path; yields the name of each that is finished, or returns after all."""


def key_of(*parts: Any) -> str:
    """A key of JSON-able parts: hashes of contents, parameters and version constants; never a path or a date."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _no_parts(path: Path) -> list[Path]:
    return []


class Derived(NamedTuple):
    """Names a derived file.

    Attributes
    ----------
    kind
        A folder of the cache, or one within it.
    key
        Of what it is derived from.
    suffix
        Of its name.
    parts
        Reads from the file which other files of the cache it is of no use without.
    """

    kind: str
    key: str
    suffix: str = ".arrow"
    parts: Callable[[Path], list[Path]] = _no_parts


class Workspace:
    """A folder of derived files and data sets, and how steps report; this one prints, a flow's shows tasks.

    Parameters
    ----------
    folder
        Made if need be.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.built = 0
        """How often something had to be derived."""

    @property
    def datasets(self) -> Path:
        """Where data sets are downloaded to."""
        return self.folder / "datasets"

    @property
    def cache(self) -> Path:
        """Where derived files are."""
        return self.folder / "cache"

    def path(self, derived: Derived) -> Path:
        """Where a derived file is, or will be."""
        return self.cache / derived.kind / f"{derived.key}{derived.suffix}"

    def step(self, name: str, function: Callable[[], Result]) -> Result:
        """Run a named step."""
        return function()

    def derive(self, name: str, files: Mapping[str, Derived], build: Build) -> dict[str, Path]:
        """Make sure that derived files exist and are intact, as a named step; a damaged one is built again.

        They stay while this process lives. Others that were not used for long may go for what is built here.

        Parameters
        ----------
        name
            Of the step.
        files
            Wanted files by any name.
        build
            Called with temporary paths of the missing or damaged ones by the same names, and writes them. What it
            yields the name of is there from then on, whatever happens to the others.
        """
        before = self.built
        paths = self.build(files, build)
        if self.built > before:
            self._keep_to_limit()
        return paths

    def build(self, files: Mapping[str, Derived], build: Build) -> dict[str, Path]:
        """As `derive`, but as a part of a step: the limit of the cache is not looked at."""
        derived = {self.path(each): (name, each) for name, each in files.items()}
        wanted = list[Path]()

        def find_missing(paths: Sequence[Path]) -> list[Path]:
            wanted[:] = [path for path in paths if not self._is_ready(path, derived[path][1])]
            return wanted

        def build_missing(temporary: list[Path]) -> Iterator[Path] | None:
            for path in wanted:
                if path.exists() and not is_intact(path):
                    self._name_damaged(path)
            self.built += 1
            targets = {derived[path][0]: target for path, target in zip(wanted, temporary, strict=True)}
            finished = build(targets)
            return None if finished is None else (targets[each] for each in finished)

        hold(self.cache, derived)
        build_files(list(derived), build_missing, find_missing)
        _note_use(derived)
        return {name: self.path(each) for name, each in files.items()}

    def unready(self, files: Iterable[Derived]) -> list[Path]:
        """Where those of the derived files are that must be built; the others stay while this process lives."""
        derived = {self.path(each): each for each in files}
        hold(self.cache, derived)
        with _locked(list(derived)):
            unready = [path for path, each in derived.items() if not self._is_ready(path, each)]
        _note_use(set(derived) - set(unready))
        return unready

    def intact(self, paths: Iterable[Path], drop: bool = False) -> list[Path]:
        """Those of the files that are there and intact; they count as used, and stay while this process lives.

        With `drop` a damaged one is removed, and a line says so. However many there are, one is locked at a time.
        """
        wanted, found = list(paths), list[Path]()
        hold(self.cache, wanted)
        for path in wanted:
            with _locked([path]):
                if is_intact(path):
                    found.append(path)
                    _note_use([path])
                elif drop and path.exists():
                    self._name_damaged(path)
                    remove_tree(path)
        return found

    def _is_ready(self, path: Path, derived: Derived) -> bool:
        """Whether a file that is locked is intact, and all of its parts are."""
        if not is_intact(path):
            return False
        parts = derived.parts(path)
        return len(self.intact(parts)) == len(parts)

    def _name_damaged(self, path: Path) -> None:
        self.notice(f"{path} is damaged: its content is not that of its checksum; it is built again")

    def _keep_to_limit(self) -> None:
        limit = size_limit(self.cache)
        if removed := evict(self.cache, limit):
            freed = sum(each.size for each in removed) / 1e6
            self.log(
                f"removed {len(removed)} cached files of {freed:,.0f} MB that were not used for longest: the limit of "
                f"the cache is {limit / 1e9:,.1f} GB ({LIMIT})"
            )

    @contextmanager
    def progress(self, text: str, note: Callable[[], str] = lambda: "") -> Iterator[Advance]:
        """Report how far the block is."""
        yield lambda done, total: None

    def log(self, line: str) -> None:
        """A line for a log."""

    def notice(self, line: str) -> None:
        """A line that a person should read."""
        print(line, file=sys.stderr)


def missing(paths: Sequence[Path]) -> list[Path]:
    """Those of `paths` that are not there, or damaged."""
    return [path for path in paths if not is_intact(path)]


def build_files(
    paths: Sequence[Path],
    builder: Callable[[list[Path]], Iterator[Path] | None],
    find_missing: Callable[[Sequence[Path]], list[Path]] = missing,
) -> list[Path]:
    """Build the files that are missing or damaged; processes that want the same one wait for one of them to build it.

    Parameters
    ----------
    paths
        Wanted files.
    builder
        Called with temporary names for those, in the order of ``find_missing(paths)``, and writes them. Each then gets
        a checksum and is renamed into place, so that a half-written file never has a final name: those that it yields
        at once, the others after all are written.
    find_missing
        Which of `paths` are to be built.
    """
    with _locked(paths):
        wanted = find_missing(paths)
        for path in wanted:  # what a builder that was killed left behind
            for left in path.parent.glob(f"{path.name}.*.partial*"):
                remove_tree(left)
        temporary = [path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial") for path in wanted]
        try:
            targets = dict(zip(temporary, wanted, strict=True))
            for source in (builder(temporary) if wanted else None) or ():
                publish(source, targets.pop(source))
            for source, path in targets.items():
                publish(source, path)
        finally:
            for source in temporary:
                remove_tree(source)
    return list(paths)


@contextmanager
def _locked(paths: Sequence[Path]) -> Iterator[None]:
    """Be the only one that builds or removes these files."""
    with ExitStack() as locks:
        for path in sorted(paths):  # sorted, so that two builders never wait for each other
            path.parent.mkdir(parents=True, exist_ok=True)
            locks.enter_context(FileLock(f"{path}.lock"))
        yield


def _note_use(paths: Iterable[Path]) -> None:
    """Those that were not used for longest are removed first; a file's time of use is that of its checksum."""
    for path in paths:
        os.utime(checksum_file(path))
