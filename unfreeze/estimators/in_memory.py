"""Data in memory (frames, arrays, lists) as Parquet files named by their content, so that other code reads files."""

import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
from PIL import Image

from unfreeze.models.errors import UserError, one_line
from unfreeze.models.images.pixels.decode import encoded
from unfreeze.models.store.content import hash_file
from unfreeze.models.store.workspace import Workspace

ENCODED = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""Type of a column of encoded images, as data sets on a hub have it."""


def is_frame(rows: Any) -> bool:
    """Whether rows are a frame: of pandas, polars, or another library with Arrow's PyCapsule interface."""
    return hasattr(rows, "__arrow_c_stream__") and hasattr(rows, "columns")


def arrow_table(frame: Any) -> pa.Table:
    """Convert a frame, see `is_frame`, without a pandas index.

    Raises
    ------
    UserError
        If a column mixes types that no file can hold.
    """
    try:
        if not isinstance(frame, pd.DataFrame):
            table = pa.table(frame)
            return table.cast(pa.schema([field.with_type(_without_views(field.type)) for field in table.schema]))
        named = frame.rename(columns=str)
        return pa.Table.from_pandas(named, preserve_index=False).replace_schema_metadata(None)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise UserError(f"the frame cannot be stored: {one_line(error)}; convert that column to one type") from error


def _without_views(kind: pa.DataType) -> pa.DataType:
    """The type with text and bytes that every reader of Parquet knows."""
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_without_views(field.type)) for field in kind])
    return {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}.get(kind, kind)


def keep(table: pa.Table, name: str, workspace: Workspace) -> Path:
    """Write a table into the data folder, once per content, as ``NAME-HASH.parquet``."""
    folder = workspace.datasets / "in-memory"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        written = Path(temporary) / "table"
        pa.parquet.write_table(table, written, compression="zstd")
        return written.replace(folder / f"{name}-{hash_file(written)[:12]}.parquet")


def images_in(images: Any) -> list[str | bytes]:
    """Convert images to a list of paths and encoded bytes.

    Parameters
    ----------
    images
        An array (N, H, W), (N, H, W, 1), (N, H, W, 3) or (N, H, W, 4) uint8 or one image of it; a list of such images,
        paths, encoded bytes or PIL images, or one of these.

    Raises
    ------
    UserError
        Names the position of what is not an image.
    """
    one = isinstance(images, str | Path | bytes | Image.Image) or (
        isinstance(images, np.ndarray) and (images.ndim == 2 or (images.ndim == 3 and images.shape[2] in (3, 4)))
    )
    if not one and not isinstance(images, np.ndarray | Sequence | pd.Series):
        raise UserError(f"images: given a {type(images).__name__}; {_TAKEN}")
    found = [_image(each, number) for number, each in enumerate([images] if one else images)]
    if not found:
        raise UserError(f"images: the list is empty; {_TAKEN}")
    return found


_TAKEN = "give a folder, a frame, an array (N, H, W, 3) uint8, or a list of paths, encoded bytes or PIL images"


def _image(image: Any, number: int) -> str | bytes:
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | Path):
        if Path(image).is_dir():
            raise UserError(f"images: {str(image)!r} is a folder; give it alone, or a list of its files")
        if not Path(image).exists():
            raise UserError(f"images: there is no file {str(image)!r} in {Path.cwd()}")
        return str(Path(image).absolute())
    if isinstance(image, Image.Image):
        file = io.BytesIO()
        image.save(file, "PNG")
        return file.getvalue()
    if not isinstance(image, np.ndarray):
        raise UserError(f"images: number {number} is a {type(image).__name__}; {_TAKEN}")
    pixels = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (3, 4)):
        raise UserError(
            f"images: number {number} is {pixels.dtype} of shape {image.shape}; give uint8 from 0 to 255 of shape "
            "(H, W), (H, W, 3) or (H, W, 4), such as (255 * images).astype('uint8')"
        )
    return encoded(pixels)


def labels_in(labels: Any, rows: int) -> list[Any]:
    """Convert labels to a list, one entry per row.

    Raises
    ------
    UserError
        If there are none, their number differs from that of the rows, or one is missing.
    """
    if labels is None:
        raise UserError(f"y: give the labels of the {rows:,} rows: fit(X, y)")
    found = labels.to_list() if hasattr(labels, "to_list") else np.asarray(labels, dtype=object).tolist()
    if not isinstance(found, list) or len(found) != rows:
        count = len(found) if isinstance(found, list) else 1
        raise UserError(f"y: {count:,} labels for {rows:,} rows; give one per row")
    if missing := [number for number, each in enumerate(found) if pd.api.types.is_scalar(each) and pd.isna(each)]:
        raise UserError(f"y: row {missing[0]} has no label ({len(missing):,} of {rows:,} have none); drop such rows")
    return found
