"""Fixed-width rows keyed by image content: an append-only file with a checksum per row.

``KEY.rows`` holds rows of one kind (all squares of 224 pixels, or a body's activations of one view) from any data set.
``KEY.rows.xxh3`` holds the content hash and checksum (XXH3) of each row, written after the row is on disk; a killed
process loses only rows not yet appended. A list (a separate derived file) holds a data set's content hashes in order.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xxhash
from numpy.typing import DTypeLike

from unfreeze.models.errors import UserError
from unfreeze.models.store.cache_limit import hold
from unfreeze.models.store.sealed_files import checksum_file
from unfreeze.models.store.workspace import Derived, Workspace, key_of, locked, note_use

MOST_ROWS, MOST_BYTES = 512, 32 * 2**20
"""Rows buffered per store before they are appended."""
_RECORD = np.dtype([("content", "S32"), ("checksum", "<u8")])
_verified = dict[Path, tuple[int, np.ndarray]]()
"""Row file -> its modification time, and the rows that this process has verified since."""

RowsOf = Callable[[Sequence[str], Sequence[str]], Iterator[Mapping[str, np.ndarray]]]
"""(contents, store names) -> batches of rows in order: name -> (n, width)."""


class RowStore:
    """The rows of one kind.

    Parameters
    ----------
    workspace
        Where the rows are stored.
    kind
        Cache folder.
    key
        Hash of everything the rows depend on besides the image's content.
    width, dtype
        Length and dtype of a row.
    metadata
        Texts stored in every list.
    """

    def __init__(
        self, workspace: Workspace, kind: str, key: str, width: int, dtype: DTypeLike, metadata: Mapping[str, str]
    ) -> None:
        self.workspace, self.kind, self.key, self.metadata = workspace, kind, key, metadata
        self.path = workspace.path(Derived(kind, key, ".rows"))
        self.width, self.dtype = width, np.dtype(dtype)
        self.damaged = 0
        """Number of damaged rows that `find` found."""
        self.most_rows = max(1, min(MOST_ROWS, MOST_BYTES // (width * self.dtype.itemsize)))

    def list_of(self, contents: Sequence[str]) -> Derived:
        """Describe the list of these contents; it is usable while the store has all of their rows."""
        return Derived(self.kind, key_of(self.key, list(contents)), ".json", lambda _: not self.find(contents))

    def find(self, contents: Sequence[str]) -> list[str]:
        """List the distinct contents without an intact row, in order.

        Protects the store from removal while this process runs. Each row is verified once per process.
        """
        hold(self.workspace.cache, [self.path])
        with locked([self.path]):
            rows, records = _mapped(self.path, self.width, self.dtype), _records(self.path)
            places, wanted = _places(records[: len(rows)]), list(dict.fromkeys(contents))
            numbers = np.array([places.get(content.encode(), -1) for content in wanted], dtype=np.int64)
            known = self._verified(len(rows))
            for number in numbers[(numbers >= 0) & ~known[numbers]] if len(rows) else ():
                known[number] = xxhash.xxh3_64_intdigest(rows[number]) == records["checksum"][number]
            self.damaged = int(((numbers >= 0) & ~known[numbers]).sum()) if len(rows) else 0
            if len(places):
                _verified[self.path] = self.path.stat().st_mtime_ns, known
                note_use([self.path])
        return [each for each, number in zip(wanted, numbers, strict=True) if number < 0 or not known[number]]

    def append(self, contents: Sequence[str], rows: np.ndarray) -> None:
        """Append rows (n, width) and flush them to disk."""
        new = np.zeros(len(contents), _RECORD)
        new["content"] = contents
        new["checksum"] = [xxhash.xxh3_64_intdigest(row) for row in np.ascontiguousarray(rows, self.dtype)]
        with locked([self.path]):
            before = len(_records(self.path))
            known = self._verified(before)
            _write_at(self.path, before * self.width * self.dtype.itemsize, np.ascontiguousarray(rows, self.dtype))
            _write_at(checksum_file(self.path), before * _RECORD.itemsize, new)
            _verified[self.path] = self.path.stat().st_mtime_ns, np.append(known, np.ones(len(new), bool))

    def write_list(self, path: Path, contents: Sequence[str]) -> None:
        """Write a list of contents; their rows must be stored already."""
        rows = {"file": self.path.name, "width": self.width, "dtype": self.dtype.name}
        kept = {**rows, "metadata": {**self.metadata, "key": self.key}, "contents": list(contents)}
        path.write_text(json.dumps(kept))

    def _verified(self, count: int) -> np.ndarray:
        """Mask of the first `count` rows that this process has verified, (count,) bool."""
        known = np.zeros(count, bool)
        written, before = _verified.get(self.path, (None, known))
        if self.path.exists() and self.path.stat().st_mtime_ns == written:
            known[: len(before)] = before[:count]
        return known


@dataclass(frozen=True)
class Lot:
    """Contents missing from the same stores."""

    stores: Mapping[str, RowStore]
    contents: Sequence[str]

    def write(self, rows_of: RowsOf) -> None:
        """Compute the rows of all contents and append them in batches."""
        most, first = min(store.most_rows for store in self.stores.values()), 0
        made = {name: list[np.ndarray]() for name in self.stores}
        for rows in rows_of(self.contents, list(self.stores)):
            for name, parts in made.items():
                parts.append(rows[name])
            count = sum(map(len, parts))
            if count >= most or first + count == len(self.contents):
                for name, parts in made.items():
                    self.stores[name].append(self.contents[first : first + count], np.concatenate(parts))
                    parts.clear()
                first += count


def missing_lots(stores: Mapping[str, RowStore], contents: Sequence[str]) -> list[Lot]:
    """Group contents by the stores that lack them."""
    missing = {name: set(store.find(contents)) for name, store in stores.items()}
    for store in stores.values():
        if store.damaged:
            store.workspace.notice(
                f"{store.path} is damaged: {store.damaged:,} rows are not those of their checksums; they are made again"
            )
    groups: dict[tuple[str, ...], list[str]] = {}
    for content in dict.fromkeys(contents):
        if names := tuple(name for name in stores if content in missing[name]):
            groups.setdefault(names, []).append(content)
    return [Lot({name: stores[name] for name in names}, group) for names, group in groups.items()]


class StoredRows:
    """Memory-mapped rows of a list that `RowStore` wrote; only requested rows are read.

    Has the rows' `width`, the list's `metadata`, and one row per content. Raises a `UserError` if the list is damaged
    or the store lacks one of its rows.
    """

    def __init__(self, path: Path) -> None:
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            self.width, self.metadata = int(kept["width"]), dict[str, str](kept["metadata"])
            store = path.parent / Path(kept["file"]).name
            self._rows = _mapped(store, self.width, np.dtype(kept["dtype"]))
            places = _places(_records(store)[: len(self._rows)])
            self._numbers = np.array([places[content.encode()] for content in kept["contents"]], dtype=np.int64)
        except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError, OverflowError) as error:
            raise UserError(f"{path} is not a complete cache file ({error!r}); delete it and run again") from error

    def __len__(self) -> int:
        return len(self._numbers)

    def gather(self, rows: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Copy rows (B,) int64, in any order and with repeats: (B, width) of the store's dtype, float16 as float32.

        Raises an `IndexError` if a row is negative or past the end.
        """
        wanted = np.asarray(rows, dtype=np.int64)
        if wanted.size and not 0 <= wanted.min() <= wanted.max() < len(self):
            raise IndexError(f"rows {wanted.min()} to {wanted.max()} of a list of {len(self)}")
        found = self._rows[self._numbers[wanted]]
        return torch.from_numpy(found.astype(np.float32) if found.dtype == np.float16 else found)


def _mapped(path: Path, width: int, dtype: np.dtype) -> np.ndarray:
    """Memory-map all complete rows of a file: (rows, width); empty if the file is missing."""
    count = path.stat().st_size // (width * dtype.itemsize) if path.exists() else 0
    return np.memmap(path, dtype, "r", shape=(count, width)).view(np.ndarray) if count else np.empty((0, width), dtype)


def _records(path: Path) -> np.ndarray:
    """Content hash and checksum of every row of a file."""
    beside = checksum_file(path)
    return np.fromfile(beside, _RECORD) if beside.exists() else np.empty(0, _RECORD)


def _places(records: np.ndarray) -> dict[bytes, int]:
    """Content -> its last row, because damaged rows are appended again."""
    return {content: row for row, content in enumerate(records["content"].tolist())}


def _write_at(path: Path, position: int, values: np.ndarray) -> None:
    """Write at a file position and flush to disk."""
    with open(path, "r+b" if path.exists() else "w+b") as file:
        file.seek(position)
        file.write(values.tobytes())
        file.flush()
        os.fsync(file.fileno())
