"""One picture file in, upright 8-bit RGB pixels out, or a plain reason why not."""

import io
import os
import re
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from models.regular_files import irregular_kind

Fit = Literal["crop", "squish", "pad"]
Interpolation = Literal["bilinear", "bicubic", "lanczos", "nearest"]

Item = TypeVar("Item")
Result = TypeVar("Result")

# All plugins are imported here, once: PIL otherwise imports them on first use, inside the decoding threads.
Image.init()
# The limit is `data.max_megapixels`, checked below from the header; PIL's own would warn or raise at another size.
Image.MAX_IMAGE_PIXELS = None

# Only these are tried. Others are rare as photos, and opening EPS would start Ghostscript on a file from anywhere.
_FORMATS = tuple(
    name
    for name in ("JPEG", "MPO", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO")
    if name in Image.OPEN
)
_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "HSV", "I", "F"}
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF")
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SMALLEST_SIDE = 4
_RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}
_QUIET = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


class UnreadablePicture(Exception):
    """A file that cannot be used as a picture; the message is the reason, without the file's name."""


def read_picture(path: Path | io.BytesIO, max_megapixels: float, at_least: int | None = None) -> Image.Image:
    """Decode a picture upright, as 8-bit RGB.

    Animations give their first frame; transparency is composited over white; 16-bit, 32-bit and float grayscale is
    scaled to 8 bits. Safe to call from several threads.

    Parameters
    ----------
    path
        The file, or its bytes.
    max_megapixels
        Larger pictures are refused from their header, before anything is decoded.
    at_least
        The shorter side that the caller needs, in pixels. A JPEG may then be decoded at a half, a quarter or an
        eighth of its size (never below `draft_side(at_least)`), which is several times faster.

    Returns
    -------
    PIL.Image.Image
        In mode RGB, with the EXIF orientation applied.

    Raises
    ------
    UnreadablePicture
        With a plain reason: zero bytes, not a picture, truncated or damaged, too large, too small.
    """
    with _opened(path, max_megapixels) as image:
        if at_least is not None:
            side = draft_side(at_least)
            image.draft(None, (side, side))
        image.load()
        orientation = _orientation(image)
        picture = _to_rgb(image)
        return picture.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else picture


def check_picture(path: Path, max_megapixels: float) -> tuple[int, int]:
    """Verify that `read_picture` will succeed, as cheaply as reading the whole stream allows.

    Returns
    -------
    tuple of int
        Width and height as displayed, after the EXIF orientation.

    Raises
    ------
    UnreadablePicture
        As `read_picture` does.
    """
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
    """Resize a picture to a square, antialiased.

    Parameters
    ----------
    image
        In mode RGB.
    size
        Side of the square in pixels.
    fit
        `crop`: scale the shorter side to `size` and keep the centre; `squish`: ignore the aspect ratio;
        `pad`: scale the longer side to `size` and fill up with black.
    interpolation
        Name of the resampling filter.

    Returns
    -------
    numpy.ndarray
        uint8 of shape (size, size, 3), writable.
    """
    filter_ = _RESAMPLING[interpolation]
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
    with ThreadPoolExecutor(threads, thread_name_prefix="pictures") as pool:
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
def _opened(path: Path | io.BytesIO, max_megapixels: float) -> Iterator[Image.Image]:
    """Open with all header checks made; any failure inside the block becomes `UnreadablePicture`."""
    _silence_pil()
    try:
        if isinstance(path, Path) and (kind := irregular_kind(path)):
            raise UnreadablePicture(f"{kind}, not a file")
        size = path.getbuffer().nbytes if isinstance(path, io.BytesIO) else os.stat(path).st_size
        if size == 0:
            raise UnreadablePicture("zero bytes")
        with Image.open(path, formats=_FORMATS) as image:
            _check_header(image, max_megapixels)
            yield image
    except UnreadablePicture:
        raise
    except UnidentifiedImageError:
        start = path.getvalue()[:4] if isinstance(path, io.BytesIO) else path.open("rb").read(4)
        known = start.startswith(_SIGNATURES)
        raise UnreadablePicture("truncated or damaged: broken header" if known else "not a picture") from None
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise UnreadablePicture(f"cannot be read: {error.strerror}") from error
    except Exception as error:  # on damaged input PIL's decoders raise almost anything
        detail = str(error).strip() or type(error).__name__
        raise UnreadablePicture(f"truncated or damaged: {detail}") from error


def _check_header(image: Image.Image, max_megapixels: float) -> None:
    width, height = image.size
    megapixels = width * height / 1e6
    if megapixels > max_megapixels:
        raise UnreadablePicture(f"{megapixels:,.6g} megapixels exceed data.max_megapixels={max_megapixels:g}")
    if min(width, height) < _SMALLEST_SIDE:
        raise UnreadablePicture(f"{width}x{height} pixels: too small")
    if image.mode not in _MODES and not image.mode.startswith("I;16"):
        raise UnreadablePicture(f"colour mode {image.mode} is not supported")


def _silence_pil() -> None:
    # A process-wide filter, because `warnings.catch_warnings` is not safe in threads. It is looked up in every call,
    # because a test or another library may have reset the filters meanwhile.
    if _QUIET not in warnings.filters:
        warnings.filterwarnings("ignore", module=r"PIL\.")


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8, of a loaded image (PIL turns a TIFF by itself while loading)."""
    try:
        value: Any = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # damaged EXIF is no reason to lose the picture
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_eight_bits(np.asarray(image), image.mode)).convert("RGB")
    if image.has_transparency_data:
        opaque = image.convert("RGBA")
        white = Image.new("RGBA", opaque.size, "white")
        return Image.alpha_composite(white, opaque).convert("RGB")
    # A copy even where the mode is RGB already: the caller closes the file.
    return image.copy() if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(values: np.ndarray, mode: str) -> np.ndarray:
    """Scale wide grayscale to uint8 by the range of its type, or by its own range where the type's says nothing."""
    scaled = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(scaled.min()), float(scaled.max())
    usual = (1.0, 255.0) if mode == "F" else (65535.0,)
    top = next((limit for limit in usual if low >= 0 and high <= limit), None)
    if top is None:
        scaled -= low
        top = max(high - low, 1e-30)
    return np.rint(scaled * (255.0 / top)).astype(np.uint8)
