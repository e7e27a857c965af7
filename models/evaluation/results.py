"""Results of a step as data: metrics, tables, texts, figures and charts, independent of where they are shown."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from unfreeze.models.errors import one_line


class Gain(NamedTuple):
    """Improvement that one part of a training made: a metric of two models on the same rows.

    Attributes
    ----------
    what
        The part: ``fine-tuning``, ``TTA``.
    before, after
        The metric without it and with it.
    low, high
        95 % interval of the improvement, which is positive where `after` is better, whatever the metric's direction.
    rows
        How many rows both predicted.
    split
        Which rows those are: ``valid`` or ``test``.
    """

    what: str
    metric: str
    before: float
    after: float
    improvement: float
    low: float
    high: float
    rows: int
    split: str = "valid"


class Chart(NamedTuple):
    """Lines to draw.

    Attributes
    ----------
    lines
        Name -> (x, y), each (n,).
    log
        Logarithmic axes: ``x``, ``y``, ``xy`` or none.
    identity
        Whether to draw the line on which y equals x.
    marks
        Name -> x of a vertical line.
    replaces
        Path of a figure that shows the same.
    """

    title: str
    x: str
    y: str
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    log: str = ""
    identity: bool = False
    marks: Mapping[str, float] = {}
    replaces: str = ""


class Counts(NamedTuple):
    """A matrix of counts (C, C), rows actual and columns predicted, with the names of both.

    `replaces` is the path of a figure that shows the same.
    """

    title: str
    names: Sequence[str]
    counts: Sequence[Sequence[int]]
    replaces: str = ""


class Card(NamedTuple):
    """A row that is worth a look: facts by name, and for images the image (JPEG) and what lies over it (PNG)."""

    title: str
    facts: Mapping[str, str]
    image: bytes | None = None
    overlay: bytes | None = None


@dataclass
class Findings:
    """Results of describing or evaluating, by artifact path; MLflow keeps them, a notebook displays them.

    Attributes
    ----------
    metrics : dict
        ``SECTION/NAME`` -> value.
    frames, texts : dict
        Path below a run's artifacts -> table or text.
    tables : list of tuple
        (key, title, rows) to show.
    figures : dict
        Path -> (title, what draws the figure).
    later : dict
        Name -> what adds more to show, see `complete`.
    notices, lines : list of str
        What a person must read, and what a log keeps.
    gains : list of Gain
        Improvements by parts of the training.
    charts, counts : list
        Drawn by the report.
    cards : list of Card
        Rows with the worst errors.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    frames: dict[str, pd.DataFrame] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    tables: list[tuple[str, str, list[dict[str, Any]]]] = field(default_factory=list)
    figures: dict[str, tuple[str, Callable[[], Figure]]] = field(default_factory=dict)
    later: dict[str, Callable[["Findings"], None]] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    gains: list[Gain] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    counts: list[Counts] = field(default_factory=list)
    cards: list[Card] = field(default_factory=list)

    def frame(self, path: str, frame: pd.DataFrame) -> None:
        """Keep a table as a file."""
        self.frames[path] = frame

    def text(self, path: str, text: str) -> None:
        """Keep a text as a file."""
        self.texts[path] = text

    def table(self, key: str, title: str, rows: pd.DataFrame | list[dict[str, Any]]) -> None:
        """Show a table."""
        records = rows.to_dict("records") if isinstance(rows, pd.DataFrame) else rows
        self.tables.append((key, title, [{str(name): value for name, value in row.items()} for row in records]))

    def figure(self, path: str, title: str, draw: Callable[[], Figure]) -> None:
        """Show a figure, which is drawn when it is needed, and keep it as a PNG file."""
        self.figures[path] = (title, draw)

    def complete(self) -> None:
        """Add what is only shown, so that it can wait until a model is registered; what fails is a notice."""
        for name, add in self.later.items():
            try:
                add(self)
            except Exception as error:
                self.notices.append(f"warning: {name}: {type(error).__name__}: {one_line(error)}; the rest is shown")
        self.later = {}

    def add(self, other: "Findings") -> None:
        """Take over everything that `other` holds."""
        for name, values in vars(other).items():
            mine = getattr(self, name)
            mine.update(values) if isinstance(mine, dict) else mine.extend(values)


class Tile(NamedTuple):
    """An image (PNG or JPEG, as `kind` says), and what lies over it (PNG)."""

    caption: str
    image: bytes
    kind: str = "png"
    overlay: bytes | None = None


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
    tiles, bars
        What is drawn; tiles of `tile_width` pixels.
    rows
        A table.
    """

    key: str
    title: str
    text: str = ""
    tiles: list[Tile] = field(default_factory=list)
    tile_width: int = 220
    bars: list[Bar] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Explanation:
    """Sections, the lines above them, and what a person must read."""

    lines: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
