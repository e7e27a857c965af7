"""Multi-label text: joining and splitting labels, and interpreting hand-written label columns."""

import ast
import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Literal, NamedTuple

import numpy as np

from unfreeze.models.errors import UserError

SEPARATOR = "|"
"""Joins the labels of a row in an index, in predictions and in figures."""
SEPARATORS = {"|": "|", ";": ";", ",": ",", "space": " "}
"""Label separators, in the order in which they are tried for texts that are said to hold several labels."""
Labels = Literal["auto", "single", "multiple"]


class Understood(NamedTuple):
    """Interpretation of a label column.

    Attributes
    ----------
    labels
        Sorted labels of every row; None if every text is one label.
    how
        Explanation in one sentence; empty if obvious.
    """

    labels: list[tuple[str, ...]] | None
    how: str


def join(labels: Iterable[str]) -> str:
    """Join labels into one text: sorted, without duplicates; empty if there are no labels."""
    return SEPARATOR.join(sorted(set(labels)))


def split(text: str) -> list[str]:
    """Split a text that `join` returned."""
    return text.split(SEPARATOR) if text else []


def matrix_of(labels: Sequence[Sequence[str]], names: Sequence[str]) -> np.ndarray:
    """Indicator matrix of the L `names`, (N, L) bool."""
    place = {name: number for number, name in enumerate(names)}
    marks = np.zeros((len(labels), len(names)), dtype=bool)
    for row, found in enumerate(labels):
        marks[row, [place[str(label)] for label in found]] = True
    return marks


def understand(texts: Sequence[str], labels: Labels, separator: str | None, setting: str) -> Understood:
    """Decide whether each text holds one label or several, and read them.

    The default is one label per row. Texts are lists (``["cat", "indoor"]``) only if all of them are. A ``|`` always
    separates labels.

    Parameters
    ----------
    texts
        One per row; empty for no label.
    labels
        ``single`` and ``multiple`` override the guess.
    separator
        Label separator, overriding the guess.
    setting
        Name of the setting of `labels`, for errors.

    Raises
    ------
    UserError
        If a label contains the character that joins labels in results.
    """
    if labels == "single":
        return Understood(None, "")
    counts = Counter(filter(None, texts))
    if separator is not None:
        return _split(texts, separator, setting)
    lists = {text: list_in(text) for text in counts}
    if any(text.startswith("{") and lists[text] is not None for text in counts):
        lists = {text: [text] if found is None else found for text, found in lists.items()}
    if counts and all(each is not None for each in lists.values()):
        return _several([lists.get(text) or [] for text in texts], "lists", setting)
    found = next((name for name in SEPARATORS if any(len(parts(text, name)) > 1 for text in counts)), "space")
    if found == SEPARATOR or labels == "multiple":
        return _split(texts, found, setting)
    return Understood(None, _taken_whole(counts, setting))


def _split(texts: Sequence[str], separator: str, setting: str) -> Understood:
    return _several([parts(text, separator) for text in texts], f"separated by {_shown(separator)}", setting)


def _several(labels: Sequence[Sequence[str]], how: str, setting: str) -> Understood:
    for label in {each for row in labels for each in row}:
        if SEPARATOR in label:
            raise UserError(f"{setting}: the label {label!r} holds {SEPARATOR!r}, which separates labels; rename it")
    sets = [tuple(sorted(set(row))) for row in labels]
    longest = max(sets, key=len, default=())
    note = f"any number of labels per image, {how}, such as {', '.join(longest[:4])}"
    return Understood(sets, f"{note}; `--{setting} single` takes each text as one class")


def _shown(separator: str) -> str:
    return "spaces" if SEPARATORS.get(separator, separator) == " " else f"`{separator}`"


def parts(text: str, separator: str) -> list[str]:
    """Split a text at a separator, a key of `SEPARATORS` or any text; empty parts are dropped."""
    between = SEPARATORS.get(separator, separator)
    found = text.split() if between == " " else [part.strip() for part in text.split(between)]
    return [part for part in found if part]


def list_in(text: str) -> list[str] | None:
    """Parse a JSON or Python list of labels, also as the only value of an object; None for other text."""
    if not (text.startswith(("[", "{")) and text.endswith(("]", "}"))):
        return None
    try:
        found = json.loads(text)
    except ValueError:
        try:
            found = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    if isinstance(found, dict) and len(found) == 1:  # {"choices": ["cat"]}, beside cells of one label as plain text
        (found,) = found.values()
    if not isinstance(found, list) or not all(isinstance(each, str | int | float) for each in found):
        return None
    return [label for each in found if (label := str(each).strip())]


def _taken_whole(counts: Counter[str], setting: str) -> str:
    """Hint that the texts could be several labels each."""
    for name in SEPARATORS:
        text = next((text for text in counts if len(parts(text, name)) > 1), None)
        if text is not None:
            return f"one label per image, such as {text!r}; `--{setting} multiple` splits them at {_shown(name)}"
    return ""


_MOST = 5
_SIZE = re.compile(r"\b\d[\d,.x]*(?= (megapixels|pixels|GB)\b)")


def kind_of_reason(reason: str) -> str:
    """A rejection reason without its file-specific detail: the part before the colon."""
    sizeless = _SIZE.sub("N", reason)
    return sizeless if sizeless != reason else reason.partition(": ")[0]


def count_reasons(kinds: Iterable[str]) -> str:
    """List the commonest kinds of reasons with their counts: ``not an image (12), zero bytes (1)``.

    Examples
    --------
    >>> count_reasons(["zero bytes", "not an image", "zero bytes"])
    'zero bytes (2), not an image (1)'
    """
    counts = Counter(kinds).most_common()
    more = f" and {len(counts) - _MOST} more reasons" if len(counts) > _MOST else ""
    return ", ".join(f"{kind} ({count:,})" for kind, count in counts[:_MOST]) + more


@cache
def spelling_key(label: str) -> str:
    """Key shared by all spellings of a label: ignores case, blanks, hyphens, underscores and Unicode forms.

    A single character is its own key: ``A`` and ``a`` differ.

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
    """Group labels that share a spelling key, sorted."""
    groups: dict[str, set[str]] = defaultdict(set)
    for label in labels:
        groups[spelling_key(label)].add(label)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)
