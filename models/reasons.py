"""Why files or rows cannot be used, counted for people."""

import re
from collections import Counter
from collections.abc import Iterable

_MOST = 5
_SIZE = re.compile(r"\b\d[\d,.x]*(?= (megapixels|pixels|GB)\b)")


def kind_of_reason(reason: str) -> str:
    """A reason without what differs from file to file: ``truncated or damaged: ...`` without what follows the colon."""
    sizeless = _SIZE.sub("N", reason)
    return sizeless if sizeless != reason else reason.partition(": ")[0]


def count_reasons(kinds: Iterable[str]) -> str:
    """The commonest kinds of reasons with their counts: ``not an image (12), zero bytes (1)``.

    Examples
    --------
    >>> count_reasons(["zero bytes", "not an image", "zero bytes"])
    'zero bytes (2), not an image (1)'
    """
    counts = Counter(kinds).most_common()
    more = f" and {len(counts) - _MOST} more reasons" if len(counts) > _MOST else ""
    return ", ".join(f"{kind} ({count:,})" for kind, count in counts[:_MOST]) + more
