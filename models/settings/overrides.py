"""Build a spec from defaults, a partial configuration and single settings by dotted name, such as ``recipe.2.lr``.

Every error names the field, the value given and the values allowed.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from unfreeze.models.errors import UserError
from unfreeze.models.settings.addresses import masked
from unfreeze.models.settings.fields import (
    SpecField,
    entry_type_of,
    fields_by_name,
    group_in,
    kinds_of,
    plain,
    plain_defaults,
)

SpecType = TypeVar("SpecType", bound=BaseModel)

NONE_WORDS = ("", "none", "null", "~")
"""Texts for "no value"."""


def set_field(settings: Mapping[str, Any], dotted: str, value: Any) -> dict[str, Any]:
    """Copy nested `settings` with one setting changed; a mapping is merged into a mapping, anything else replaced.

    List entries are addressed by position from 0 (``recipe.2.lr``) or by their ``name`` (``recipe.full.lr``). A group
    that is missing or None is created.

    Raises
    ------
    UserError
        If the list has no such entry, or a part of the name is a scalar without fields.
    """
    if "" in (parts := dotted.split(".")):
        raise UserError(f"{dotted!r} is not the name of a setting: a part between dots is empty")
    return dict(_set_below(settings, parts, 0, plain(value)))


def get_field(settings: Any, dotted: str) -> Any:
    """Look up the setting of a dotted name, as in `set_field`; None if absent."""
    for part in dotted.split("."):
        if isinstance(settings, list):
            position = position_of(settings, part)
            settings = None if position is None else settings[position]
        else:
            settings = settings.get(part) if isinstance(settings, dict) else None
    return settings


def position_of(entries: Sequence[Any], part: str) -> int | None:
    """Position of the list entry addressed by a part of a dotted name; None if absent."""
    if part.isascii() and part.isdecimal():  # a number is always a position, even if an entry is named "2"
        return int(part) if int(part) < len(entries) else None
    names = _names_of(entries)
    return names.index(part) if part in names else None


def build_spec(
    spec_class: type[SpecType], config: Mapping[str, Any] | None = None, overrides: Mapping[str, Any] | None = None
) -> SpecType:
    """Build a spec from its defaults, a partial configuration, and single settings, in increasing precedence.

    Mappings are merged, lists and scalars replaced. `overrides` use dotted names as in `set_field`, whole lists before
    their entries.

    Raises
    ------
    UserError
        One line per problem.
    """
    settings = _with_named_recipe(_merged(plain_defaults(spec_class), plain(config or {})), spec_class)
    for dotted, value in sorted((overrides or {}).items(), key=lambda item: item[0].count(".")):
        settings = _with_named_recipe(set_field(settings, dotted, value), spec_class)
    settings = _as_meant(settings, spec_class)
    try:
        return spec_class.model_validate(settings)
    except ValidationError as error:
        fields = fields_by_name(spec_class)
        lines = [_problem(detail, fields, settings) for detail in error.errors(include_url=False)]
    raise UserError("\n".join(dict.fromkeys(lines)))


def _with_named_recipe(settings: dict[str, Any], spec_class: type[BaseModel]) -> dict[str, Any]:
    """Replace a recipe's name with its stages, so single stages can be overridden."""
    recipes, name = getattr(spec_class, "recipes", {}), settings.get("recipe")
    known = isinstance(name, str) and name in recipes
    return {**settings, "recipe": plain(recipes[name])} if known else settings


# --- plain data -------------------------------------------------------------------------------------------------------


def _merged(below: Any, above: Any) -> Any:
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return {**below, **{key: _merged(below.get(key), value) for key, value in above.items()}}


def _set_below(settings: Any, parts: Sequence[str], depth: int, value: Any) -> Any:
    """Set the value at ``parts[depth:]`` in the settings under ``parts[:depth]``."""
    if depth == len(parts):
        return _merged(settings, value)
    dotted, above, part = ".".join(parts), ".".join(parts[:depth]), parts[depth]
    if settings is None or isinstance(settings, Mapping):
        settings = settings or {}
        return {**settings, part: _set_below(settings.get(part), parts, depth + 1, value)}
    if not isinstance(settings, list):
        raise UserError(f"{dotted}: {above} is the single value {_shown(settings)} and has no field {part!r}")
    position = position_of(settings, part)
    if position is None:
        names = _names_of(settings)
        known = ", ".join(str(number) if name is None else f"{number} {name}" for number, name in enumerate(names))
        close = difflib.get_close_matches(part, [name for name in names if isinstance(name, str)], n=1)
        hint = f"; did you mean {above}.{close[0]}?" if close else ""
        count = f"{len(names)} entr{'y' if len(names) == 1 else 'ies'}"
        raise UserError(f"{dotted}: {above} has no entry {part!r}, only {count}: {known or 'none'}{hint}")
    changed = _set_below(settings[position], parts, depth + 1, value)
    return [*settings[:position], changed, *settings[position + 1 :]]


def _names_of(entries: Sequence[Any]) -> list[Any]:
    return [entry.get("name") if isinstance(entry, dict) else None for entry in entries]


def _as_meant(value: Any, annotation: Any) -> Any:
    """Replace words for "no value" with None where None is allowed and the word is not a choice.

    A single text becomes a list of one where only a list of texts is allowed.
    """
    if isinstance(value, dict) and (group := group_in(annotation)):
        known = group.model_fields
        return {name: _as_meant(each, known[name].annotation if name in known else Any) for name, each in value.items()}
    if isinstance(value, list) and (entry_type := entry_type_of(annotation)):
        return [_as_meant(entry, entry_type) for entry in value]
    kinds = kinds_of(annotation)
    if isinstance(value, str) and list[str] in kinds and str not in kinds:
        return [value]
    is_word = isinstance(value, str) and value.lower() in NONE_WORDS and type(None) in kinds
    return None if is_word and not any(value in get_args(kind) for kind in kinds) else value


# --- error messages ---------------------------------------------------------------------------------------------------


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    text = "none" if value is None else masked(repr(value))
    return text if len(text) <= 80 else f"{text[:77]}..."


def _legible(name: str) -> str:
    """Quote a name if it would otherwise be invisible."""
    return name if name.strip() and name.isprintable() else repr(name)


def _problem(detail: ErrorDetails, fields: Mapping[str, SpecField], settings: Any) -> str:
    parts: list[str] = []
    entry_name = ""
    for part in detail["loc"]:
        if isinstance(settings, dict):
            settings = settings.get(str(part))
        elif isinstance(settings, list) and isinstance(part, int):
            settings = settings[part] if part < len(settings) else None  # a missing entry
            if isinstance(settings, dict) and settings.get("name"):
                entry_name = f" ({settings['name']})"
        else:
            continue  # names a branch of a union, not a field
        parts.append(str(part))
    where = ".".join(map(_legible, parts)) + entry_name
    pattern = ["N" if part.isdecimal() else part for part in parts]
    if detail["type"] == "extra_forbidden":
        return f"{where}: unknown setting; {_suggestion(parts, pattern, fields)}"
    field = fields.get(".".join(pattern)) or fields.get(".".join(pattern).removesuffix(".N"))
    if detail["type"] == "missing":
        return f"{where}: missing, but required ({field.allowed if field else 'a group of settings'})"
    if detail["type"] in ("value_error", "assertion_error"):  # from our own validators
        message = str(detail.get("ctx", {}).get("error", detail["msg"]))
        given = "" if isinstance(detail["input"], dict | BaseModel) else f"given {_shown(detail['input'])}; "
        return f"{where}: {given}{message}" if where else message
    if field:
        return f"{where}: given {_shown(detail['input'])}; allowed: {field.allowed}"
    members = _names_below(pattern, fields)
    allowed = f"a group of settings ({', '.join(members)})" if members else detail["msg"]
    return f"{where}: given {_shown(detail['input'])}; allowed: {allowed}"


def _names_below(pattern: Sequence[str], fields: Mapping[str, SpecField]) -> list[str]:
    prefix = "".join(f"{part}." for part in pattern)
    below = [name.removeprefix(prefix) for name in fields if name.startswith(prefix)]
    return list(dict.fromkeys(name.split(".")[0] for name in below))


def _suggestion(parts: Sequence[str], pattern: Sequence[str], fields: Mapping[str, SpecField]) -> str:
    siblings = _names_below(pattern[:-1], fields)
    if close := difflib.get_close_matches(parts[-1], siblings, n=1):
        return f"did you mean {'.'.join([*parts[:-1], close[0]])}?"
    if elsewhere := [name for name in fields if name.split(".")[-1] == parts[-1]]:
        return f"did you mean {' or '.join(elsewhere[:3])}?"
    return f"known here: {', '.join(siblings)}"
