"""The words by which folders and columns say what rows are for."""

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
    """Which part of a data set a word means, in any case: ``Training`` is train. None if it means none."""
    return _WORDS.get(word.strip().casefold())
