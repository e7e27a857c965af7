"""What a step found out: metrics, tables, texts and figures, for whoever keeps or shows them."""

from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from matplotlib.figure import Figure


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
        (key, title, rows) for people.
    figures : dict
        Path -> (title, figure).
    notices, lines : list of str
        What a person must read, and what a log keeps.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    frames: dict[str, pd.DataFrame] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    tables: list[tuple[str, str, list[dict[str, Any]]]] = field(default_factory=list)
    figures: dict[str, tuple[str, Figure]] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

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

    def figure(self, path: str, title: str, figure: Figure) -> None:
        """Show a figure and keep it as a PNG file."""
        self.figures[path] = (title, figure)

    def add(self, other: "Findings") -> None:
        """Take over everything that `other` holds."""
        for name, values in vars(other).items():
            mine = getattr(self, name)
            mine.update(values) if isinstance(mine, dict) else mine.extend(values)
