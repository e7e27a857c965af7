"""What each step found, kept with the run as JSON, from which a report can be made again."""

import base64
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unfreeze.models.evaluation.results import Card, Chart, Counts, Findings, Gain
from unfreeze.tasks import tracking
from unfreeze.tasks.machine.notices import log_notice

FOLDER = "report"
"""Artifact folder of the parts."""
MOST_ROWS = 200
"""Rows that a part keeps of a table; frames among the artifacts have all."""


@dataclass
class Part:
    """What a report shows of a step; see `Findings`.

    Attributes
    ----------
    figures
        Path of a PNG file below the run's artifacts -> title.
    tables
        (key, title, rows, number of all rows).
    texts
        Paths of text files below the run's artifacts.
    """

    figures: dict[str, str] = field(default_factory=dict)
    tables: list[tuple[str, str, list[dict[str, Any]], int]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    gains: list[Gain] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    counts: list[Counts] = field(default_factory=list)
    cards: list[Card] = field(default_factory=list)


def keep_part(run_id: str, name: str, found: Findings) -> None:
    """Keep what a report shows of findings; `name` is that of the step: ``valid``."""
    kept = {
        "figures": {path: title for path, (title, _) in found.figures.items()},
        "tables": [(key, title, rows[:MOST_ROWS], len(rows)) for key, title, rows in found.tables],
        "texts": list(found.texts),
        "notices": found.notices,
        "lines": found.lines,
        "gains": found.gains,
        "charts": found.charts,
        "counts": found.counts,
        "cards": [each._replace(image=_text(each.image), overlay=_text(each.overlay)) for each in found.cards],
    }
    tracking.log_text(run_id, json.dumps(kept, default=_plain), f"{FOLDER}/{name}.json")


def parts_of(run_id: str) -> dict[str, Part]:
    """Every part that the run has, by its step's name."""
    found = {}
    for path in tracking.artifacts(run_id, FOLDER):
        local = tracking.fetch(run_id, path)
        if local is None or not path.endswith(".json"):
            continue
        try:
            part = _read(json.loads(local.read_text()))
        except (ValueError, TypeError, KeyError) as error:
            log_notice(f"warning: {path} of run {run_id} is damaged ({error}); the report lacks it")
            continue
        found[path.removeprefix(f"{FOLDER}/").removesuffix(".json")] = part
    return found


def _read(kept: dict[str, Any]) -> Part:
    part = Part(**kept)
    part.gains = [Gain(*values) for values in part.gains]
    part.charts = [Chart(*values) for values in part.charts]
    part.counts = [Counts(*values) for values in part.counts]
    part.cards = [Card(title, facts, _bytes(image), _bytes(over)) for title, facts, image, over in kept["cards"]]
    return part


def _text(content: bytes | None) -> Any:
    return None if content is None else base64.b64encode(content).decode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)


def _plain(value: Any) -> Any:
    """What JSON has no type for: numbers of numpy as numbers, everything else as text."""
    if isinstance(value, np.generic):
        return value.item()
    return value.tolist() if isinstance(value, np.ndarray) else str(value)
