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

from unfreeze.models.cache_limit import LIMIT, evict, hold, remove_tree, size_limit
from unfreeze.models.sealed_files import checksum_file, is_intact, publish

Result = TypeVar("Result")
Advance = Callable[[int, int], None]
"""Called with (done, total)."""
Build = Callable[[dict[str, Path]], Iterator[str] | None]
"""Writes files, given as name -> temporary path; yields the name of each that is finished, or returns after all."""


def key_of(*parts: Any) -> str:
    """A key of JSON-able parts: hashes of contents, parameters and version constants; never a path or a date."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class Derived(NamedTuple):
    """Names a derived file: its kind (a folder of the cache), the key of what it is derived from, its suffix."""

    kind: str
    key: str
    suffix: str = ".arrow"


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
        paths = {each: self.path(derived) for each, derived in files.items()}
        names = {path: each for each, path in paths.items()}

        built = list[Path]()

        def build_missing(temporary: list[Path]) -> Iterator[Path] | None:
            wanted = missing(list(names))
            for path in filter(Path.exists, wanted):
                self.notice(f"{path} is damaged: its content is not that of its checksum; it is built again")
            self.built += 1
            built.extend(wanted)
            targets = {names[path]: target for path, target in zip(wanted, temporary, strict=True)}
            finished = build(targets)
            return None if finished is None else (targets[each] for each in finished)

        hold(self.cache, names)
        build_files(list(names), build_missing)
        _note_use(names)
        if built:
            self._keep_to_limit()
        return paths

    def unready(self, paths: Sequence[Path]) -> list[Path]:
        """Those of the derived files that must be built; the others stay while this process lives."""
        hold(self.cache, paths)
        with _locked(paths):
            unready = missing(paths)
        _note_use(set(paths) - set(unready))
        return unready

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


def build_files(paths: Sequence[Path], builder: Callable[[list[Path]], Iterator[Path] | None]) -> list[Path]:
    """Build the files that are missing or damaged; processes that want the same one wait for one of them to build it.

    Parameters
    ----------
    paths
        Wanted files.
    builder
        Called with temporary names for those, in the order of ``missing(paths)``, and writes them. Each then gets a
        checksum and is renamed into place, so that a half-written file never has a final name: those that it yields at
        once, the others after all are written.
    """
    with _locked(paths):
        wanted = missing(paths)
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


def missing(paths: Sequence[Path]) -> list[Path]:
    """Those of `paths` that are not there, or damaged."""
    return [path for path in paths if not is_intact(path)]
