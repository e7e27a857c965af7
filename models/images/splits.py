"""Which images validate and which test, where the source does not say so: by a hash of their content."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from unfreeze.models.label_sets import matrix_of
from unfreeze.models.split_words import Part
from unfreeze.models.stratification import stratify

_SIDES: tuple[Part, ...] = ("train", "valid", "test")


def draw_sides(
    contents: Mapping[str, set[str]], valid_fraction: float, test_fraction: float, seed: int, earlier: Mapping[str, str]
) -> dict[str, Part]:
    """Content -> ``test`` or ``valid``; each class gives its share of both.

    Parameters
    ----------
    contents
        Class -> hashes of its images.
    valid_fraction, test_fraction, seed, earlier
        See `models.images.index.build_index`.
    """
    drawn: dict[str, Part] = {}
    if test_fraction:
        drawn |= dict.fromkeys(_draw(contents, "test", test_fraction, 2, seed, earlier), "test")
    left = {label: distinct - drawn.keys() for label, distinct in contents.items()}
    return drawn | dict.fromkeys(_draw(left, "valid", valid_fraction, 1, seed, earlier), "valid")


def _draw(
    contents: Mapping[str, set[str]], side: Part, fraction: float, others: int, seed: int, earlier: Mapping[str, str]
) -> set[str]:
    """Contents of one side: its share of every class, of which at least as many `others` remain where there are."""
    salt = f"{seed}:" if side == "valid" else f"{side}:{seed}:"

    def draw(content: str) -> tuple[int, bytes]:
        # Known ones keep their side: those that were on this one come first, those that trained last.
        before = earlier.get(content)
        known = 1 if before is None else 0 if before == side else 2
        return known, _hashed(f"{salt}{content}")

    chosen: set[str] = set()
    for distinct in contents.values():
        wanted = max(1, round(fraction * len(distinct)))
        sides = Counter(earlier.get(content) for content in distinct)
        elsewhere = sum(sides.values()) - sides[side] - sides[None]
        # At least one on either side comes before anything else.
        count = min(max(wanted, sides[side]), max(len(distinct) - elsewhere, 1), len(distinct) - others)
        chosen.update(sorted(distinct, key=draw)[: max(count, 0)])
    return chosen


def deal_sides(
    labels: Mapping[str, Sequence[str]],
    valid_fraction: float,
    test_fraction: float,
    seed: int,
    earlier: Mapping[str, str],
) -> dict[str, Part]:
    """Content -> ``test`` or ``valid``, of images with several labels each; see `stratify`.

    Parameters
    ----------
    labels
        Content -> its labels.
    valid_fraction, test_fraction, seed, earlier
        See `models.images.index.build_index`; an image that was somewhere stays there.
    """
    contents = sorted(labels, key=lambda content: _hashed(f"{seed}:{content}"))
    names = sorted({label for each in labels.values() for label in each})
    marks = matrix_of([labels[content] for content in contents], names)
    sides = _SIDES if test_fraction else _SIDES[:2]
    # As above: a share of what the test leaves validates.
    valid = valid_fraction * (1 - test_fraction)
    shares = [1 - valid - test_fraction, valid, test_fraction][: len(sides)]
    before = [earlier.get(content) for content in contents]
    fixed = np.array([sides.index(side) if side in sides else -1 for side in before], dtype=np.int64)
    dealt = stratify(marks, shares, fixed)
    return {content: sides[side] for content, side in zip(contents, dealt, strict=True) if sides[side] != "train"}


def _hashed(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
