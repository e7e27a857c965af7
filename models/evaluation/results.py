"""Results of a step as data (metrics, tables, texts, figures, charts), independent of their display."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from unfreeze.models.errors import one_line


class Gain(NamedTuple):
    """Improvement by one part of a training: a metric of two models on the same rows.

    Attributes
    ----------
    what
        The part: ``fine-tuning``, ``TTA``.
    before, after
        The metric without and with it.
    low, high
        95 % interval of the improvement, which is positive if `after` is better in the metric's direction.
    rows
        Number of rows that both predicted.
    split
        Their split: ``valid`` or ``test``.
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
    """Line chart.

    Attributes
    ----------
    lines
        Name -> (x, y), each (n,).
    log
        Logarithmic axes: ``x``, ``y``, ``xy`` or none.
    identity
        Whether to draw the line y = x.
    marks
        Name -> x of a vertical line.
    replaces
        Path of the equivalent figure.
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
    """Matrix of counts (C, C), rows actual and columns predicted, with class names.

    `replaces` is the path of the equivalent figure.
    """

    title: str
    names: Sequence[str]
    counts: Sequence[Sequence[int]]
    replaces: str = ""


class Card(NamedTuple):
    """Notable row: facts by name, and for images the image (JPEG) and its overlay (PNG)."""

    title: str
    facts: Mapping[str, str]
    image: bytes | None = None
    overlay: bytes | None = None


@dataclass
class Displayed:
    """Results that a report displays as they are.

    Attributes
    ----------
    notices, lines : list of str
        Warnings for the user, and lines for the log.
    gains : list of Gain
        Improvements by parts of the training.
    charts, counts : list
        Drawn by the report.
    cards : list of Card
        Rows with the worst errors.
    """

    notices: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    gains: list[Gain] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    counts: list[Counts] = field(default_factory=list)
    cards: list[Card] = field(default_factory=list)


@dataclass
class Findings(Displayed):
    """Results of a description or evaluation, by artifact path; stored in MLflow, displayed in notebooks.

    Attributes
    ----------
    metrics : dict
        ``SECTION/NAME`` -> value.
    frames, texts : dict
        Path below a run's artifacts -> table or text.
    tables : list of tuple
        (key, title, rows) to show.
    figures : dict
        Path -> (title, function that draws the figure).
    later : dict
        Name -> function that adds results only for display, see `complete`.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    frames: dict[str, pd.DataFrame] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    tables: list[tuple[str, str, list[dict[str, Any]]]] = field(default_factory=list)
    figures: dict[str, tuple[str, Callable[[], Figure]]] = field(default_factory=dict)
    later: dict[str, Callable[["Findings"], None]] = field(default_factory=dict)

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
        """Show a figure, drawn on demand, and keep it as a PNG file."""
        self.figures[path] = (title, draw)

    def complete(self) -> None:
        """Add results only for display, deferred until a model is registered; failures become notices."""
        for name, add in self.later.items():
            try:
                add(self)
            except Exception as error:
                self.notices.append(f"warning: {name}: {type(error).__name__}: {one_line(error)}; the rest is shown")
        self.later = {}

    def add(self, other: "Findings") -> None:
        """Merge the contents of `other`."""
        for name, values in vars(other).items():
            mine = getattr(self, name)
            mine.update(values) if isinstance(mine, dict) else mine.extend(values)


class Tile(NamedTuple):
    """Image (PNG or JPEG, by `kind`) with an optional overlay (PNG)."""

    caption: str
    image: bytes
    kind: str = "png"
    overlay: bytes | None = None


class Bar(NamedTuple):
    """Value with its standard deviation; the bars of a section share one scale."""

    name: str
    value: float
    deviation: float | None = None


@dataclass
class Section:
    """Section of an explanation page.

    Attributes
    ----------
    key
        Its anchor.
    title, text
        Heading, and a reading guide.
    tiles, bars
        Images, and bars.
    rows
        A table.
    """

    key: str
    title: str
    text: str = ""
    tiles: list[Tile] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Explanation:
    """Explanation: sections, the lines above them, and warnings for the user."""

    lines: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
