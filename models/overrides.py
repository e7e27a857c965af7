"""A spec from its defaults, a partial configuration and single settings by dotted name, such as ``recipe.2.lr``.

Whatever is refused is refused with a sentence that names the field, what was given and what is allowed.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from unfreeze.models.addresses import masked
from unfreeze.models.errors import UserError
from unfreeze.models.fields import (
    SpecField,
    alternatives,
    entry_type_of,
    fields_of,
    group_in,
    plain,
    plain_defaults,
    present,
)

SpecType = TypeVar("SpecType", bound=BaseModel)

NONE_WORDS = ("", "none", "null")
"""How a person writes "no value" where text arrives: YAML itself only knows ``null`` and ``~``."""


def set_field(settings: Mapping[str, Any], dotted: str, value: Any) -> dict[str, Any]:
    """Copy of `settings` with one more setting.

    Parameters
    ----------
    settings : mapping
        Nested mappings and lists; left as it is.
    dotted : str
        Where, such as ``data.size``. A list's entry goes by its position from 0 (``recipe.2.lr``) or, where entries
        have a ``name``, by that (``recipe.full.lr``). A group that is missing or none is made.
    value : Any
        What. A mapping is laid over the mapping that is there; anything else replaces.

    Raises
    ------
    UserError
        If the list has no such entry, or a part of the name is a single value and has no fields.
    """
    changed = _set_below(dict(settings), dotted.split("."), value, dotted, "")
    assert isinstance(changed, dict)
    return changed


def build_spec(
    spec_class: type[SpecType], config: Mapping[str, Any] | None = None, overrides: Mapping[str, Any] | None = None
) -> SpecType:
    """Spec from its defaults, with a partial configuration laid over them and single settings over that.

    Parameters
    ----------
    spec_class : type of pydantic.BaseModel
        The spec to build.
    config : mapping, optional
        Nested settings. Mappings merge, lists and values replace.
    overrides : mapping of str to Any, optional
        Values by dotted name, see `set_field`. Whole lists are set before their entries, whatever the order given.

    Returns
    -------
    BaseModel
        A validated instance of `spec_class`.

    Raises
    ------
    UserError
        One line per problem.
    """
    settings = _laid_over(plain_defaults(spec_class), config or {})
    overrides = overrides or {}
    for dotted in sorted(overrides, key=lambda name: name.count(".")):
        settings = set_field(settings, dotted, overrides[dotted])
    settings = _with_none(settings, spec_class)
    try:
        return spec_class.model_validate(settings)
    except ValidationError as error:
        fields = {field.name: field for field in fields_of(spec_class)}
        lines = [_problem(detail, fields, settings) for detail in error.errors(include_url=False)]
    raise UserError("\n".join(dict.fromkeys(lines)))


# --- plain data -------------------------------------------------------------------------------------------------------


def _laid_over(below: Any, above: Any) -> Any:
    above = plain(above)
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return {**below, **{key: _laid_over(below.get(key), value) for key, value in above.items()}}


def _set_below(settings: Any, parts: Sequence[str], value: Any, dotted: str, above: str) -> Any:
    if not parts:
        return _laid_over(settings, value)
    part, rest = parts[0], parts[1:]
    here = f"{above}.{part}" if above else part
    if not part:
        raise UserError(f"{dotted!r} is not the name of a setting: a part between dots is empty")
    if settings is None:
        settings = {}
    if isinstance(settings, dict):
        return {**settings, part: _set_below(settings.get(part), rest, value, dotted, here)}
    if isinstance(settings, list):
        position = _position(settings, part, dotted, above)
        changed = _set_below(settings[position], rest, value, dotted, here)
        return [*settings[:position], changed, *settings[position + 1 :]]
    raise UserError(f"{dotted}: {above} is the single value {_shown(settings)} and has no field {part!r}")


def _position(entries: list[Any], part: str, dotted: str, where: str) -> int:
    names = [entry.get("name") if isinstance(entry, dict) else None for entry in entries]
    if part.isascii() and part.isdecimal():  # a number is always a position, even if an entry is called "2"
        if int(part) < len(entries):
            return int(part)
    elif part in names:
        return names.index(part)
    known = ", ".join(str(position) if name is None else f"{position} {name}" for position, name in enumerate(names))
    close = difflib.get_close_matches(part, [name for name in names if isinstance(name, str)], n=1)
    hint = f"; did you mean {where}.{close[0]}?" if close else ""
    count = f"{len(entries)} entr{'y' if len(entries) == 1 else 'ies'}"
    raise UserError(f"{dotted}: {where} has no entry {part!r}, only {count}: {known or 'none'}{hint}")


def _with_none(value: Any, kind: Any) -> Any:
    """Replace the words for "no value" by None, wherever None is allowed and the word itself is not a choice."""
    if isinstance(value, dict) and (group := group_in(kind)):
        known = group.model_fields
        return {
            name: _with_none(entry, known[name].annotation) if name in known else entry for name, entry in value.items()
        }
    if isinstance(value, list) and (entry_type := entry_type_of(kind)):
        return [_with_none(entry, entry_type) for entry in value]
    is_word = isinstance(value, str) and value.lower() in NONE_WORDS and type(None) in alternatives(kind)
    return None if is_word and not any(value in get_args(each) for each in present(kind)) else value


# --- problems in words ------------------------------------------------------------------------------------------------


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    text = "none" if value is None else masked(repr(value))
    return text if len(text) <= 80 else f"{text[:77]}..."


def _problem(detail: ErrorDetails, fields: Mapping[str, SpecField], settings: Any) -> str:
    parts: list[str] = []  # the dotted name
    pattern: list[str] = []  # the same with N for positions, as in `fields`
    entry_name = ""
    for part in detail["loc"]:
        if isinstance(settings, dict):
            settings = settings.get(str(part))
        elif isinstance(settings, list) and isinstance(part, int):
            settings = settings[part]
        else:
            continue  # names a branch of a union, not a field
        parts.append(str(part))
        pattern.append("N" if isinstance(part, int) else part)
        if isinstance(part, int) and isinstance(settings, dict) and settings.get("name"):
            entry_name = f" ({settings['name']})"
    where = ".".join(parts) + entry_name
    if detail["type"] == "extra_forbidden":
        return f"{where}: unknown setting; {_suggestion(parts, pattern, fields)}"
    field = fields.get(".".join(pattern)) or fields.get(".".join(pattern).removesuffix(".N"))
    if detail["type"] == "missing":
        return f"{where}: missing, but required ({field.allowed if field else 'a group of settings'})"
    if detail["type"] in ("value_error", "assertion_error"):  # our own validators say it all
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
