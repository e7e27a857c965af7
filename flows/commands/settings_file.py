"""Settings files in YAML and JSON.

YAML values stay text, as on the command line, and each setting parses its own: ``no`` is a name where a name is
expected, and false for a switch.
"""

import json
from pathlib import Path
from typing import Any

from unfreeze.models.errors import UserError, one_line
from unfreeze.models.store.paths import irregular_kind

MOST_BYTES = 2**20
"""Maximum size of a settings file; the whole spec takes 10 KB."""


def read_settings(path: Path) -> dict[str, Any]:
    """Read a YAML or JSON file of settings; an empty file has none.

    Raises
    ------
    UserError
        If the file is missing or invalid; names line and column.
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
    settings = parse_json(text, str(path)) if path.suffix.lower() == ".json" else parse_yaml(text, str(path))
    if not isinstance(settings, dict | None):
        raise UserError(f"{path}: expected settings as NAME: VALUE, but this is a {type(settings).__name__}")
    return settings or {}


def parse_yaml(text: str, origin: str) -> Any:
    """The value in a text of YAML 1.2, with every single value as text; None if it is empty.

    Duplicate keys are refused, and so are aliases, a few lines of which can expand to gigabytes. A `UserError` names
    `origin`, line and column.
    """
    from ruamel.yaml import YAML  # imported late: `--help` needs this module but no YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError
    from ruamel.yaml.events import AliasEvent

    try:
        value = YAML(typ="base", pure=True).load(text)
        for event in YAML(typ="base", pure=True).parse(text):
            if isinstance(event, AliasEvent):
                raise MarkedYAMLError(problem="aliases (*) are not supported", problem_mark=event.start_mark)
        return _storable(value)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UserError(f"{origin}{where}: {one_line(error.problem or error.context)}") from error
    except RecursionError:
        raise UserError(f"{origin}: nested too deep") from None
    except (YAMLError, ValueError, OverflowError, TypeError) as error:  # escapes out of range, names in brackets
        raise UserError(f"{origin}: {one_line(error)}") from error


def parse_json(text: str, origin: str) -> Any:
    """The value in a JSON text without duplicate keys; a `UserError` names `origin`."""

    def mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if doubled := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"{doubled[0][:80]!r} is given twice; keep one")
        return dict(pairs)

    try:
        return _storable(json.loads(text, object_pairs_hook=mapping))
    except json.JSONDecodeError as error:
        raise UserError(f"{origin}, line {error.lineno}, column {error.colno}: {error.msg}") from error
    except RecursionError:
        raise UserError(f"{origin}: nested too deep") from None
    except ValueError as error:  # also for integers of thousands of digits
        raise UserError(f"{origin}: {one_line(error)}") from error


def _storable(value: Any) -> Any:
    """The value, unless it has halves of characters, which no file and no database can keep."""
    json.dumps(value, ensure_ascii=False).encode()
    return value
