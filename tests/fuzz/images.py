"""Image files: whatever their bytes are, they are decoded or refused, alike by the index and by the cache."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from tests.fuzz.endings import Kind
from tests.fuzz.mutations import near
from unfreeze.models.images.pixels.bit_depth import ranges_of
from unfreeze.models.images.pixels.decode import UnreadableImage, check_image, make_square, read_image

MEGAPIXELS = 0.5
SIZE = 16


def seeds() -> Iterator[bytes]:
    """A small image of every format and colour mode that is read."""
    generator = np.random.default_rng(0)
    noise = Image.fromarray(generator.integers(0, 256, (12, 15, 4), np.uint8), "RGBA")
    exif = Image.Exif()
    exif[0x0112] = 6
    settings = [
        ("JPEG", "RGB", {"exif": exif}),
        ("JPEG", "RGB", {"progressive": True}),
        *(("JPEG", mode, {}) for mode in ("L", "CMYK")),
        *(("PNG", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
        ("PNG", "RGB", {"exif": exif}),
        ("GIF", "P", {}),
        ("GIF", "P", {"save_all": True, "append_images": [noise.convert("P").rotate(90)]}),
        *(("WEBP", mode, {"lossless": lossless}) for mode in ("RGB", "RGBA") for lossless in (False, True)),
        *(("BMP", mode, {}) for mode in ("1", "L", "P", "RGB")),
        *(("TIFF", mode, {}) for mode in ("1", "L", "RGB", "CMYK", "I;16", "F")),
        *(("TIFF", "RGB", {"compression": name}) for name in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg")),
        ("PPM", "RGB", {}),
        ("JPEG2000", "RGB", {}),
        ("AVIF", "RGB", {}),
    ]
    for form, mode, options in settings:
        content = io.BytesIO()
        image = noise.convert("L").convert(mode) if mode == "I;16" else noise.convert(mode)
        try:
            image.save(content, form, **options)
        except (KeyError, OSError):  # Pillow was built without it
            continue
        yield content.getvalue()


def run(case: bytes, folder: Path) -> str | None:
    """Check it as the index does, and read it as caches and predictors do."""
    path = folder / "image"
    path.write_bytes(case)
    facts = image = why_not_checked = why_not_read = None
    try:
        facts = check_image(path, MEGAPIXELS)
    except UnreadableImage as error:
        why_not_checked = f"{path}: {error}"
    try:
        ranges = ranges_of([facts.samples if facts is not None else None])
        image = read_image(path, MEGAPIXELS, at_least=SIZE, ranges=ranges)
    except UnreadableImage as error:
        why_not_read = f"{path}: {error}"
    assert (why_not_checked is None) == (why_not_read is None), f"index: {why_not_checked}; cache: {why_not_read}"
    if image is None or facts is None:
        return why_not_checked
    assert facts[:2] == image.size or max(image.size) < max(facts[:2])
    for fit in ("crop", "squish", "pad"):
        square = make_square(image, SIZE, fit, "bilinear")
        assert square.shape == (SIZE, SIZE, 3)
    return None


KIND = Kind("image files", near(list(seeds())), run, share=30)
