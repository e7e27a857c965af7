"""One image file in, upright 8-bit RGB pixels out, or a plain reason why not."""

import math
import re
import struct
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Literal, TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageOps
from PIL.IcoImagePlugin import IcoImageFile
from PIL.TiffImagePlugin import TiffImageFile

from unfreeze.models.regular_files import irregular_kind

Fit = Literal["crop", "squish", "pad"]
Interpolation = Literal["bilinear", "bicubic", "lanczos", "nearest"]

Item = TypeVar("Item")
Result = TypeVar("Result")

# Only these are tried. Others are rare as photos, and opening EPS would start Ghostscript on a file from anywhere.
_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO")
_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "HSV", "I", "F"}
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF")
_TILE_WIDTH, _TILE_LENGTH = 0x0142, 0x0143
_SMALLEST_SIDE = 4
_TILE = 512

BYTES_PER_PIXEL = 12
"""Bytes that a decode may take per pixel of `max_megapixels`, everything included, besides a few MB."""
# Measured: what decoder and conversion take together at their peak. A progressive JPEG in CMYK takes 12, most others 8.
_PEAK_PER_PIXEL = {"WEBP": 18, "AVIF": 14, "JPEG2000": 26}
_QUIET = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


class UnreadableImage(Exception):
    """A file that cannot be used as an image; the message is the reason, without the file's name."""


def read_image(path: Path | BytesIO, max_megapixels: float, at_least: int | None = None) -> Image.Image:
    """Decode an image upright, as 8-bit RGB; safe to call from several threads.

    Animations give their first frame; transparency is composited over white; 16-bit, 32-bit and float grayscale is
    scaled to 8 bits.

    Parameters
    ----------
    path
        The file, or its bytes.
    max_megapixels
        Larger images are rejected by their header, before anything is decoded, so that a decode takes at most
        `BYTES_PER_PIXEL` for each pixel of this limit. Formats that take more than that per pixel may have fewer.
    at_least
        The shorter side that the caller needs, in pixels. A JPEG may then be decoded at a half, a quarter or an
        eighth of its size (never below `draft_side(at_least)`), which is several times faster.

    Raises
    ------
    UnreadableImage
        With a plain reason: zero bytes, not an image, truncated or damaged, too large, too small.
    """
    with _opened(path, max_megapixels) as image:
        if at_least is not None:
            image.draft(None, (draft_side(at_least), draft_side(at_least)))
        image.load()
        orientation = _orientation(image)
        rgb = _to_rgb(image)
    del image  # its pixels would be a third copy beside those of the turned image
    rgb.info = {}  # damaged EXIF among it would be read again
    rgb.getexif()[ExifTags.Base.Orientation] = orientation
    ImageOps.exif_transpose(rgb, in_place=True)
    return rgb


def check_image(path: Path, max_megapixels: float) -> tuple[int, int]:
    """Width and height as displayed, if `read_image` would succeed; raises what it would, but more cheaply."""
    with _opened(path, max_megapixels) as image:
        width, height = image.size
        # A JPEG's luminance at an eighth of the size still decodes every bit of the stream, so truncation shows.
        image.draft("L", (1, 1))
        image.load()
        return (height, width) if _orientation(image) >= 5 else (width, height)


def draft_side(at_least: int) -> int:
    """The side that reduced JPEG decoding keeps: a power of two from 512 up, and not just `at_least`.

    All usual training sizes then start from the same decoded pixels: a cache's content does not depend on which
    other sizes were built in the same pass, and one decode serves them all.
    """
    return max(512, 1 << (at_least - 1).bit_length())


def make_square(image: Image.Image, size: int, fit: Fit, interpolation: Interpolation) -> np.ndarray:
    """Resize an RGB image to a square of `size` pixels, antialiased: (size, size, 3) uint8, writable.

    `crop` scales the shorter side to `size` and keeps the centre; `squish` ignores the aspect ratio; `pad` scales the
    longer side to `size` and fills up with black.
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
    # reducing_gap: a large reduction starts with a box filter, several times faster and hardly different.
    return np.array(image.resize((size, size), filter_, box=box, reducing_gap=3.0))


def map_in_order(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int, in_flight: int
) -> Generator[Result, None, None]:
    """Call `function` on threads and yield its results in the order of `items`.

    At most `in_flight` items are submitted and not yet yielded, so memory stays bounded however many there are.
    """
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="images") as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= in_flight:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


@contextmanager
def _opened(path: Path | BytesIO, max_megapixels: float) -> Iterator[Image.Image]:
    """Open with all header checks made; any failure inside the block becomes `UnreadableImage`."""
    # `warnings.catch_warnings` is not safe in threads. A test or another library may have reset the filters meanwhile.
    if _QUIET not in warnings.filters:
        warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        if isinstance(path, Path) and (kind := irregular_kind(path)):
            raise UnreadableImage(f"{kind}, not a file")
        opened = path.open("rb") if isinstance(path, Path) else nullcontext(path)
        with opened as file, _identified(file) as image:
            _check_header(image, max_megapixels)
            yield image
    except UnreadableImage:
        raise
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise UnreadableImage(f"cannot be read: {error.strerror}") from error
    except Exception as error:  # on damaged input PIL's decoders raise almost anything
        detail = str(error).strip() or type(error).__name__
        raise UnreadableImage(f"truncated or damaged: {detail}") from error


def _identified(file: IO[bytes]) -> Image.Image:
    """`PIL.Image.open` without its process-wide limit of pixels, in place of which `_check_header` has one."""
    Image.init()
    file.seek(0)
    start = file.read(16)
    if not start:
        raise UnreadableImage("zero bytes")
    for make, accepts in (Image.OPEN[name] for name in _FORMATS if name in Image.OPEN):
        if accepts is None or accepts(start) is True:
            file.seek(0)
            try:
                return make(file, getattr(file, "name", ""))
            except (SyntaxError, IndexError, TypeError, struct.error):  # not of this format, or damaged
                continue
    raise UnreadableImage("truncated or damaged: broken header" if start.startswith(_SIGNATURES) else "not an image")


def _check_header(image: Image.Image, max_megapixels: float) -> None:
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


def _pixels(image: Image.Image) -> int:
    """Pixels that will be decoded: a file can announce fewer than it holds."""
    width, height = image.size
    pixels = width * height
    if isinstance(image, TiffImageFile):
        # A tile of a TIFF is decoded as a whole, however little of it is within the image.
        tile = [value for tag in (_TILE_WIDTH, _TILE_LENGTH) if isinstance(value := image.tag_v2.get(tag), int)]
        return max(pixels, math.prod(tile)) if len(tile) == 2 else pixels
    if isinstance(image, IcoImageFile):
        # The icon's table gives at most 256 x 256; the image behind it has a header of its own, a PNG's or a BMP's.
        image.ico.buf.seek(image.ico.entry[image.ico.getentryindex(image.size)].offset)
        start = image.ico.buf.read(24).ljust(24, b"\0")
        width, height = (
            struct.unpack(">II", start[16:]) if start[:4] == b"\x89PNG" else struct.unpack("<ii", start[4:12])
        )
        return max(pixels, abs(int(width) * int(height)))
    return pixels


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8, of a loaded image (PIL turns a TIFF by itself while loading)."""
    try:
        value: Any = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF is no reason to lose the image
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    """A copy in RGB, made tile by tile: what a conversion needs besides its result is then small."""
    if image.mode == "RGB" and not image.has_transparency_data:
        return image.copy()  # the caller closes the file
    wide = image.mode in ("I", "F") or image.mode.startswith("I;16")
    scale = _scale_of(image) if wide else (0.0, 1.0)
    rgb = Image.new("RGB", image.size)
    for box in _tiles(image):
        tile = image.crop(box)
        if wide:
            tile = Image.fromarray(_eight_bits(tile, *scale))
        elif tile.has_transparency_data:
            opaque = tile.convert("RGBA")
            tile = Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque)
        rgb.paste(tile.convert("RGB"), box)
    return rgb


def _tiles(image: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    width, height = image.size
    for top in range(0, height, _TILE):
        for left in range(0, width, _TILE):
            yield left, top, min(left + _TILE, width), min(top + _TILE, height)


def _finite(tile: Image.Image) -> np.ndarray:
    return np.nan_to_num(np.asarray(tile).astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)


def _scale_of(image: Image.Image) -> tuple[float, float]:
    """What of wide grayscale is black, and the range to white: that of its type, or its own where that says nothing."""
    ranges = [
        (float(values.min()), float(values.max())) for values in (_finite(image.crop(box)) for box in _tiles(image))
    ]
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    usual = (1.0, 255.0) if image.mode == "F" else (65535.0,)
    top = next((limit for limit in usual if low >= 0 and high <= limit), None)
    return (0.0, top) if top is not None else (low, max(high - low, 1e-30))


def _eight_bits(tile: Image.Image, low: float, top: float) -> np.ndarray:
    """Scale wide grayscale to uint8."""
    values = _finite(tile)
    if top > float(np.finfo(np.float32).max):
        values = values.astype(np.float64)
    values -= low
    return np.rint(values * (255.0 / top)).astype(np.uint8)
