"""Labels that differ in how they are written only."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from functools import cache


@cache
def spelling_key(label: str) -> str:
    """What spellings of one label share: case, blanks, hyphens, underscores and Unicode forms do not count.

    A single character is its own key: ``A`` and ``a`` are two letters.

    Examples
    --------
    >>> spelling_key("Golden_Retriever ") == spelling_key("golden retriever")
    True
    """
    text = unicodedata.normalize("NFKC", label).strip()
    if len(text) == 1:
        return text
    return re.sub(r"(?<=[^\W_])[\s_-]+(?=[^\W_])", " ", text).casefold()


def spelled_differently(labels: Iterable[str]) -> list[list[str]]:
    """Groups of labels with the same key, sorted."""
    groups: dict[str, set[str]] = defaultdict(set)
    for label in labels:
        groups[spelling_key(label)].add(label)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)
