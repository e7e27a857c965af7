"""Folder names and column values that denote a split: train, valid, test."""

import re
from functools import cache
from typing import Literal, NamedTuple

Part = Literal["train", "valid", "test"]
PARTS: tuple[Part, ...] = ("train", "valid", "test")

_WORDS: dict[str, Part] = {
    "train": "train",
    "training": "train",
    "trn": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "dev": "valid",
    "test": "test",
    "testing": "test",
    "tst": "test",
    "holdout": "test",
}
_GLUED = re.compile(rf"({'|'.join(_WORDS)})(?=(set|data|images|imgs)\b)", re.IGNORECASE)
_BETWEEN = re.compile(r"([\W_]+|(?<=[a-z])(?=[A-Z])|(?<=[^\W\d])(?=\d)|(?<=\d)(?=[^\W\d]))")
"""Word boundaries: blanks, punctuation, a change to a capital letter, or between letters and digits."""


class SplitWord(NamedTuple):
    """Split word in a longer name.

    Attributes
    ----------
    part
        Split that the word denotes.
    rest
        The name without it.
    """

    part: Part
    rest: str


def part_of(word: str) -> Part | None:
    """The split that a word denotes, ignoring case (``Training`` is train), or None."""
    return _WORDS.get(word.strip().casefold())


@cache
def split_word_in(name: str) -> SplitWord | None:
    """Find the only split word in a name of several words, such as ``seg_train``, ``imagesTrain`` or ``valset``.

    None if there is no split word, or more than one (``train_val``).
    """
    pieces = _BETWEEN.split(_GLUED.sub(r"\1 ", name))
    places = [place for place, piece in enumerate(pieces) if part_of(piece) is not None]
    if len(places) != 1:
        return None
    rest = "".join(pieces[: places[0]] + pieces[places[0] + 1 :])
    return SplitWord(_WORDS[pieces[places[0]].casefold()], re.sub(r"([ _.-])[ _.-]+", r"\1", rest).strip(" _.-"))
