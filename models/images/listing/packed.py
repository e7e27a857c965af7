"""Images inside other files: Parquet and Arrow shards, tar shards (WebDataset) and zip archives, unpacked once."""

import json
import lzma
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
from PIL import Image

from unfreeze.models.errors import UserError, one_line
from unfreeze.models.images.listing.folder_files import files_below, may_be_image
from unfreeze.models.images.listing.path_tables import TABLES
from unfreeze.models.reading.remote import is_url, local_source
from unfreeze.models.reading.split_words import split_word_in
from unfreeze.models.store.copies import Made, copies_in
from unfreeze.models.store.workspace import Workspace, key_of

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_SHARDS = (".parquet", ".arrow")
_LABELS = ".labels.feather"
"""Table in the folder of an unpacked shard: the path of each image below the shard's folder, and other columns."""
_UNLABELLED = -1
"""Class of an image without a label, in the library `datasets`."""
_FOLDER = 1_000
"""Images in a folder of an unpacked Parquet or Arrow shard."""
_DAMAGED = (
    *(OSError, EOFError, ValueError, LookupError, RuntimeError, zlib.error, lzma.LZMAError),
    *(pa.ArrowException, tarfile.TarError, zipfile.BadZipFile),
)


class LocalImages(NamedTuple):
    """Local files of a source: their folder or file, and the table that labels them, if the source is in shards."""

    path: Path
    table: Path | None = None


def local_images(source: str, workspace: Workspace) -> LocalImages:
    """Local files of a source of images: fetched from a URL, and unpacked, if they are not yet.

    Raises
    ------
    UserError
        If a URL cannot be read; see `unpack`.
    """
    path = local_source(source, workspace)
    if source == "digits" or not path.exists():
        return LocalImages(path)
    if shards := packed_files(path):
        with workspace.progress(f"Unpacking {path.name}") as advance:
            return unpack(path.absolute(), shards, workspace.datasets / "unpacked", advance)
    if is_url(source) and path.name.lower().endswith(TABLES):  # the images are beside it
        return LocalImages(local_source(source[: source.rindex("/") + 1], workspace) / path.name)
    return LocalImages(path)


def packed_files(path: Path) -> list[Path]:
    """Archives and shards that a source consists of; empty if it is anything else, or has images beside them."""
    if path.is_file():
        return [path] if _is_packed(path) else []
    found: list[Path] = []
    for file in map(Path, files_below(path) if path.is_dir() else ()):
        if file.name.lower().endswith((*ARCHIVES, *_SHARDS)):
            found.append(file)
        elif _is_image(file.name):
            return []
    return [file for file in sorted(found) if _is_packed(file)]


def _is_packed(path: Path) -> bool:
    name = path.name.lower()
    if name.endswith(_SHARDS):
        return _image_column(_schema_of(path)) is not None
    if not name.endswith(".zip"):
        return name.endswith(ARCHIVES)
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:  # a table alone may be zipped
        return any(map(_is_image, archive.namelist()))


def _is_image(name: str) -> bool:
    suffix = PurePosixPath(name).suffix.lower()
    return may_be_image(name) and (suffix in Image.registered_extensions() or suffix in (".heic", ".heif"))


def unpack(path: Path, shards: list[Path], into: Path, progress: Any) -> LocalImages:
    """Unpack archives and shards that are new or changed, one at a time; a stopped call is continued by the next.

    An archive becomes a folder of its name. A shard becomes a folder of images, and all of them one table of paths,
    columns and, if the names of shards say so, the split.

    Parameters
    ----------
    path
        The source: the folder of the shards, or the only one.
    into
        Folder of unpacked sources; each has a folder in it.

    Raises
    ------
    UserError
        If a file is damaged, or has a member outside its own folder.
    """
    root = path.name if path.is_dir() else _bare(path.name)
    names = {
        shard: root if shard == path else f"{path.name}/{_bare(shard.relative_to(path).as_posix())}" for shard in shards
    }
    if len(set(names.values())) < len(names):  # a.zip and a.tar
        names = {shard: f"{path.name}/{shard.relative_to(path)}" for shard in shards}
    stamps = {names[shard]: f"{shard.stat().st_size} {shard.stat().st_mtime_ns}" for shard in shards}
    with copies_in(into / key_of(str(path))) as copies, copies.workplace() as place:
        wanted = copies.outdated(stamps)
        table = copies.folder / f"{root}.feather"
        files = {name: shard for shard, name in names.items()}
        for number, name in enumerate(wanted):
            progress(number, len(wanted))
            shard, building = files[name], place / str(number)
            building.mkdir()
            try:
                _unpack(shard, building)
            except _DAMAGED as error:
                if isinstance(error, UserError) or (isinstance(error, OSError) and error.errno is not None):
                    raise
                raise UserError(f"{shard} cannot be unpacked ({one_line(error)}); copy or save it again") from error
            copies.keep([Made(name, building, stamps[name])])
        labelled = [name for name in stamps if (copies.folder / name / _LABELS).is_file()]
        if labelled:
            rows = pa.concat_tables((_rows_of(copies.folder, name) for name in labelled), promote_options="permissive")
            splits = set(rows["split"].to_pylist())
            rows = rows if len(splits - {None}) > 1 and None not in splits else rows.drop_columns("split")
            pa.feather.write_feather(rows, str(place / "table"))
            os.replace(place / "table", table)
        return LocalImages(copies.folder / root, table if labelled else None)


def _bare(name: str) -> str:
    """A name without the suffix of an archive or a shard."""
    suffix = next(each for each in (*ARCHIVES, *_SHARDS) if name.lower().endswith(each))
    return name[: -len(suffix)]


def _rows_of(folder: Path, name: str) -> pa.Table:
    """Labels of an unpacked shard, with paths below `folder`, and the split that its name states."""
    rows = pa.feather.read_table(str(folder / name / _LABELS))
    paths = [f"{name}/{path}" for path in rows["path"].to_pylist()]
    words = [word.part for part in name.split("/")[1:] or [name] if (word := split_word_in(part)) is not None]
    rows = rows.set_column(rows.schema.get_field_index("path"), "path", pa.array(paths, pa.string()))
    if "split" in rows.column_names:
        return rows
    return rows.append_column("split", pa.array([words[0] if words else None] * len(rows), pa.string()))


def _unpack(shard: Path, folder: Path) -> None:
    name = shard.name.lower()
    if name.endswith(_SHARDS):
        rows = _unpack_rows(shard, folder)
    elif name.endswith(".zip"):
        with zipfile.ZipFile(shard) as archive:
            for member in archive.infolist():
                if not member.is_dir() and not _is_hidden(member.filename):
                    _write(folder, member.filename, partial(archive.open, member), shard)
        return
    else:
        rows = _unpack_tar(shard, folder)
    if rows is not None:
        pa.feather.write_feather(rows, str(folder / _LABELS))


def _is_hidden(name: str) -> bool:
    return any(part[:1] == "." and part not in (".", "..") for part in name.replace("\\", "/").split("/"))


def _write(folder: Path, name: str, opened: Any, archive: Path) -> None:
    """Write a member of an archive; refuse names outside the folder."""
    parts = name.replace("\\", "/").split("/")
    if name.startswith("/") or ".." in parts or ":" in parts[0]:
        raise UserError(f"{archive} has a member {name!r} outside its own folder; do not use this archive")
    target = folder.joinpath(*parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    with opened() as source, open(target, "wb") as file:
        shutil.copyfileobj(source, file)


# --- tar shards


def _unpack_tar(shard: Path, folder: Path) -> pa.Table | None:
    """Write a tar archive's files; those beside an image that label it (`key.cls`, `key.json`, `key.txt`) are rows."""
    rows: dict[str, dict[str, Any]] = {}
    images: dict[str, str] = {}
    with tarfile.open(shard, "r|*") as archive:
        for member in archive:
            if not member.isfile() or _is_hidden(member.name):
                continue
            place, _, base = member.name.removeprefix("./").rpartition("/")
            key, _, suffix = base.partition(".")
            key = f"{place}/{key}" if place else key
            stream: IO[bytes] | None = archive.extractfile(member)
            assert stream is not None
            if suffix.lower() in ("cls", "json", "txt"):
                rows.setdefault(key, {}).update(_fields(suffix.lower(), stream.read(), member.name, shard))
                continue
            if may_be_image(base):
                images[key] = member.name.removeprefix("./")
            _write(folder, member.name, lambda stream=stream: stream, shard)
    labelled = {key: rows[key] for key in images if key in rows}
    if not labelled:
        return None
    names = dict.fromkeys(name for row in labelled.values() for name in row)
    columns = {name: [_text(row.get(name)) for row in labelled.values()] for name in names if name != "path"}
    return pa.table({"path": [images[key] for key in labelled], **columns})


def _fields(kind: str, content: bytes, name: str, shard: Path) -> dict[str, Any]:
    """Columns that a file beside an image states."""
    try:
        text = content.decode("utf-8-sig").strip()
        value = json.loads(text) if kind == "json" else text
    except ValueError as error:
        raise UserError(f"{shard}: {name} is not {'JSON' if kind == 'json' else 'text'}: {one_line(error)}") from error
    if isinstance(value, dict):
        return value
    return {"text" if kind == "txt" else "label": value}


def _text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# --- Parquet and Arrow shards


def _schema_of(path: Path) -> pa.Schema:
    """Schema of a Parquet or Arrow file; empty if it cannot be read, which reading it as a table reports."""
    try:
        if path.suffix.lower() == ".parquet":
            return pa.parquet.read_schema(str(path))
        with pa.OSFile(str(path)) as file:
            return _open_arrow(file).schema
    except (OSError, pa.ArrowException):
        return pa.schema([])


def _open_arrow(file: Any) -> Any:
    try:
        return pa.ipc.open_file(file)
    except pa.ArrowInvalid:  # the stream format, which the library `datasets` writes
        file.seek(0)
        return pa.ipc.open_stream(file)


def _image_column(schema: pa.Schema) -> str | None:
    """The column of `{bytes, path}`."""
    for field in schema:
        if pa.types.is_struct(field.type) and (place := field.type.get_field_index("bytes")) >= 0:
            kind = field.type.field(place).type
            if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
                return str(field.name)
    return None


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    """Rows of a file, a row group or record batch at a time."""
    if path.suffix.lower() == ".parquet":
        with pa.parquet.ParquetFile(str(path)) as file:
            yield from file.iter_batches(batch_size=64)
        return
    with pa.OSFile(str(path)) as opened:
        reader = _open_arrow(opened)
        if isinstance(reader, pa.ipc.RecordBatchFileReader):
            yield from map(reader.get_batch, range(reader.num_record_batches))
        else:
            yield from reader


def _unpack_rows(shard: Path, folder: Path) -> pa.Table:
    """Write a shard's images; returns the paths of the labelled ones, with all columns of plain values and lists."""
    schema = _schema_of(shard)
    image, names = _image_column(schema), _class_names(schema)
    kept = [field.name for field in schema if field.name not in (image, "path") and _is_plain(field.type)]
    columns: dict[str, list[Any]] = {name: [] for name in ("path", *kept)}
    count = 0
    for batch in _batches(shard):
        batch.validate(full=True)
        for row in batch.select([image, *kept]).to_pylist():
            if row[image] is None or row[image]["bytes"] is None:
                continue
            suffix = PurePosixPath(row[image].get("path") or "").suffix
            path = f"{count // _FOLDER:04d}/{count:07d}{suffix if may_be_image(suffix) else ''}"
            if count % _FOLDER == 0:
                (folder / path).parent.mkdir()
            (folder / path).write_bytes(row[image]["bytes"])
            count += 1
            if any(row[name] == _UNLABELLED for name in names if name in row):
                continue
            columns["path"].append(path)
            for name in kept:
                columns[name].append(_named(row[name], names.get(name)))
    if not count:
        raise UserError(f"{shard} holds paths of images instead of their bytes; save it with the images embedded")
    return pa.table({**columns, "path": pa.array(columns["path"], pa.string())})


def _is_plain(kind: pa.DataType) -> bool:
    """Whether a type is of plain values, or lists of them."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    return not (pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Column -> names of its classes, as the library `datasets` keeps them in a schema."""
    try:
        about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features: dict[str, Any] = about.get("info", {}).get("features", {})
        inner = {name: each.get("feature") or each for name, each in features.items() if isinstance(each, dict)}
        return {name: each["names"] for name, each in inner.items() if isinstance(each, dict) and "names" in each}
    except (ValueError, AttributeError):
        return {}


def _named(value: Any, names: list[str] | None) -> Any:
    if names is None or value is None:
        return value
    return [names[each] for each in value] if isinstance(value, list) else names[value]
