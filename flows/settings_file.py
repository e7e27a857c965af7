"""Files of settings: YAML and JSON in which everything means what it looks like.

YAML 1.1, which PyYAML reads, takes 010 for 8, 1:30 for 90 and ``no`` for false, lets a later key silently replace an
earlier one, and has aliases with which a few lines unfold into gigabytes. Here a value without quotes is null, true,
false or a plain decimal number; everything else is text, and the setting that it is for says what the text means, as
it does on the command line. Aliases, tags and duplicate keys are rejected; size and depth are bounded.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

from unfreeze.models.errors import UserError
from unfreeze.models.store.paths import irregular_kind

MOST_BYTES = 2**20
"""Size of a file of settings; the whole spec takes 10 KB."""
MOST_DEPTH = 32
"""Lists and mappings inside each other; a spec has 4."""

_TOO_DEEP = f"nested deeper than {MOST_DEPTH} levels"
_NOT_UNICODE = "the text is not valid Unicode"
_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]{0,99})")
# Only what YAML 1.1 reads alike, or a text that another program wrote without quotes would turn into a number.
_NUMBER = re.compile(r"[-+]?(0|[1-9][0-9]{0,99})\.[0-9]*([eE][-+][0-9]+)?")
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
"""Escapes can make it; no file or database can keep it."""


def read_settings(path: Path) -> dict[str, Any]:
    """Read a YAML or JSON file of settings; an empty one has none, one that is not valid is a `UserError`."""
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
    # Not all as YAML, which rejects tabs.
    settings = parse_json(text, str(path)) if path.suffix.lower() == ".json" else parse_yaml(text, str(path))
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise UserError(f"{path}: expected settings as NAME: VALUE, but this is a {type(settings).__name__}")
    return settings


def parse_yaml(text: str, origin: str) -> Any:
    """The one value in a YAML text, of plain mappings with text keys, lists and single values; None if it is empty.

    A `UserError` names `origin`, line and column.
    """
    try:
        events = yaml.parse(text, Loader=yaml.SafeLoader)
        next(events)  # the stream's start
        if isinstance(next(events), yaml.StreamEndEvent):
            return None
        value = _node(events, next(events))
        next(events)  # the document's end
        if not isinstance(event := next(events), yaml.StreamEndEvent):
            raise _problem(event, "a second document begins here; keep one")
        return value
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UserError(f"{origin}{where}: {' '.join(str(error.problem or error.context).split())}") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the latter of escapes and versions out of range
        raise UserError(f"{origin}: {' '.join(str(error).split())}") from error


def parse_json(text: str, origin: str) -> Any:
    """The value in a JSON text, without duplicate keys, NaN and infinite numbers; a `UserError` names `origin`."""

    def mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        counts = Counter(name for name, _ in pairs)
        if doubled := [name for name in counts if counts[name] > 1]:
            raise ValueError(f"{doubled[0][:80]!r} is given twice; keep one")
        return dict(pairs)

    def number(written: str) -> float:
        if not math.isfinite(value := float(written)):
            raise ValueError(f"{written[:40]} is not a finite number")
        return value

    try:
        value = json.loads(text, object_pairs_hook=mapping, parse_float=number, parse_constant=number)
        _check(value)
        return value
    except json.JSONDecodeError as error:
        raise UserError(f"{origin}, line {error.lineno}, column {error.colno}: {error.msg}") from error
    except RecursionError:
        raise UserError(f"{origin}: {_TOO_DEEP}") from None
    except ValueError as error:  # also of a whole number of thousands of digits
        raise UserError(f"{origin}: {error}") from error


def _check(value: Any, depth: int = 0) -> None:
    if depth > MOST_DEPTH:
        raise ValueError(_TOO_DEEP)
    if isinstance(value, str) and _HALF_CHARACTER.search(value):
        raise ValueError(_NOT_UNICODE)
    for child in [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []:
        _check(child, depth + 1)


def _node(events: Iterator[Any], event: Any, depth: int = 0) -> Any:
    """The value that begins with `event`: PyYAML's own composer follows aliases and recurses without bound."""
    if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
        raise _problem(event, "anchors (&) and aliases (*) are not supported; write the value out")
    if event.tag not in (None, "!"):
        raise _problem(event, f"tags such as {event.tag[:40]} are not supported; remove it")
    if depth > MOST_DEPTH:
        raise _problem(event, _TOO_DEEP)
    if isinstance(event, yaml.ScalarEvent):
        if _HALF_CHARACTER.search(event.value):
            raise _problem(event, _NOT_UNICODE)
        return _plain_value(event.value) if event.style is None else event.value
    until_its_end = takewhile(lambda each: not isinstance(each, yaml.CollectionEndEvent), events)
    if isinstance(event, yaml.SequenceStartEvent):
        return [_node(events, entry, depth + 1) for entry in until_its_end]
    entries: dict[str, Any] = {}
    for key in until_its_end:
        if not isinstance(key, yaml.ScalarEvent):
            raise _problem(key, "the name of a setting must be a single text")
        _node(events, key, depth + 1)
        if key.value in entries:
            raise _problem(key, f"{key.value[:80]!r} is given twice; keep one")
        entries[key.value] = _node(events, next(events), depth + 1)
    return entries


def _problem(event: Any, text: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=text, problem_mark=event.start_mark)


def _plain_value(text: str) -> Any:
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE", "false", "False", "FALSE"):
        return text.lower() == "true"
    if _WHOLE.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    return text
