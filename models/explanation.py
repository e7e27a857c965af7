"""What explains a model's answers, for one page: sections of images, sums, bars and tables."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Tile(NamedTuple):
    """An image (PNG or JPEG, as `kind` says), and what lies over it (PNG)."""

    caption: str
    image: bytes
    kind: str = "png"
    overlay: bytes | None = None


class Sum(NamedTuple):
    """One pixel of a convolution: patch, kernel and products (3, 3) as texts, their sum, and where it is placed."""

    title: str
    patch: Sequence[Sequence[str]]
    kernel: Sequence[Sequence[str]]
    products: Sequence[Sequence[str]]
    total: str
    placed: str
    result: Tile


class Bar(NamedTuple):
    """A value with its standard deviation; those of a section share one scale."""

    name: str
    value: float
    deviation: float | None = None


@dataclass
class Section:
    """Part of the page.

    Attributes
    ----------
    key
        Its anchor.
    title, text
        Heading, and how to read what follows.
    tiles, sums, bars
        What is drawn; tiles of `tile_width` pixels.
    rows
        A table.
    """

    key: str
    title: str
    text: str = ""
    tiles: list[Tile] = field(default_factory=list)
    tile_width: int = 220
    sums: list[Sum] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Explanation:
    """Sections, the lines above them, and what a person must read."""

    lines: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
