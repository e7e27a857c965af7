"""Images of every depth and format, and images that belong together: how their pixels and their split are read."""

import io
import struct
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from PIL import Image, ImageOps
from pillow_heif import register_heif_opener

from benchmarks._reading import Case, Outcome
from unfreeze.models.images.data import notes_of
from unfreeze.models.images.listing.sources import resolve_source
from unfreeze.models.images.listing.splits import grouped
from unfreeze.models.images.pixels.decode import read_image
from unfreeze.models.images.pixels.index import Index, build_index
from unfreeze.models.settings import DataSpec
from unfreeze.models.store.content import hash_files

register_heif_opener()
_SIDE, _IMAGES = 40, 6
Encode = Callable[[np.ndarray], bytes]
"""Pixels in units of the whole range, (H, W) or (H, W, C) from 0 to 1 -> a file."""


def indexed(source: Path, **settings: Any) -> Index:
    """The index that a training on a source would have."""
    data = DataSpec.model_validate({"source": str(source), **settings})
    listing = grouped(resolve_source(data, source), data)
    return build_index(listing, hash_files([file.path for file in listing.files], 1), data, threads=1)


# --- files


def png(values: np.ndarray) -> bytes:
    """A PNG of 16 bits a sample, gray, gray with opacity, RGB or RGBA; Pillow writes only gray ones."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = np.atleast_3d(values).shape
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def tiff(
    values: np.ndarray, order: Literal["<", ">"] = "<", photometric: int = 1, deflated: bool = False, nodata: str = ""
) -> bytes:
    """A TIFF of any type of samples."""
    height, width, channels = np.atleast_3d(values).shape
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    data = zlib.compress(data) if deflated else data
    sort = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    bits, text = 8 * values.dtype.itemsize, nodata.encode() + b"\0"
    tags: list[tuple[int, str, bytes | list[int]]] = [
        *((256, "I", [width]), (257, "I", [height]), (258, "H", [bits] * channels), (259, "H", [8 if deflated else 1])),
        *((262, "H", [2 if channels > 1 else photometric]), (273, "I", [0]), (277, "H", [channels])),
        *((278, "I", [height]), (279, "I", [len(data)]), (339, "H", [sort] * channels)),
        *([(42113, "B", text)] if nodata else []),
    ]
    start = 8 + 2 + 12 * len(tags) + 4
    later, entries = b"", b""
    for tag, kind, content in tags:
        raw = struct.pack(f"{order}{len(content)}{kind}", *content)
        if tag == 273:
            raw = struct.pack(f"{order}I", 2**31)  # filled in below, when it is known where the pixels are
        elif len(raw) > 4:
            later, raw = later + raw, struct.pack(f"{order}I", start + len(later))
        kinds = {"B": 2, "H": 3, "I": 4}
        entries += struct.pack(f"{order}HHI", tag, kinds[kind], len(content)) + raw.ljust(4, b"\0")
    entries = entries.replace(struct.pack(f"{order}I", 2**31), struct.pack(f"{order}I", start + len(later)))
    begin = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, len(tags))
    return begin + entries + bytes(4) + later + data


def _saved(image: Image.Image, form: str, **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, form, **options)
    return content.getvalue()


def _levels(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(255 * pixels).astype(np.uint8))


# --- pixels


def _photos(channels: int) -> Iterator[np.ndarray]:
    """Waves from dark to bright with a white corner; only those of the last reach black and white."""
    rows, columns = np.mgrid[0:_SIDE, 0:_SIDE] / _SIDE
    for number in range(_IMAGES):
        waves = [np.sin(6 * rows + number + shift) * np.cos(5 * columns - shift) for shift in range(channels)]
        pixels = np.stack(waves, axis=-1)
        pixels = (pixels - pixels.min()) / (pixels.max() - pixels.min()) * (0.3 + 0.7 * number / (_IMAGES - 1))
        pixels[0, 0] = 1
        yield pixels if channels > 1 else pixels[..., 0]


def _pixels(folder: Path, encode: Encode, channels: int, tolerance: float, suffix: str) -> Outcome:
    """A data set of these files: its levels must be those of the photos, and of each file by itself afterwards."""
    expected = []
    for number, pixels in enumerate(_photos(channels)):
        path = folder / "data" / f"class{number % 2}" / f"{number}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(pixels))
        expected.append(pixels)
    index = indexed(folder / "data")
    if len(index) < _IMAGES:
        return "refused" if notes_of(index) else "wrong"
    for path in map(Path, index.rows["path"].to_pylist()):
        read = np.asarray(read_image(path, 100, ranges=index.ranges)) / 255
        wanted = expected[int(path.stem)]
        if np.abs(read - (wanted if wanted.ndim == 3 else wanted[..., None])).max() > tolerance:
            return "wrong"
    is_said = not index.ranges or any("become black to white" in note for note in notes_of(index))
    return "right" if is_said else "wrong"


def _integers(bits: int, pixels: np.ndarray, opacity: int | None = None) -> np.ndarray:
    values = np.rint(pixels * (2**bits - 1)).astype(np.uint16)
    return values if opacity is None else np.dstack([values, np.full(values.shape[:2], opacity, np.uint16)])


def _typed(dtype: type, low: float, high: float, pixels: np.ndarray, **options: Any) -> bytes:
    values = low + (high - low) * pixels
    return tiff((np.rint(values) if np.issubdtype(dtype, np.integer) else values).astype(dtype), **options)


def _with_gaps(gap: float, nodata: str, pixels: np.ndarray) -> bytes:
    values = (250 + 60 * pixels).astype(np.float32)
    values = np.where(pixels == 0, np.float32(gap), values)
    return tiff(values, nodata=nodata)


def _with_a_dead_pixel(pixels: np.ndarray) -> bytes:
    values = _integers(12, pixels)
    values[0, 0] = 65535
    return png(values)


def _pixel_cases() -> Iterator[Case]:
    def case(name: str, encode: Encode, channels: int = 1, tolerance: float = 1.5 / 255, suffix: str = "tif") -> Case:
        read = partial(_pixels, encode=encode, channels=channels, tolerance=tolerance, suffix=suffix)
        return Case("pixels", name, read)

    def stored(bits: int, pixels: np.ndarray, **options: Any) -> bytes:
        return tiff(_integers(bits, pixels), **options)

    def opaque(bits: int, opacity: int | None, pixels: np.ndarray) -> bytes:
        return png(_integers(bits, pixels, opacity))

    for bits, (channels, kind) in product((8, 10, 12, 14, 16), ((1, "gray"), (3, "RGB"))):
        yield case(f"{bits} bits in a {kind} PNG of 16", partial(opaque, bits, None), channels)
        for order, deflated in (("<", False), (">", True)):
            name = f"{bits} bits in a {kind} TIFF of 16, {'deflated' if deflated else 'plain'}, {order}"
            yield case(name, partial(stored, bits, order=order, deflated=deflated), channels)
    for bits, opacity in ((12, 4095), (12, 65535), (16, 65535)):
        yield case(f"{bits} bits, 3 channels, opacity {opacity}", partial(opaque, bits, opacity), 3)
    ranges: list[tuple[type, float, float]] = [
        *((np.int16, -1024, 3071), (np.int16, 0, 4095), (np.int32, -100, 100_000), (np.int32, 0, 2**20 - 1)),
        *((np.float32, 0, 1), (np.float32, 0, 1.04), (np.float32, 0, 255), (np.float32, -1, 1), (np.float32, 250, 310)),
        *((np.float32, -1000, 3000), (np.float32, 0, 0.02)),
    ]
    for dtype, low, high in ranges:
        yield case(f"{dtype.__name__} from {low:g} to {high:g}", partial(_typed, dtype, low, high))
    yield case("floats, big-endian and deflated", partial(_typed, np.float32, -5, 9, order=">", deflated=True))
    yield case("integers, big-endian and deflated", partial(_typed, np.int16, -5000, 9000, order=">", deflated=True))
    yield case("12 bits and a dead pixel", _with_a_dead_pixel)
    yield case("12 bits, white is zero", lambda x: tiff(4095 - _integers(12, x), photometric=0))
    yield case("8 bits, white is zero", lambda x: tiff((255 - np.rint(255 * x)).astype(np.uint8), photometric=0))
    yield case("temperatures with NaN", partial(_with_gaps, np.nan, ""))
    yield case("temperatures with -9999 as GDAL's nodata", partial(_with_gaps, -9999, "-9999"))
    yield case("8 bits in a PNG", lambda x: _saved(_levels(x), "PNG"))
    yield case("a palette", lambda x: _saved(_levels(x).convert("P"), "PNG"))
    yield case("gray with opacity", lambda x: _saved(_levels(x).convert("LA"), "PNG"))
    yield case("CMYK in a TIFF", lambda x: _saved(_levels(x).convert("CMYK"), "TIFF"), 3)
    yield case("CMYK in a JPEG", lambda x: _saved(_levels(x).convert("CMYK"), "JPEG", quality=98), 3, 0.06)
    for dtype in (np.float64, np.float16, np.uint64):
        read = partial(_pixels, encode=partial(_typed, dtype, 0, 1000), channels=1, tolerance=0.01, suffix="tif")
        yield Case("pixels", f"samples of {dtype.__name__}", read, ("refused",))


def _turned(folder: Path, form: str, orientation: int) -> Outcome:
    upright = _levels(next(iter(_photos(3)))).resize((24, 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = upright.transpose(Image.Transpose(undo[orientation]))
    stored.save(
        folder / "a", form, exif=exif.tobytes(), **({"quality": 95} if form in ("JPEG", "WEBP", "AVIF", "HEIF") else {})
    )
    found = np.asarray(read_image(folder / "a", 100)).astype(int)
    wanted = np.asarray(ImageOps.exif_transpose(upright)).astype(int)
    return "right" if found.shape == wanted.shape and np.abs(found - wanted).mean() < 12 else "wrong"


def _orientation_cases() -> Iterator[Case]:
    for form, orientation in product(("JPEG", "PNG", "TIFF", "WEBP", "AVIF", "HEIF"), range(2, 9)):
        name = f"{form} with orientation {orientation}"
        yield Case("orientation", name, partial(_turned, form=form, orientation=orientation))


# --- what is said of files


def _said(folder: Path, content: bytes, words: str) -> Outcome:
    """A file among photos that a person must hear of, by these words."""
    for number, pixels in enumerate(_photos(3)):
        path = folder / "data" / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        _levels(pixels).save(path)
    (folder / "data" / "class0" / "odd").write_bytes(content)
    return "said" if any(words in note for note in notes_of(indexed(folder / "data"))) else "wrong"


def _file_cases() -> Iterator[Case]:
    flat = Image.new("RGB", (64, 64), (90, 120, 30))
    clear = Image.new("RGBA", (64, 64), (255, 255, 255, 0))
    clear.paste((255, 255, 255, 255), (9, 9, 50, 50))
    waves = [_levels(pixels) for pixels in _photos(3)]
    stack = {"save_all": True, "append_images": waves[1:3]}
    nearly = "1 images are nearly one colour: class0/odd"
    files = {
        "a blank photo": (_saved(flat, "PNG"), nearly),
        "a blank JPEG": (_saved(flat, "JPEG"), nearly),
        "white on nothing": (_saved(clear, "PNG"), nearly),
        "a mask of 0 and 1": (_saved(_levels(np.eye(64) / 255), "PNG"), nearly),
        "12 bits among 8": (png(_integers(12, np.eye(64))), "1 images have more than 8 bits a sample: integer values"),
        "a TIFF of pages": (_saved(waves[0], "TIFF", **stack), "only the first is used"),
        "an animation": (_saved(waves[0], "GIF", **stack), "only the first is used"),
        "an empty file": (b"", "zero bytes (1)"),
        "a text": (b"nothing to see", "not an image; export other formats as"),
        "half a photo": (_saved(waves[0], "PNG")[:300], "truncated or damaged (1)"),
        "DICOM": (bytes(128) + b"DICM" + bytes(50), "not an image; export other formats as"),
        "JPEG XL": (b"\xff\x0a" + bytes(50), "not an image; export other formats as"),
        "Photoshop": (b"8BPS" + bytes(50), "not an image; export other formats as"),
    }
    for name, (content, words) in files.items():
        yield Case("files that are named", name, partial(_said, content=content, words=words), ("said",))


# --- groups


_NAMES: dict[str, tuple[str, str]] = {
    "patient_1_3.png": ("{label}/patient{group}_{number}.png", r"patient(\d+)_"),
    "a folder a patient": ("{label}/p{group}/{number}.png", r"/(p\d+)/"),
    "the last folder": ("{label}/cam{group}/{number}.png", r"([^/]+)/[^/]+$"),
    "bursts": ("{label}/IMG_{group}_BURST{number}.png", r"IMG_(\d+)_BURST"),
    "frames of a video": ("{label}/video-{group}.frame{number}.png", r"video-(\d+)\."),
    "a suffix": ("{label}/{number}-s{group}.png", r"-(s\d+)\.png$"),
}


def _noise(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)


def _members() -> Iterator[tuple[str, int, int]]:
    """Class, group and number of 120 images in 24 groups of different sizes, of which some have both classes."""
    seed = 0
    for group in range(24):
        for _ in range(2 + group % 7):
            label = "ab"[group % 2] if group % 5 else "ab"[seed % 2]
            yield label, group, seed
            seed += 1


def _kept_together(index: Index, groups: dict[str, str], valid_fraction: float = 0.2) -> Outcome:
    """Whether no group is on two sides, while every class validates about its share."""
    sides, counts = defaultdict(set), defaultdict[tuple[str, str], int](int)
    for row in index.rows.select(["path", "split", "label"]).to_pylist():
        sides[groups[row["path"]]].add(row["split"])
        for label in row["label"].split("|"):
            counts[label, row["split"]] += 1
    shares = [counts[label, "valid"] / (counts[label, "valid"] + counts[label, "train"]) for label in index.classes]
    is_right = all(len(each) == 1 for each in sides.values()) and all(
        abs(share - valid_fraction) < 0.1 for share in shares
    )
    return "right" if is_right else "wrong"


def _named_groups(folder: Path, template: str, pattern: str, **settings: Any) -> Outcome:
    groups = {}
    for label, group, number in _members():
        path = folder / "data" / template.format(label=label, group=group, number=number)
        _noise(path, number)
        groups[str(path)] = str(group)
    return _kept_together(indexed(folder / "data", group_pattern=pattern, **settings), groups)


def _table_of_groups(folder: Path, suffix: str, copies: bool = False, labels: str = "single") -> Outcome:
    rows, groups = [], {}
    for label, group, number in _members():
        path = folder / f"{number}.png"
        _noise(path, 2 if copies and number == 9 else number)
        groups[str(path)] = f"group {group}"
        rows.append({"path": path.name, "label": label if labels == "single" else f"{label};ab", "patient": group})
    if copies:  # the groups of a copy and of its original are one then
        of_copies = [groups[str(folder / f"{number}.png")] for number in (2, 9)]
        groups = {path: of_copies[0] if group in of_copies else group for path, group in groups.items()}
    frame, table = pd.DataFrame(rows), folder / f"table{suffix}"
    if suffix == ".csv":
        frame.to_csv(table, index=False)
    else:
        getattr(frame, f"to_{suffix[1:]}")(table)
    settings = {"labels": "multiple", "label_separator": ";"} if labels == "multiple" else {}
    return _kept_together(indexed(table, group_column="patient", **settings), groups)


def _groups_across(folder: Path) -> Outcome:
    for number in range(12):
        side = folder / "data" / ("train" if number % 3 else "valid")
        _noise(side / "ab"[number % 2] / f"p{number // 3}_{number}.png", number)
    notes = notes_of(indexed(folder / "data", group_pattern=r"(p\d)_"))
    return "said" if any("4 of 4 groups are on several sides" in note for note in notes) else "wrong"


def _refused_groups(folder: Path, template: str, **settings: Any) -> Outcome:
    for number in range(12):
        _noise(folder / "data" / "ab"[number % 2] / template.format(number=number, label="ab"[number % 2]), number)
    indexed(folder / "data", **settings)
    return "wrong"


def _group_cases() -> Iterator[Case]:
    for name, (template, pattern) in _NAMES.items():
        yield Case("groups", name, partial(_named_groups, template=template, pattern=pattern))
        seeded = partial(_named_groups, template=template, pattern=pattern, split_seed=7)
        yield Case("groups", f"{name}, another seed", seeded)
    for suffix in (".csv", ".feather", ".parquet"):
        yield Case("groups", f"a column of {suffix}", partial(_table_of_groups, suffix=suffix))
    yield Case("groups", "copies in two groups", partial(_table_of_groups, suffix=".csv", copies=True))
    yield Case("groups", "several labels", partial(_table_of_groups, suffix=".csv", labels="multiple"))
    yield Case("groups", "groups across the source's own split", _groups_across, ("said",))
    refused: dict[str, tuple[str, dict[str, Any]]] = {
        "a pattern that matches nothing": ("{number}.png", {"group_pattern": r"patient(\d)"}),
        "one group": ("x_{number}.png", {"group_pattern": r"(x)_"}),
        "a class in one group": ("{label}_{number}.png", {"group_pattern": r"/(a)_"}),
        "a column of a folder": ("{number}.png", {"group_column": "patient"}),
    }
    for name, (template, settings) in refused.items():
        yield Case("groups", name, partial(_refused_groups, template=template, **settings), ("refused",))


CASES = [*_pixel_cases(), *_orientation_cases(), *_file_cases(), *_group_cases()]
