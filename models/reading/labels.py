"""Several labels of one row as text, and how text that a person wrote is understood."""

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
"""Between the labels of one row, wherever they are one text: in an index, in predictions, in figures."""
SEPARATORS = {"|": "|", ";": ";", ",": ",", "space": " "}
"""What may separate labels, in the order in which it is looked for; ``space`` is any white space."""
Labels = Literal["auto", "single", "multiple"]
_RECURRING, _REORDERED, _REPEATED = 0.9, 0.1, 0.01
"""Shares of the rule of `understand`: parts in several texts, texts in another order, those with a part twice."""
_LENGTHS, _COMMON, _EXTENDED, _COMBINED = 3, 0.02, 0.5, 2
"""Of white space: numbers of words that occur, in what share of the rows at least; texts that are another one with one
word more, as a share; texts per word."""


class Understood(NamedTuple):
    """How the texts of one column were understood.

    Attributes
    ----------
    labels
        Of every row, sorted; None if every text is one label.
    how
        For people; empty where that cannot surprise.
    """

    labels: list[tuple[str, ...]] | None
    how: str


def join(labels: Iterable[str]) -> str:
    """Labels as one text: sorted, each once; empty for none."""
    return SEPARATOR.join(sorted(set(labels)))


def split(text: str) -> list[str]:
    """The labels in what `join` returned."""
    return text.split(SEPARATOR) if text else []


def matrix_of(labels: Sequence[Sequence[str]], names: Sequence[str]) -> np.ndarray:
    """Which of the L `names` every row has, (N, L) bool."""
    place = {name: number for number, name in enumerate(names)}
    marks = np.zeros((len(labels), len(names)), dtype=bool)
    for row, found in enumerate(labels):
        marks[row, [place[str(label)] for label in found]] = True
    return marks


def understand(texts: Sequence[str], labels: Labels, separator: str | None, setting: str) -> Understood:
    """Whether each text is one label or several, and which.

    One label per row, unless the texts show otherwise. They are lists (``["cat", "indoor"]``) if all of them are. They
    are combinations of labels if nearly all parts between separators occur in several texts, and either a tenth of the
    texts occur in another order as well, or there are more different texts than parts. Words with white space between
    them are often one name (`golden retriever`), so there the latter takes more: at least three different numbers of
    words (none among them), and half of the texts are another one with one word more, or there are twice as many texts
    as words.

    Parameters
    ----------
    texts
        Of every row; empty for none.
    labels
        ``single`` and ``multiple`` decide without the texts.
    separator
        What separates labels, in place of what the texts show.
    setting
        Name of the setting of `labels`, for errors.

    Raises
    ------
    UserError
        If a label holds the character that separates labels in results.
    """
    if labels == "single":
        return Understood(None, "")
    counts = Counter(texts)
    missing = counts.pop("", 0)
    if separator is not None:
        return _split(texts, separator, setting)
    lists = {text: list_in(text) for text in counts}
    if any(text.startswith("{") and lists[text] is not None for text in counts):
        lists = {text: [text] if found is None else found for text, found in lists.items()}
    if counts and all(each is not None for each in lists.values()):
        return _several([lists.get(text) or [] for text in texts], "lists", setting)
    found = next((name for name in SEPARATORS if separates(counts, name, missing)), None)
    if found is None and labels == "multiple":
        found = next((name for name in SEPARATORS if any(len(parts(text, name)) > 1 for text in counts)), "space")
    if found is not None:
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
    """What a separator (a key of `SEPARATORS`, or any text) makes of a text; empty parts do not count."""
    between = SEPARATORS.get(separator, separator)
    found = text.split() if between == " " else [part.strip() for part in text.split(between)]
    return [part for part in found if part]


def list_in(text: str) -> list[str] | None:
    """The labels of a list as JSON or Python writes it, also as the only value of an object; None for other text."""
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


def separates(counts: Counter[str], separator: str, missing: int = 0) -> bool:
    """Whether texts (each with its number of rows) are combinations of labels; see `understand` for the rule.

    `missing` is the number of rows without a text.
    """
    found = {text: tuple(parts(text, separator)) for text in counts}
    orders: dict[frozenset[str], set[tuple[str, ...]]] = {}
    for each in found.values():
        orders.setdefault(frozenset(each), set()).add(each)
    words = Counter(word for labels in orders for word in labels)
    several = [labels for labels in orders if len(labels) > 1]
    rows = sum(counts.values())
    repeated = sum(counts[text] for text, each in found.items() if len(set(each)) < len(each))
    if not several or repeated > _REPEATED * rows:  # a sentence, not a set
        return False
    uses = Counter[bool]()
    for text, each in found.items():
        for word in each:
            uses[words[word] > 1] += counts[text]
    if uses[True] < _RECURRING * uses.total():
        return False
    if sum(len(orders[labels]) > 1 for labels in several) >= _REORDERED * len(several):
        return True
    if len(words) >= len(orders):
        return False
    if separator != "space":
        return True
    lengths = Counter({0: missing})
    for text, each in found.items():
        lengths[len(each)] += counts[text]
    common = [length for length, count in lengths.items() if count >= _COMMON * (rows + missing)]
    extended = sum(any(labels - {word} in orders for word in labels) for labels in several)
    combined = extended >= _EXTENDED * len(several) or len(orders) > _COMBINED * len(words)
    return len(common) >= _LENGTHS and combined


def _taken_whole(counts: Counter[str], setting: str) -> str:
    """What a person should know who meant several labels."""
    for name in SEPARATORS:
        text = next((text for text in counts if len(parts(text, name)) > 1), None)
        if text is not None:
            return f"one label per image, such as {text!r}; `--{setting} multiple` splits them at {_shown(name)}"
    return ""


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
