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
import pyarrow as pa
import torch
import xxhash
from numpy.typing import DTypeLike

from unfreeze.models.errors import UserError
from unfreeze.models.store.cache_limit import hold
from unfreeze.models.store.rows_on_disk import AT_ONCE, fixed_width, mapped, write_rows
from unfreeze.models.store.sealed_files import checksum_file
from unfreeze.models.store.workspace import Derived, Workspace, key_of, locked, note_use

MOST_ROWS, MOST_BYTES = 512, 32 * 2**20
"""Rows buffered per store before they are appended."""
_RECORD = np.dtype([("content", "S32"), ("checksum", "<u8")])
_verified = dict[Path, tuple[int, np.ndarray]]()
"""Row file -> its modification time, and the rows that this process has verified since."""

RowsOf = Callable[[np.ndarray, Sequence[str]], Iterator[Mapping[str, np.ndarray]]]
"""(positions of contents, store names) -> batches of rows in order: name -> (n, width)."""
Contents = Sequence[str] | np.ndarray
"""Content hashes, as texts or bytes: (n,) S32."""


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

    def list_of(self, contents: Contents) -> Derived:
        """Describe the list of these contents; it is usable while the store has all of their rows."""
        texts = (content.decode() for content in fixed_width(contents))
        return Derived(self.kind, key_of(self.key, texts), is_usable=lambda _: not len(self.find(contents)))

    def find(self, contents: Contents) -> np.ndarray:
        """Positions of the contents without an intact row, each content once, ascending: int64.

        Protects the store from removal while this process runs. Each row is verified once per process.
        """
        hold(self.workspace.cache, [self.path])
        with locked([self.path]):
            rows, records = _mapped(self.path, self.width, self.dtype), _records(self.path)
            wanted = fixed_width(contents)
            numbers = _Places(records[: len(rows)]).of(wanted)
            known = self._verified(len(rows))
            if len(records) and len(rows):
                for number in np.unique(numbers[(numbers >= 0) & ~known[numbers]]):
                    known[number] = xxhash.xxh3_64_intdigest(rows[number]) == records["checksum"][number]
                _verified[self.path] = self.path.stat().st_mtime_ns, known
                note_use([self.path])
            damaged = (numbers >= 0) & ~known[numbers] if len(rows) else np.zeros(len(wanted), bool)
            self.damaged = len(np.unique(numbers[damaged]))
        missing = np.flatnonzero((numbers < 0) | damaged)
        return np.sort(missing[np.unique(_hashed(wanted[missing]), return_index=True)[1]])

    def append(self, contents: Contents, rows: np.ndarray) -> None:
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

    def write_list(self, path: Path, contents: Contents) -> None:
        """Write a list of contents; their rows must be stored already."""
        rows = {"file": self.path.name, "width": self.width, "dtype": self.dtype.name}
        kept = {**rows, "metadata": {**self.metadata, "key": self.key}}
        schema = pa.schema([("content", pa.binary())], {"list": json.dumps(kept)})
        write_rows(((content,) for content in fixed_width(contents)), schema, path)

    def _verified(self, count: int) -> np.ndarray:
        """Mask of the first `count` rows that this process has verified, (count,) bool."""
        known = np.zeros(count, bool)
        written, before = _verified.get(self.path, (None, known))
        if self.path.exists() and self.path.stat().st_mtime_ns == written:
            known[: len(before)] = before[:count]
        return known


@dataclass(frozen=True)
class Lot:
    """Contents missing from the same stores, by their positions (n,) int64."""

    stores: Mapping[str, RowStore]
    contents: np.ndarray
    positions: np.ndarray

    def write(self, rows_of: RowsOf) -> None:
        """Compute the rows of all contents and append them in batches."""
        most, first = min(store.most_rows for store in self.stores.values()), 0
        made = {name: list[np.ndarray]() for name in self.stores}
        for rows in rows_of(self.positions, list(self.stores)):
            for name, parts in made.items():
                parts.append(rows[name])
            count = sum(map(len, parts))
            if count >= most or first + count == len(self.positions):
                for name, parts in made.items():
                    contents = self.contents[self.positions[first : first + count]]
                    self.stores[name].append(contents, np.concatenate(parts))
                    parts.clear()
                first += count


def missing_lots(stores: Mapping[str, RowStore], contents: Contents) -> list[Lot]:
    """Group contents by the stores that lack them."""
    every = fixed_width(contents)
    lacking = np.zeros(len(every), np.uint64)  # a bit for each store
    for number, store in enumerate(stores.values()):
        lacking[store.find(every)] |= np.uint64(1 << number)
        if store.damaged:
            store.workspace.notice(
                f"{store.path} is damaged: {store.damaged:,} rows are not those of their checksums; they are made again"
            )
    lots = []
    for bits in filter(None, np.unique(lacking).tolist()):
        named = {name: store for number, (name, store) in enumerate(stores.items()) if bits >> number & 1}
        lots.append(Lot(named, every, np.flatnonzero(lacking == np.uint64(bits))))
    return sorted(lots, key=lambda lot: int(lot.positions[0]))


class StoredRows:
    """Memory-mapped rows of a list that `RowStore` wrote; only requested rows are read.

    Has the rows' `width`, the list's `metadata`, and one row per content. Raises a `UserError` if the list is damaged
    or the store lacks one of its rows.
    """

    def __init__(self, path: Path) -> None:
        try:
            table = mapped(path)
            kept = json.loads((table.schema.metadata or {})[b"list"])
            self.width, self.metadata = int(kept["width"]), dict[str, str](kept["metadata"])
            store = path.parent / Path(kept["file"]).name
            self._rows = _mapped(store, self.width, np.dtype(kept["dtype"]))
            self._numbers = _Places(_records(store)[: len(self._rows)]).of(fixed_width(table["content"]))
            if self._numbers.min(initial=0) < 0:
                raise LookupError("a row is missing")
        except (ValueError, LookupError, TypeError, AttributeError, OSError, RecursionError, OverflowError) as error:
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
    count = beside.stat().st_size // _RECORD.itemsize if beside.exists() else 0
    return np.memmap(beside, _RECORD, "r", shape=(count,)).view(np.ndarray) if count else np.empty(0, _RECORD)


class _Places:
    """Numbers of a store's rows by content."""

    def __init__(self, records: np.ndarray) -> None:
        hashed = _hashed(records["content"])
        self._records, self._order = records, np.argsort(hashed, kind="stable")
        self._hashed = hashed[self._order]

    def of(self, contents: np.ndarray) -> np.ndarray:
        """Number of each content's last row (n,) int64, because damaged rows are appended again; -1 without one."""
        if not len(self._order):
            return np.full(len(contents), -1)
        found = self._order[np.searchsorted(self._hashed, _hashed(contents), side="right") - 1]
        for first in range(0, len(found), AT_ONCE):  # of a content that is not there, a neighbour was found
            part = found[first : first + AT_ONCE]
            part[self._records["content"][part] != contents[first : first + AT_ONCE]] = -1
        return found


def _hashed(contents: np.ndarray) -> np.ndarray:
    """Number of each content (n,) uint64, which takes a quarter of its memory to sort."""
    return np.fromiter(map(xxhash.xxh3_64_intdigest, contents), np.uint64, len(contents))


def _write_at(path: Path, position: int, values: np.ndarray) -> None:
    """Write at a file position and flush to disk."""
    with open(path, "r+b" if path.exists() else "w+b") as file:
        file.seek(position)
        file.write(values.tobytes())
        file.flush()
        os.fsync(file.fileno())
