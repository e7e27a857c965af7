"""Names of folders and values of columns that stand for a part of a data set."""

from typing import Literal

Part = Literal["train", "valid", "test"]

_WORDS: dict[str, Part] = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "dev": "valid",
    "test": "test",
    "testing": "test",
}


def part_of(word: str) -> Part | None:
    """The part of a data set that a word stands for, ignoring case: ``Training`` is train; else None."""
    return _WORDS.get(word.strip().casefold())
