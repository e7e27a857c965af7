"""Images with more than 8 bits per sample: their values, and their black and white levels.

Cameras and scanners store 10, 12 or 14 bits in 16-bit files, and floats and signed integers have no natural range, so
the levels are derived from the data set. They are stored with the model, which then reads images as in training.
"""

import re
from collections.abc import Iterable, Mapping
from io import BytesIO
from typing import IO, NamedTuple, Self

import numpy as np
from PIL import Image, ImageFile
from PIL.TiffImagePlugin import TiffImageFile

Box = tuple[int, int, int, int]
Ranges = Mapping[str, tuple[float, float]]
"""``integer`` or ``float`` -> black and white levels."""

_PHOTOMETRIC, _GDAL_NODATA = 0x0106, 0xA481
_COLOUR = re.compile(r"RGB[AX]?;16[BLN]")
_SWAPPED = {"B": "L", "L": "B", "N": "B"}  # N: native, little-endian
_DEFECTIVE = 1e-4
"""Share of the lowest and of the highest pixels that is ignored as sensor defects."""
_ENOUGH = 1_000
"""Below this number of pixels, none is ignored."""
_FULL = (0.0, 65535.0)


class Samples(NamedTuple):
    """Kind of an image's values, ``integer`` or ``float``, and their range."""

    kind: str
    low: float
    high: float


class DeepPixels:
    """Values of an image with more than 8 bits per sample.

    Pillow returns only the high bytes of 16-bit colours; a second decoder with swapped byte order returns the low ones.
    """

    def __init__(self, image: ImageFile.ImageFile, low: ImageFile.ImageFile | None) -> None:
        self._image, self._low = image, low
        tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
        self.kind = "float" if image.mode == "F" else "integer"
        self._white_is_zero = tags.get(_PHOTOMETRIC) == 0
        self._missing = _number(tags.get(_GDAL_NODATA))

    @classmethod
    def of(cls, image: ImageFile.ImageFile, file: IO[bytes]) -> Self | None:
        """Wrap an image opened from `file` and not yet loaded; None if it has 8 bits per sample."""
        mode = raw_mode(image)
        if _COLOUR.fullmatch(mode):
            place = file.tell()
            file.seek(0)
            low: ImageFile.ImageFile = type(image)(BytesIO(file.read()))
            file.seek(place)
            _decode_as(low, mode[:-1] + _SWAPPED[mode[-1]])
            return cls(image, low)
        if (
            isinstance(image, TiffImageFile)
            and image.tile[0].codec_name == "libtiff"
            and re.fullmatch(r"(I;16|I;32|F;32)B[SF]", mode)
        ):
            _decode_as(image, mode.replace("B", "N"))  # libtiff has already swapped the bytes
        return cls(image, None) if image.mode in ("I", "F") or image.mode.startswith("I;16") else None

    def samples(self, boxes: Iterable[Box]) -> Samples:
        """Range of the image's values, ignoring a few defective pixels."""
        count = self._image.width * self._image.height
        ignored = max(1, int(count * _DEFECTIVE)) if count >= _ENOUGH else 0
        lows, highs = [], []
        for box in boxes:
            values = self.values(box)
            values = values[..., :3] if values.ndim == 3 else values
            ordered = np.sort(values[np.isfinite(values)])
            lows.append(ordered[: ignored + 1].copy())  # a view would keep the whole tile alive
            highs.append(ordered[-ignored - 1 :].copy())
        ends = np.sort(np.concatenate(lows)), np.sort(np.concatenate(highs))
        low, high = (ends[0][ignored], ends[1][-ignored - 1]) if len(ends[0]) > ignored else (0, 0)
        return Samples(self.kind, float(low), float(high))

    def values(self, box: Box) -> np.ndarray:
        """Gray values (H, W), or colours with optional alpha (H, W, 3 or 4); NaN for missing values."""
        values: np.ndarray = np.asarray(self._image.crop(box))
        if self._low is not None:
            values = values.astype(np.uint16) << 8 | np.asarray(self._low.crop(box))
        if self.kind == "float" or self._missing is not None:
            values = values.astype(np.float32 if self.kind == "float" else np.float64)
            missing = np.float32(self._missing) if self._missing is not None else np.nan
            values[~np.isfinite(values) | (values == missing)] = np.nan
        return values

    def eight_bits(self, box: Box, ends: tuple[float, float]) -> Image.Image:
        """Convert a box of the image to 8 bits, with `ends` as black and white levels."""
        values, (low, high) = self.values(box), ends
        if values.ndim == 3 and values.shape[2] == 4 and values[..., 3].max() > high:
            # Alpha may use all 16 bits even if the colours do not.
            opacity = _scaled(values[..., 3:], *_FULL)
            return Image.fromarray(np.concatenate([_scaled(values[..., :3], low, high), opacity], axis=-1))
        scaled = _scaled(values, low, high)
        return Image.fromarray(255 - scaled if self._white_is_zero else scaled)


def ranges_of(
    samples: Iterable[Samples | None], given: tuple[float, float] | None = None
) -> dict[str, tuple[float, float]]:
    """Determine the black and white levels of a data set, for each kind of values in it.

    Unsigned integers range from 0 to the largest value of the fewest bits that hold them: 4095 for 12 bits. Floats from
    0 to about 1, or to about 255, have that range; all others the range of their values.

    Parameters
    ----------
    samples
        Of every image; None for 8 bits.
    given
        Range to use instead.
    """
    found: dict[str, tuple[float, float]] = {}
    for each in samples:
        if each is not None:
            low, high = found.get(each.kind, (each.low, each.high))
            found[each.kind] = (min(low, each.low), max(high, each.high))
    return {kind: given or _rounded(kind, *ends) for kind, ends in sorted(found.items())}


def range_for(samples: Samples) -> tuple[float, float] | None:
    """Range that an image's values determine unambiguously, or None."""
    low, high = _rounded(*samples)
    is_usual = (low, high) in ((0.0, 1.0), (0.0, 255.0)) if samples.kind == "float" else (low, high) == _FULL
    return (low, high) if is_usual else None


def _rounded(kind: str, low: float, high: float) -> tuple[float, float]:
    if low < 0:
        return low, high
    if kind == "integer":
        return 0.0, float(2 ** max(1, int(high).bit_length()) - 1)
    return next(((0.0, top) for top in (1.0, 255.0) if top / 4 < high <= top), (low, high))


def _scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Scale values to uint8: values beyond the range are clipped, missing ones black."""
    # float32 would overflow on the range of extreme floats, and cannot hold 32-bit integers exactly.
    exact = np.float32 if max(abs(low), abs(high)) < 2**24 and values.dtype.itemsize <= 2 else np.float64
    clipped = np.nan_to_num(np.clip(values.astype(exact), low, high), nan=low)
    levels: np.ndarray = np.rint((clipped - exact(low)) * exact(255 / max(high - low, 1e-30))).astype(np.uint8)
    return levels


def _number(text: object) -> float | None:
    try:
        return float(str(text).strip("\0 "))
    except ValueError:
        return None


def raw_mode(image: ImageFile.ImageFile) -> str:
    """Raw mode of the samples in the file; empty if the format does not state it."""
    arguments = image.tile[0].args if image.tile else ""
    mode = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return mode if isinstance(mode, str) else ""


def _decode_as(image: ImageFile.ImageFile, mode: str) -> None:
    image.tile = [
        tile._replace(args=(mode, *tile.args[1:]) if isinstance(tile.args, tuple) else mode) for tile in image.tile
    ]
