"""Images as the pages show them: the square that a network sees, and arrays of values as images."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from unfreeze.models.images.pixels.bit_depth import Ranges
from unfreeze.models.images.pixels.decode import Fit, Interpolation, UnreadableImage, make_square, read_image


def square_jpeg(
    path: Path, largest: int, fit: Fit, interpolation: Interpolation, max_megapixels: float, ranges: Ranges
) -> bytes | None:
    """The square that the network sees, with the image's own pixels up to `largest`; None if it is no longer there."""
    try:
        image = read_image(path, max_megapixels, largest, ranges)
    except (UnreadableImage, OSError):
        return None
    side = min(largest, *image.size)
    encoded = io.BytesIO()
    Image.fromarray(make_square(image, side, fit, interpolation)).save(encoded, "JPEG", quality=88, optimize=True)
    return encoded.getvalue()


def png(pixels: np.ndarray) -> bytes:
    """Pixels (H, W) or (H, W, 3) uint8 as a PNG."""
    encoded = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(encoded, "PNG", optimize=True)
    return encoded.getvalue()
