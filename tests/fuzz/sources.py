"""Lists and folders of images: labelled ones for a training, unlabelled ones for predictions."""

import contextlib
import csv
import io
import os
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from hypothesis import strategies as st
from PIL import Image

from tests.fuzz.endings import Kind
from tests.fuzz.mutations import near, words
from unfreeze.models.errors import UserError
from unfreeze.models.images.listing.rows import without_excluded
from unfreeze.models.images.listing.sources import list_unlabelled, resolve_source
from unfreeze.models.images.pixels.index import Index, build_index
from unfreeze.models.settings import DataSpec
from unfreeze.models.settings.overrides import build_spec
from unfreeze.models.settings.predict import Predict
from unfreeze.models.store.content import hash_files

COLUMNS = ["path", "label", "split", "a", "b", "label ", "Path", ""]
_FILES = [f"{number}.png" for number in range(4)]
_OPTIONS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "path_column": st.sampled_from(["path", "a", "Path", "gone"]),
        "label_column": st.sampled_from(["label", "b", "path", "gone"]),
        "label_columns": st.lists(st.sampled_from(["a", "b", "label", "gone"]), max_size=2),
        "labels": st.sampled_from(["auto", "single", "multiple"]),
        "label_separator": st.sampled_from([";", "space", "|", ",", "a", "."]),
        "split_column": st.sampled_from(["split", "a", "gone", ""]),
        "image_folder": st.one_of(st.sampled_from(["", ".", "gone", "/", "~no-such-user", "a" * 300]), words),
        "suffix": st.one_of(st.sampled_from(["", ".png", ".jpg"]), words),
        "valid_fraction": st.sampled_from([0.2, 0.5, 0.99, 1e-9]),
        "test_fraction": st.sampled_from([0, 0.3, 0.009]),
    },
)


def _written(header: list[str], rows: list[list[str]], separator: str, encoding: str) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator)
    writer.writerows([header, *rows])
    return text.getvalue().encode(encoding, errors="replace")


_CELLS = st.one_of(
    st.sampled_from(_FILES), st.sampled_from(["cat", "dog", "cat;dog", "0", "1", "train", "valid", "test"]), words
)
_LISTS = st.lists(st.one_of(st.sampled_from(COLUMNS), words), min_size=1, max_size=4).flatmap(
    lambda header: st.builds(
        _written,
        st.just(header),
        st.lists(st.lists(_CELLS, min_size=len(header), max_size=len(header)), max_size=6),
        st.sampled_from([",", ",", ",", ";", "\t"]),
        st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"]),
    )
)
_GOOD = [
    ["path", "label", "split"],
    ["0.png", "cat", "train"],
    ["1.png", "dog", "train"],
    ["2.png", "cat", "valid"],
    ["3.png", "dog", "valid"],
]


def _good_files() -> dict[str, bytes]:
    frame = pd.DataFrame(_GOOD[1:], columns=_GOOD[0])
    feather, stream, parquet = io.BytesIO(), io.BytesIO(), io.BytesIO()
    frame.to_feather(feather)
    frame.to_parquet(parquet)
    table = pa.Table.from_pandas(frame.assign(label=[["cat", "x"], ["dog"], [], None]))
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    return {
        ".csv": _written(_GOOD[0], _GOOD[1:], ",", "utf-8"),
        ".feather": feather.getvalue(),
        ".arrow": stream.getvalue(),
        ".parquet": parquet.getvalue(),
    }


_GOOD_FILES = _good_files()
_TABLES = st.one_of(
    st.tuples(st.just(".csv"), _LISTS),
    *(st.tuples(st.just(suffix), near([content])) for suffix, content in _GOOD_FILES.items()),
)


def _draw(path: Path, number: int) -> None:
    levels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(levels).save(path)


def run_list(case: tuple[tuple[str, bytes], dict[str, Any], bytes], folder: Path) -> None:
    """Read a table of images for a training, with a list of what is left out, and for predictions."""
    (suffix, content), options, excluded = case
    if not (folder / "0.png").exists():
        for number, name in enumerate(_FILES):
            _draw(folder / name, number)
    path, out = folder / f"list{suffix}", folder / "excluded.txt"
    path.write_bytes(content)
    out.write_bytes(excluded)
    chosen = {name: value for name, value in options.items() if name in ("path_column", "image_folder", "suffix")}
    listed = list_unlabelled(build_spec(Predict, {"source": str(path), **chosen}), folder)
    assert len(listed.names) == len(listed.files)
    listing = resolve_source(build_spec(DataSpec, {"source": str(path), **options}), folder)
    without_excluded(listing, str(out))


# --- folders

_NAMES = st.one_of(
    st.sampled_from(["cat", "dog", "train", "valid", "val", "Validation", "test", ".hidden", "__MACOSX", "Thumbs.db"]),
    words.map(lambda word: word.replace("/", "-").replace("\0", "-").encode()[:80].decode(errors="ignore")),
).filter(lambda name: name not in ("", ".", ".."))
_CONTENTS = st.sampled_from(["image 0", "image 1", "image 2", "empty", "text", "folder", "link", "loop", "pipe"])
_CLASSES = [(["cat" if number < 4 else "dog", str(number)], f"image {number}") for number in range(8)]
_FOLDERS = st.tuples(
    st.builds(
        lambda classes, others: [*classes, *others],
        st.sampled_from([[], _CLASSES]),
        st.lists(st.tuples(st.lists(_NAMES, min_size=1, max_size=3), _CONTENTS), max_size=8),
    ),
    _OPTIONS,
)


def _make(path: Path, content: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_fifo():  # whoever opens it waits
            return
        if content.startswith("image"):
            _draw(path.with_name(f"{path.name}.png"), int(content[-1]))
        elif content == "folder":
            path.mkdir()
        elif content == "link":
            path.symlink_to("/nowhere")
        elif content == "loop":
            path.symlink_to(path)
        elif content == "pipe":
            os.mkfifo(path)
        else:
            path.write_bytes(b"" if content == "empty" else b"no image")
    except OSError:  # two entries are in each other's way
        return


def run_folder(case: tuple[list[tuple[list[str], str]], dict[str, Any]], folder: Path) -> None:
    """List and index a folder for a training, and list it for predictions."""
    entries, options = case
    source = folder / "source"
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir()
    for names, content in entries:
        _make(source.joinpath(*names), content)
    data = build_spec(DataSpec, {"source": str(source), **options})
    with contextlib.suppress(UserError):  # of which the listing for a training has more to say
        listed = list_unlabelled(build_spec(Predict, {"source": str(source)}), folder)
        assert len(listed.names) == len(listed.files)
    listing = resolve_source(data, folder)
    index = build_index(listing, hash_files([file.path for file in listing.files], 1), data, threads=1)
    kept = folder / "index.arrow"
    index.save(kept)
    assert Index.load(kept).digest == index.digest


def _leading_out(content: bytes) -> bytes:
    """A table of which the second text ends far behind the file's end."""
    ends = struct.pack("<3q", 0, 5, 10)
    assert ends in content
    return content.replace(ends, struct.pack("<3q", 0, 5, 2**40))


LISTS = Kind(
    "lists of images",
    st.tuples(_TABLES, _OPTIONS, st.one_of(st.just(b""), near([b"0.png\n3.png\n"]))),
    run_list,
    share=8,
    places=lambda case: ["data.", "label_", "source", "list: "],
    found=[
        ((".arrow", _leading_out(_GOOD_FILES[".arrow"])), {}, b""),
        ((".csv", b"path,label\n0.png,cat\n1.png,dog\n"), {"image_folder": "/"}, b""),
    ],
)
FOLDERS = Kind("folders of images", _FOLDERS, run_folder, share=3, places=lambda case: ["data.", "label_", "source"])
KINDS = [LISTS, FOLDERS]
