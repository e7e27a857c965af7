"""Which images validate and which test, where the source does not say so: by a hash of their content."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from unfreeze.models.reading.labels import matrix_of
from unfreeze.models.reading.split_words import PARTS, Part
from unfreeze.models.reading.stratification import stratify


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
    units: Mapping[str, int],
    valid_fraction: float,
    test_fraction: float,
    seed: int,
    earlier: Mapping[str, str],
) -> dict[str, Part]:
    """Content -> ``test`` or ``valid``, of images with several labels each, or in groups; see `stratify`.

    Parameters
    ----------
    labels
        Content -> its labels.
    units
        Content -> what stays on one side, see `groups.units_of`.
    valid_fraction, test_fraction, seed, earlier
        See `models.images.index.build_index`; what was somewhere stays there, and trains if it was on several sides.
    """
    members: dict[int, list[str]] = defaultdict(list)
    for content in sorted(labels, key=lambda content: _hashed(f"{seed}:{content}")):
        members[units[content]].append(content)
    # Large groups first: small ones fill up what they leave.
    dealt = sorted(members.values(), key=len, reverse=True)
    names = sorted({label for each in labels.values() for label in each})
    marks = np.array([matrix_of([labels[content] for content in each], names).sum(0) for each in dealt])
    sides = PARTS if test_fraction else PARTS[:2]
    # As above: a share of what the test leaves validates.
    valid = valid_fraction * (1 - test_fraction)
    shares = [1 - valid - test_fraction, valid, test_fraction][: len(sides)]
    before = [{sides.index(earlier[each]) for each in unit if earlier.get(each) in sides} for unit in dealt]
    fixed = np.array([min(each, default=-1) for each in before], dtype=np.int64)
    found = stratify(marks, shares, fixed, np.array([len(each) for each in dealt]))
    return {content: sides[side] for unit, side in zip(dealt, found, strict=True) if side for content in unit}


def _hashed(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
