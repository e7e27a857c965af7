"""Files of settings: YAML and JSON in which everything means what it looks like.

YAML 1.1, which PyYAML reads, takes 010 for 8, 1:30 for 90 and ``no`` for false, lets a later key replace an earlier one
unseen, and has aliases with which a few lines unfold into gigabytes. Here a value without quotes is null, true, false
or a plain decimal number; everything else is text, and the setting that it is for says what the text means, as it does
on the command line. Aliases, tags and duplicate keys are refused; size and depth are bounded.
"""

import json
import math
import re
from pathlib import Path
from typing import Any, NoReturn

import yaml

from unfreeze.models.errors import UserError
from unfreeze.models.regular_files import irregular_kind

MOST_BYTES = 2**20
"""Size of a file of settings; the whole spec takes 10 KB."""
MOST_DEPTH = 32
"""Lists and mappings inside each other; a spec has 4."""

_WORDS = {"": None, "~": None, "null": None, "Null": None, "NULL": None} | {
    word: value for value in (True, False) for word in (str(value), str(value).lower(), str(value).upper())
}
_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]{0,99})")
# Only what YAML 1.1 reads alike, or a text that another program wrote without quotes would turn into a number.
_NUMBER = re.compile(r"[-+]?(0|[1-9][0-9]{0,99})\.[0-9]*([eE][-+][0-9]+)?")


def read_settings(path: Path) -> dict[str, Any]:
    """Read a YAML or JSON file of settings; an empty one has none.

    Raises
    ------
    UserError
        If it is missing, unreadable, too large, not valid (with the line) or not a mapping.
    """
    kind = "a folder" if path.is_dir() else irregular_kind(path)
    if kind is not None:
        raise UserError(f"--config: {path} is {kind}; give a YAML or JSON file")
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"--config: there is no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--config: cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    if len(content) > MOST_BYTES:
        raise UserError(f"--config: {path} is larger than {MOST_BYTES:,} bytes: not a file of settings")
    # Not all as YAML, which refuses tabs.
    settings = parse_json(text, str(path)) if path.suffix.lower() == ".json" else parse_yaml(text, str(path))
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise UserError(f"{path}: expected settings as NAME: VALUE, but this is a {type(settings).__name__}")
    return settings


def parse_yaml(text: str, origin: str) -> Any:
    """The one value that a YAML text holds, of plain mappings with text keys, lists and single values.

    Parameters
    ----------
    text : str
        Any text.
    origin : str
        Where it is from, for messages.

    Raises
    ------
    UserError
        If it is not valid or not allowed; with line and column.
    """
    try:
        return _YamlReader(text, origin).value()
    except UserError:
        raise
    except yaml.MarkedYAMLError as error:
        _refuse(origin, error.problem_mark or error.context_mark, str(error.problem or error.context))
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the latter of escapes and versions out of range
        raise UserError(f"{origin}: {' '.join(str(error).split())}") from error


def parse_json(text: str, origin: str) -> Any:
    """The value that a JSON text holds, without duplicate keys, NaN and infinite numbers.

    Raises
    ------
    UserError
        If it is not valid or not allowed.
    """

    def mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        for name, value in pairs:
            if name in entries:
                raise UserError(f"{origin}: {name[:80]!r} is given twice; keep one")
            entries[name] = value
        return entries

    def number(written: str) -> float:
        value = float(written)
        if not math.isfinite(value):
            raise UserError(f"{origin}: {written[:40]} is not a finite number")
        return value

    too_deep = UserError(f"{origin}: nested deeper than {MOST_DEPTH} levels")
    try:
        value = json.loads(text, object_pairs_hook=mapping, parse_float=number, parse_constant=number)
    except json.JSONDecodeError as error:
        raise UserError(f"{origin}, line {error.lineno}, column {error.colno}: {error.msg}") from error
    except RecursionError:
        raise too_deep from None
    except UserError:
        raise
    except ValueError as error:  # a whole number of thousands of digits
        raise UserError(f"{origin}: {error}") from error
    level, depth = [value], 0
    while level := [child for parent in level for child in _children(parent)]:
        depth += 1
        if depth > MOST_DEPTH:
            raise too_deep
        for each in level:
            _check_text(each, origin, None)
    _check_text(value, origin, None)
    return value


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    return value if isinstance(value, list) else []


class _YamlReader:
    """Builds values from PyYAML's events: its own composer follows aliases and recurses without bound."""

    def __init__(self, text: str, origin: str) -> None:
        self._events = yaml.parse(text, Loader=yaml.SafeLoader)
        self._origin = origin

    def value(self) -> Any:
        """The value of the only document; None if there is none."""
        next(self._events)  # the stream's start
        event = next(self._events)
        if isinstance(event, yaml.StreamEndEvent):
            return None
        value = self._node(next(self._events), 0)
        next(self._events)  # the document's end
        event = next(self._events)
        if not isinstance(event, yaml.StreamEndEvent):
            _refuse(self._origin, event.start_mark, "a second document begins here; keep one")
        return value

    def _node(self, event: Any, depth: int) -> Any:
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            _refuse(
                self._origin, event.start_mark, "anchors (&) and aliases (*) are not supported; write the value out"
            )
        if event.tag not in (None, "!"):
            _refuse(self._origin, event.start_mark, f"tags such as {event.tag[:40]} are not supported; remove it")
        if depth > MOST_DEPTH:
            _refuse(self._origin, event.start_mark, f"nested deeper than {MOST_DEPTH} levels")
        if isinstance(event, yaml.ScalarEvent):
            _check_text(event.value, self._origin, event.start_mark)
            return _plain_value(event.value) if event.style is None else event.value
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(depth)
        return self._mapping(depth)

    def _sequence(self, depth: int) -> list[Any]:
        entries = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            entries.append(self._node(event, depth + 1))
        return entries

    def _mapping(self, depth: int) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                _refuse(self._origin, event.start_mark, "the name of a setting must be a single text")
            self._node(event, depth + 1)
            if event.value in entries:
                _refuse(self._origin, event.start_mark, f"{event.value[:80]!r} is given twice; keep one")
            entries[event.value] = self._node(next(self._events), depth + 1)
        return entries


def _plain_value(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if _WHOLE.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    return text


def _check_text(value: Any, origin: str, mark: Any) -> None:
    """Refuse text that no file or database can keep: halves of a character, which escapes can make."""
    try:
        if isinstance(value, str):
            value.encode()
    except UnicodeEncodeError:
        _refuse(origin, mark, "the text is not valid Unicode")


def _refuse(origin: str, mark: Any, problem: str) -> NoReturn:
    where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    raise UserError(f"{origin}{where}: {' '.join(problem.split())}")
