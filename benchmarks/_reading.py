"""What a case of `benchmarks.reading` is: files as people have them, and how the product reads them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Outcome = Literal["right", "said", "refused", "wrong"]
"""Right: read as meant. Said: a guess, right or not, that the user is told of. Refused: a `UserError` that says what to
do. Wrong: misread in silence."""


@dataclass(frozen=True)
class Case:
    """A file, folder or table that somebody might have."""

    kind: str
    """The row of the table that it counts in."""
    name: str
    read: Callable[[Path], Outcome]
    """Write the case into an empty folder, let the product read it, and judge the result."""
    allowed: tuple[Outcome, ...] = ("right",)
    """Ends that are good: where there is one right reading, it is asked for."""
