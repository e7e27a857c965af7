"""Rows by the content of their image, in immutable files of a few hundred: an image more costs a row more.

A folder of the cache holds the rows of one kind, such as all squares of 224 pixels, or what a body makes of a view, of
whichever data sets. Each of its files, a shard, names the contents of its rows and is published with a checksum as soon
as it is full, so that a kill loses one at most. A list, a derived file of its own, says where the rows of a data set
are, in the order of the data set. Images that were added, removed or moved to another split make another list, and
shards only for contents that no shard has.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.feather
import torch
from numpy.typing import DTypeLike

from unfreeze.models.errors import UserError
from unfreeze.models.images.pixels.row_file import RowFile, RowWriter, gather_from, within
from unfreeze.models.store.workspace import Derived, Workspace, key_of

MOST_ROWS, MOST_BYTES = 512, 64 * 2**20
"""Of a shard."""
SMALL, MANY_SMALL = 8, 16
"""Once a list would take rows of so many shards of at most an eighth of that, these rows are put together."""
_CONTENTS, _SHARDS = "contents", "shards"

RowsOf = Callable[[Sequence[str], Sequence[str]], Iterator[Mapping[str, np.ndarray]]]
"""(contents, names of stores) -> their rows in order, a few at a time: name -> (n, width)."""


class RowStore:
    """The rows of one kind.

    Parameters
    ----------
    workspace
        Where they are kept.
    kind
        Folder of the cache for lists, with one for shards in it.
    key
        Of what the rows depend on besides the image's content.
    width, dtype
        Of a row.
    metadata
        Texts kept in every list.
    """

    def __init__(
        self, workspace: Workspace, kind: str, key: str, width: int, dtype: DTypeLike, metadata: Mapping[str, str]
    ) -> None:
        self.workspace, self.kind, self.key = workspace, kind, key
        self.width, self.dtype, self.metadata = width, dtype, metadata
        self.most_rows = max(1, min(MOST_ROWS, MOST_BYTES // (width * np.dtype(dtype).itemsize)))
        self._places = dict[str, tuple[Path, int]]()
        """Content -> shard and row."""

    def list_of(self, contents: Sequence[str]) -> Derived:
        """The list of the rows of these contents; its key depends on them and on the store's key."""
        return Derived(self.kind, key_of(self.key, list(contents)), parts=shards_of)

    def find(self, contents: Sequence[str]) -> list[str]:
        """Those of the contents that no intact shard has, each once, in their order.

        Shards that have others stay while this process lives; damaged ones are removed.
        """
        wanted = set(contents)
        shards = self._read_shards()
        while True:
            self._places = {}
            for path, held in shards.items():
                for row, content in enumerate(held):
                    if content in wanted:
                        self._places.setdefault(content, (path, row))
            used = sorted({path for path, _ in self._places.values()})
            damaged = set(used) - set(self.workspace.intact(used, drop=True))
            if not damaged:
                return [content for content in dict.fromkeys(contents) if content not in self._places]
            shards = {path: held for path, held in shards.items() if path not in damaged}

    def shard_of(self, contents: Sequence[str]) -> Derived:
        """A new shard of these contents, in their order."""
        return Derived(f"{self.kind}/{self.key}", key_of(list(contents)))

    def writer(self, path: Path, contents: Sequence[str]) -> RowWriter:
        """What writes the rows of a shard."""
        return RowWriter(path, self.width, self.dtype, {_CONTENTS: " ".join(contents)})

    def know(self, shard: Path, contents: Sequence[str]) -> None:
        """Take the rows of these contents from a shard from now on."""
        self._places |= {content: (shard, row) for row, content in enumerate(contents)}

    def write_list(self, path: Path, contents: Sequence[str]) -> None:
        """Write a list of the rows of contents that were found or added; many small shards are put together first."""
        self._put_together()
        places = [self._places[content] for content in contents]
        shards = {shard: number for number, shard in enumerate(dict.fromkeys(shard for shard, _ in places))}
        names = [shard.relative_to(self.workspace.cache / self.kind).as_posix() for shard in shards]
        table = pa.table(
            {
                "shard": pa.array([shards[shard] for shard, _ in places], pa.int32()),
                "row": pa.array([row for _, row in places], pa.int32()),
            }
        )
        table = table.replace_schema_metadata({**self.metadata, "key": self.key, _SHARDS: json.dumps(names)})
        pa.feather.write_feather(table, str(path), compression="zstd")

    def _read_shards(self) -> dict[Path, list[str]]:
        """Every shard and the contents of its rows, those of most rows first; damaged ones are removed."""
        folder = self.workspace.path(self.shard_of([])).parent
        shards, unreadable = dict[Path, list[str]](), list[Path]()
        for path in sorted(folder.glob("*.arrow")):
            try:
                shards[path] = RowFile(path).metadata[_CONTENTS].split()
            except (UserError, KeyError, UnicodeDecodeError):
                unreadable.append(path)
        self.workspace.intact(unreadable, drop=True)
        return dict(sorted(shards.items(), key=lambda shard: -len(shard[1])))

    def _put_together(self) -> None:
        """Copy the rows of many small shards into few; the limit of the cache removes those that nobody uses."""
        files = {path: RowFile(path) for path in {path for path, _ in self._places.values()}}
        small = {path for path, file in files.items() if len(file) <= self.most_rows // SMALL}
        if len(small) < MANY_SMALL:
            return
        places = {content: place for content, place in self._places.items() if place[0] in small}

        def copied(contents: Sequence[str], names: Sequence[str]) -> Iterator[Mapping[str, np.ndarray]]:
            for content in contents:
                path, row = places[content]
                yield {names[0]: files[path].gather(np.array([row])).numpy()}

        for part in _parts(list(places), self.most_rows):
            Lot({"": self}, part).write(copied)


@dataclass(frozen=True)
class Lot:
    """Contents that several stores lack, for a shard of each."""

    stores: Mapping[str, RowStore]
    contents: Sequence[str]

    def write(self, rows_of: RowsOf) -> None:
        """Write the shards and publish them; a process that wants the same ones waits and finds them."""

        def build(wanted: dict[str, Path]) -> None:
            with ExitStack() as files:
                writers = {
                    name: files.enter_context(self.stores[name].writer(path, self.contents))
                    for name, path in wanted.items()
                }
                for rows in rows_of(self.contents, list(wanted)):
                    for name, writer in writers.items():
                        writer.append(rows[name])

        workspace = next(iter(self.stores.values())).workspace
        shards = {name: store.shard_of(self.contents) for name, store in self.stores.items()}
        for name, path in workspace.build(shards, build).items():
            self.stores[name].know(path, self.contents)


def missing_lots(stores: Mapping[str, RowStore], contents: Sequence[str]) -> list[Lot]:
    """What must be written before every store has a row of every content; each content is in one lot at most."""
    missing = {name: set(store.find(contents)) for name, store in stores.items()}
    groups: dict[tuple[str, ...], list[str]] = {}
    for content in dict.fromkeys(contents):
        if names := tuple(name for name in stores if content in missing[name]):
            groups.setdefault(names, []).append(content)
    return [
        Lot({name: stores[name] for name in names}, part)
        for names, group in groups.items()
        for part in _parts(group, min(stores[name].most_rows for name in names))
    ]


def shards_of(path: Path) -> list[Path]:
    """The shards that a list takes rows from."""
    return _read_list(path).shards


class ShardedRows:
    """The rows of a list that `RowStore` wrote, memory-mapped: only the rows asked for are read.

    It has their `width`, the list's `metadata`, and as many rows as the list has contents. A `UserError` if the list or
    one of its shards is missing, incomplete, damaged or of another kind.
    """

    def __init__(self, path: Path) -> None:
        shards, self.metadata, shard, row = _read_list(path)
        files = [RowFile(each) for each in shards]
        if not files or len({file.width for file in files}) > 1 or not _are_below(shard, len(files)):
            raise UserError(f"{path} does not fit its shards; delete it and run again")
        if not _are_below(row, np.array([len(file) for file in files])[shard]):
            raise UserError(f"{path} names rows that its shards do not have; delete it and run again")
        self.width, self._blocks = files[0].width, [block for file in files for block in file.blocks]
        first = np.cumsum([0, *(len(file.blocks) for file in files)])
        numbers, self._offsets = np.divmod(row, np.array([len(file.blocks[0]) for file in files])[shard])
        self._numbers = first[shard] + numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def gather(self, rows: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Copy the rows at positions (B,) int64 of the list, as `RowFile.gather`: (B, width)."""
        wanted = within(rows, len(self))
        return gather_from(self._blocks, self._numbers[wanted], self._offsets[wanted])


class _List(NamedTuple):
    """What a list holds: its shards, its metadata, and for every content the number of its shard and the row in it."""

    shards: list[Path]
    metadata: dict[str, str]
    shard: np.ndarray
    row: np.ndarray


def _read_list(path: Path) -> _List:
    try:
        table = pa.feather.read_table(str(path), memory_map=False)
        table.validate(full=True)
        metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        names = json.loads(metadata.pop(_SHARDS))
        if not isinstance(names, list) or not all(_is_inside(name) for name in names):
            raise ValueError("it names shards elsewhere")
        if table.schema.types != [pa.int32(), pa.int32()] or table.column_names != ["shard", "row"]:
            raise ValueError("it has other columns")
        if any(column.null_count for column in table.columns):
            raise ValueError("it has gaps")
    # ArrowInvalid and damaged JSON are ValueErrors.
    except (ValueError, KeyError, TypeError, OSError, RecursionError, pa.ArrowException) as error:
        raise UserError(f"{path} is not a complete cache file ({error}); delete it and run again") from error
    shard, row = (column.to_numpy().astype(np.int64) for column in table.columns)
    return _List([path.parent / name for name in names], metadata, shard, row)


def _is_inside(name: object) -> bool:
    """Whether it is the relative path of a file below the list's folder."""
    return isinstance(name, str) and not Path(name).is_absolute() and ".." not in Path(name).parts


def _are_below(numbers: np.ndarray, limits: int | np.ndarray) -> bool:
    return bool(((numbers >= 0) & (numbers < limits)).all())


def _parts(contents: Sequence[str], size: int) -> list[Sequence[str]]:
    return [contents[first : first + size] for first in range(0, len(contents), size)]
