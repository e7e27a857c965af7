"""How images must be prepared for a set of pretrained weights."""

from dataclasses import dataclass
from typing import Literal

Interpolation = Literal["bilinear", "bicubic"]
PerChannel = tuple[float, float, float]


@dataclass(frozen=True)
class Preprocessing:
    """How images must be prepared for a set of pretrained weights.

    Attributes
    ----------
    mean, std : tuple of three float
        Per channel (red, green, blue), for pixel values from 0 to 1.
    interpolation : {"bilinear", "bicubic"}
        How training images were resized.
    size : int
        Side of the training images in pixels.
    """

    mean: PerChannel
    std: PerChannel
    interpolation: Interpolation
    size: int


class SizeError(ValueError):
    """A network cannot be built for the size of images that was asked for; says why in one line."""
