"""Decoding of image files into upright 8-bit RGB, or a plain reason for failure."""

import math
import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Literal, NamedTuple, TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

from unfreeze.models.images.pixels.bit_depth import Box, DeepPixels, Ranges, Samples, range_for, raw_mode
from unfreeze.models.store.paths import irregular_kind

Fit = Literal["crop", "squish", "pad"]
Interpolation = Literal["bilinear", "bicubic", "lanczos", "nearest"]

Item = TypeVar("Item")
Result = TypeVar("Result")

# Only these are tried: others are rare as photos, and EPS would run Ghostscript on untrusted files.
_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "HEIF")
_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "HSV", "I", "F"}
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF")
_SUBFILE, _BITS, _PLANES, _TILE_WIDTH, _TILE_LENGTH, _SAMPLE_FORMAT = 0x00FE, 0x0102, 0x011C, 0x0142, 0x0143, 0x0153
_SMALLEST_SIDE = 4
_TILE = 256
_GRID = 64

BYTES_PER_PIXEL = 12
"""Peak memory of a decode in bytes per pixel of `max_megapixels`, besides a few MB."""
# Measured peak of decoder and conversion together. A progressive CMYK JPEG takes 12, most others 8.
_PEAK_PER_PIXEL = {"WEBP": 18, "AVIF": 14, "JPEG2000": 26}
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_UNREAD_SAMPLES = "samples of a type that is not read; save it with 8 or 16 bits a sample, and interleaved colours"
_QUIET = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


class UnreadableImage(Exception):
    """Raised for an unusable image file; the message is the reason, without the file's name."""


class ImageFacts(NamedTuple):
    """Facts about an image file: displayed size in pixels, content statistics, and its bytes.

    Attributes
    ----------
    samples
        Kind and range of its values, if they have more than 8 bits.
    spread
        Largest standard deviation of a channel, in its own values or in levels of 256.
    frames
        Number of images in the file; the first is used.
    """

    width: int
    height: int
    samples: Samples | None
    spread: float
    frames: int
    bytes: int


def read_image(
    path: Path | BytesIO, max_megapixels: float, at_least: int | None = None, ranges: Ranges = MappingProxyType({})
) -> Image.Image:
    """Decode an image upright, as 8-bit RGB; safe to call from several threads.

    Of animations the first frame is used; transparency is composited over white; deeper samples are scaled to 8 bits.

    Parameters
    ----------
    path
        The file, or its bytes.
    max_megapixels
        Larger images are rejected by their header before decoding, so a decode takes at most `BYTES_PER_PIXEL` per
        pixel of this limit. The limit is lower for formats that take more memory per pixel.
    at_least
        Shorter side that the caller needs, in pixels. A JPEG may then be decoded at a half, a quarter or an eighth of
        its size (never below `draft_side(at_least)`), which is several times faster.
    ranges
        Black and white levels for more than 8 bits per sample; see `bit_depth.ranges_of`.

    Raises
    ------
    UnreadableImage
        With a plain reason: zero bytes, not an image, truncated or damaged, too large, too small, unknown value range.
    """
    with _opened(path, max_megapixels) as (image, deep):
        if at_least is not None and isinstance(image, JpegImageFile):
            image.draft(None, (draft_side(at_least), draft_side(at_least)))
        image.load()
        orientation = _orientation(image)
        rgb = _to_rgb(image, deep, ranges)
    del image, deep  # frees a third copy of the pixels beside the rotated image
    rgb.info = {}  # avoids parsing damaged EXIF again
    rgb.getexif()[ExifTags.Base.Orientation] = orientation
    ImageOps.exif_transpose(rgb, in_place=True)
    return rgb


def check_image(path: Path, max_megapixels: float) -> ImageFacts:
    """Check cheaply that `read_image` would succeed, given the ranges; return the facts or raise the same errors."""
    with _opened(path, max_megapixels) as (image, deep):
        width, height = image.size
        if isinstance(image, JpegImageFile):
            # Luminance at an eighth of the size still decodes the whole stream, so truncation is detected.
            image.draft("L", (min(width, _GRID), min(height, _GRID)))
        image.load()
        samples = deep.samples(_tiles(image)) if deep is not None else None
        spread, frames = _spread(image, deep), _frames(image)
        if _orientation(image) >= 5:
            width, height = height, width
        return ImageFacts(width, height, samples, spread, frames, path.stat().st_size)


def draft_side(at_least: int) -> int:
    """Minimum side of reduced JPEG decoding: a power of two, at least 512.

    All usual training sizes then start from the same decoded pixels, so one decode serves them all and a cache's
    content does not depend on which other sizes were built with it.
    """
    return max(512, 1 << (at_least - 1).bit_length())


def make_square(image: Image.Image, size: int, fit: Fit, interpolation: Interpolation) -> np.ndarray:
    """Resize an RGB image to a square of `size` pixels, antialiased: (size, size, 3) uint8, writable.

    `crop` scales the shorter side to `size` and keeps the centre; `squish` ignores the aspect ratio; `pad` scales the
    longer side to `size` and pads with black.
    """
    filter_ = Image.Resampling[interpolation.upper()]
    width, height = image.size
    if fit == "pad":
        scale = size / max(width, height)
        inner = (max(1, round(width * scale)), max(1, round(height * scale)))
        square = Image.new("RGB", (size, size))
        resized = image.resize(inner, filter_, reducing_gap=3.0)
        square.paste(resized, ((size - inner[0]) // 2, (size - inner[1]) // 2))
        return np.array(square)
    box = (0.0, 0.0, float(width), float(height))
    if fit == "crop":
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
    # reducing_gap: large reductions start with a box filter, several times faster and nearly identical.
    return np.array(image.resize((size, size), filter_, box=box, reducing_gap=3.0))


def square_jpeg(
    path: Path, largest: int, fit: Fit, interpolation: Interpolation, max_megapixels: float, ranges: Ranges
) -> bytes | None:
    """The square that the network sees, at up to `largest` pixels, as JPEG; None if the file is gone."""
    try:
        image = read_image(path, max_megapixels, largest, ranges)
    except (UnreadableImage, OSError):
        return None
    return encoded(make_square(image, min(largest, *image.size), fit, interpolation), "JPEG")


def encoded(pixels: np.ndarray, kind: Literal["JPEG", "PNG"] = "PNG") -> bytes:
    """Encode pixels (H, W), (H, W, 3) or (H, W, 4) uint8."""
    file = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, kind, quality=88, optimize=True)
    return file.getvalue()


@contextmanager
def _opened(path: Path | BytesIO, max_megapixels: float) -> Iterator[tuple[ImageFile.ImageFile, DeepPixels | None]]:
    """Open an image after all header checks; any failure inside the block becomes `UnreadableImage`."""
    # `warnings.catch_warnings` is not thread-safe, and other libraries may have reset the filters.
    if _QUIET not in warnings.filters:
        warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        if isinstance(path, Path) and (kind := irregular_kind(path)):
            raise UnreadableImage(f"{kind}, not a file")
        opened = path.open("rb") if isinstance(path, Path) else nullcontext(path)
        with opened as file, _identified(file) as image:
            _check_header(image, max_megapixels)
            yield image, DeepPixels.of(image, file)
    except UnreadableImage:
        raise
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise UnreadableImage(f"cannot be read: {error.strerror}") from error
    except Exception as error:  # PIL's decoders can raise anything on damaged input
        detail = str(error).strip() or type(error).__name__
        raise UnreadableImage(f"truncated or damaged: {detail}") from error


def _identified(file: IO[bytes]) -> ImageFile.ImageFile:
    """Open like `PIL.Image.open`, but without its process-wide pixel limit; `_check_header` applies ours."""
    _register_plugins()
    file.seek(0)
    start = file.read(16)
    if not start:
        raise UnreadableImage("zero bytes")
    unsupported = ""
    for make, accepts in (Image.OPEN[name] for name in _FORMATS if name in Image.OPEN):
        if accepts is None or accepts(start) is True:
            file.seek(0)
            try:
                return make(file, getattr(file, "name", ""))
            except (SyntaxError, IndexError, TypeError, struct.error) as error:  # another format, or damaged
                if str(error) in ("unknown pixel mode", "unknown data organization"):
                    unsupported = _UNREAD_SAMPLES
    if not unsupported and start[4:8] == b"ftyp" and start[8:12] in _HEIC:
        unsupported = "HEIC, which needs the package pillow-heif; pip install 'unfreeze[heic]'"
    if not unsupported and start.startswith(_SIGNATURES):
        unsupported = "truncated or damaged: broken header"
    raise UnreadableImage(unsupported or "not an image; export other formats as JPEG, PNG or TIFF")


@cache
def _register_plugins() -> None:
    Image.init()
    with suppress(ImportError):  # the extra `heic`
        from pillow_heif import register_heif_opener

        register_heif_opener()


def _check_header(image: ImageFile.ImageFile, max_megapixels: float) -> None:
    width, height = image.size
    megapixels = _pixels(image) / 1e6
    if megapixels > max_megapixels:
        raise UnreadableImage(f"{megapixels:,.6g} megapixels exceed data.max_megapixels={max_megapixels:g}")
    needed = megapixels * _PEAK_PER_PIXEL.get(image.format or "", 0) / 1e3
    allowed = max_megapixels * BYTES_PER_PIXEL / 1e3
    if needed > allowed:
        raise UnreadableImage(
            f"decoding {megapixels:,.6g} megapixels of {image.format} takes {needed:.3g} GB, and "
            f"data.max_megapixels={max_megapixels:g} allows {allowed:.3g} GB"
        )
    if min(width, height) < _SMALLEST_SIDE:
        raise UnreadableImage(f"{width}x{height} pixels: too small")
    if image.mode not in _MODES and not image.mode.startswith("I;16"):
        raise UnreadableImage(f"colour mode {image.mode} is not supported")
    if isinstance(image, TiffImageFile):
        if image.tag_v2.get(_SUBFILE, 0) & 1:
            raise UnreadableImage("a raw photo, of which only a preview can be read; export it as JPEG, PNG or TIFF")
        tags, deep = image.tag_v2, max(image.tag_v2.get(_BITS, (1,))) > 8
        in_planes = tags.get(_PLANES) == 2 and deep and image.mode != "I;16"
        layout = image.mode, tags.get(_SAMPLE_FORMAT, (1,))[0], tags.get(_BITS)
        if in_planes or layout[:2] == ("L", 2) or layout == ("I", 1, (32,)):
            raise UnreadableImage(_UNREAD_SAMPLES)
    if raw_mode(image) == "LA;16B":
        raise UnreadableImage(_UNREAD_SAMPLES)


def _pixels(image: Image.Image) -> int:
    """Number of pixels that will be decoded, which can exceed the announced size."""
    width, height = image.size
    pixels = width * height
    if isinstance(image, TiffImageFile):
        # TIFF tiles are decoded whole, even if they reach beyond the image.
        tile = [value for tag in (_TILE_WIDTH, _TILE_LENGTH) if isinstance(value := image.tag_v2.get(tag), int)]
        return max(pixels, math.prod(tile)) if len(tile) == 2 else pixels
    return pixels


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8, of a loaded image (PIL rotates TIFFs while loading)."""
    try:
        value: Any = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF must not make the image unusable
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _to_rgb(image: Image.Image, deep: DeepPixels | None, ranges: Ranges) -> Image.Image:
    """Convert to RGB tile by tile, which keeps temporary memory small; returns a copy."""
    if deep is None and image.mode == "RGB" and not image.has_transparency_data:
        return image.copy()  # the caller closes the file
    ends = _range(deep, image, ranges) if deep is not None else None
    rgb = Image.new("RGB", image.size)
    for box in _tiles(image):
        rgb.paste(_flat(deep.eight_bits(box, ends) if deep and ends else image.crop(box)), box)
    return rgb


def _range(deep: DeepPixels, image: Image.Image, ranges: Ranges) -> tuple[float, float]:
    if deep.kind in ranges:
        return ranges[deep.kind]
    samples = deep.samples(_tiles(image))
    ends = range_for(samples)
    if ends is None:
        raise UnreadableImage(
            f"{samples.kind} values of more than 8 bits, unlike those of the training: which of {samples.low:g} to "
            f"{samples.high:g} are black and white is unknown; convert the image to 8 bits"
        )
    return ends


def _flat(tile: Image.Image) -> Image.Image:
    """Convert a tile to RGB, composited over white."""
    if tile.has_transparency_data:
        opaque = tile.convert("RGBA")
        tile = Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque)
    return tile.convert("RGB")


def _spread(image: Image.Image, deep: DeepPixels | None) -> float:
    """Largest standard deviation of a channel, over pixels on a grid."""
    rows, columns = (np.linspace(0, side - 1, min(side, _GRID)).astype(int) for side in image.size[::-1])
    if deep is not None:
        values = np.concatenate([deep.values((0, row, image.width, row + 1))[:, columns] for row in rows])
        known = np.nan_to_num(values.reshape(len(rows) * len(columns), -1)[:, :3])
        return float(known.std(axis=0, dtype=np.float64).max())
    size = (len(columns), len(rows))
    pixels = np.asarray(_flat(image.resize(size, Image.Resampling.NEAREST)))
    return float(pixels.reshape(-1, 3).std(axis=0).max())


def _frames(image: Image.Image) -> int:
    """Number of frames; 1 for JPEG and HEIC, where phones store previews and depth maps as further images."""
    try:
        return 1 if image.format in ("JPEG", "MPO", "HEIF") else getattr(image, "n_frames", 1)
    except Exception:  # a damaged later frame must not make the first unusable
        return 1


def _tiles(image: Image.Image) -> Iterator[Box]:
    width, height = image.size
    for top in range(0, height, _TILE):
        for left in range(0, width, _TILE):
            yield left, top, min(left + _TILE, width), min(top + _TILE, height)
