"""A spec from its defaults, a partial configuration and single settings by dotted name, such as ``recipe.2.lr``.

Whatever is refused is refused with a sentence that names the field, what was given and what is allowed.
"""

import difflib
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from models.errors import UserError

SpecType = TypeVar("SpecType", bound=BaseModel)

NONE_WORDS = ("", "none", "null")
"""How a person writes "no value" where text arrives: YAML itself only knows ``null`` and ``~``."""

PLAIN_TYPES: dict[Any, str] = {bool: "true or false", int: "whole number", float: "number", str: "text"}


@dataclass(frozen=True)
class SpecField:
    """One setting of a spec, as a help text or a form shows it.

    Attributes
    ----------
    name : str
        Dotted name; the fields of a list's entries are named ``recipe.N.lr``.
    annotation : Any
        The type as Python has it.
    type : str
        The type in words.
    default : Any
        The default as plain data; meaningless where `required`.
    required : bool
        Whether there is no default.
    description : str
        What the setting does.
    bounds : str
        Smallest and largest value, length or pattern in words; empty if anything of the type goes.
    group, group_description : str
        Dotted name (empty at the top) and description of the group of settings that the field belongs to.
    """

    name: str
    annotation: Any
    type: str
    default: Any
    required: bool
    description: str
    bounds: str
    group: str
    group_description: str

    @property
    def allowed(self) -> str:
        """Type, bounds and whether it may be left empty, in words."""
        parts = [self.type, self.bounds, "or none" if type(None) in _alternatives(self.annotation) else ""]
        return ", ".join(part for part in parts if part)

    @property
    def is_switch(self) -> bool:
        """Whether it is either on or off."""
        return bool in _alternatives(self.annotation)

    @property
    def is_structured(self) -> bool:
        """Whether text alone cannot give it (a list, a mapping), so that it has to be written as YAML."""
        return not all(kind in PLAIN_TYPES or _takes_text(kind) for kind in _present(self.annotation))


def fields_of(spec_class: type[BaseModel]) -> Iterator[SpecField]:
    """Every setting of a spec in order, those of nested groups and of list entries included.

    A list of groups comes twice: as itself (``recipe``), and field by field (``recipe.N.lr``).
    """
    yield from _fields_below(spec_class, None, "", (spec_class.__doc__ or "").split("\n")[0])


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
    settings = _laid_over(_plain_defaults(spec_class), config or {})
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


def _plain(value: Any) -> Any:
    """The value as mappings with text keys, lists and single values, so that one rule merges files, flags and specs."""
    if isinstance(value, BaseModel):
        value = value.model_dump()
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value


def _plain_defaults(spec_class: type[BaseModel]) -> dict[str, Any]:
    return {
        name: _plain(field.get_default(call_default_factory=True, validated_data={}))
        for name, field in spec_class.model_fields.items()
        if not field.is_required()
    }


def _laid_over(below: Any, above: Any) -> Any:
    above = _plain(above)
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return {**below, **{key: _laid_over(below.get(key), value) for key, value in above.items()}}


def _set_below(settings: Any, parts: Sequence[str], value: Any, dotted: str, above: str) -> Any:
    if not parts:
        return _laid_over(settings, value)
    part, rest = parts[0], parts[1:]
    here = f"{above}.{part}" if above else part
    if not part:
        raise UserError(f"{dotted!r} is no name of a setting: a part between dots is empty")
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
    if isinstance(value, dict) and (group := _group_in(kind)):
        known = group.model_fields
        return {
            name: _with_none(entry, known[name].annotation) if name in known else entry for name, entry in value.items()
        }
    if isinstance(value, list) and (entry_type := _entry_type(kind)):
        return [_with_none(entry, entry_type) for entry in value]
    is_word = isinstance(value, str) and value.lower() in NONE_WORDS and type(None) in _alternatives(kind)
    return None if is_word and not any(value in get_args(each) for each in _present(kind)) else value


# --- types in words ---------------------------------------------------------------------------------------------------


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(kind for part in get_args(annotation) for kind in _alternatives(part))
    return (annotation,)


def _present(annotation: Any) -> list[Any]:
    return [kind for kind in _alternatives(annotation) if kind is not type(None)]


def _takes_text(kind: Any) -> bool:
    return get_origin(kind) is Literal and all(isinstance(choice, str) for choice in get_args(kind))


def _group_in(annotation: Any) -> type[BaseModel] | None:
    groups = [kind for kind in _present(annotation) if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return groups[0] if groups else None


def _entry_type(annotation: Any) -> Any:
    entries = [get_args(kind)[0] for kind in _present(annotation) if get_origin(kind) in (list, tuple)]
    return entries[0] if entries else None


def _in_words(annotation: Any) -> str:
    return " or ".join(dict.fromkeys(_kind_in_words(kind) for kind in _present(annotation)))


def _kind_in_words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        *first, last = [str(choice) for choice in get_args(kind)]
        return f"{', '.join(first)} or {last}" if first else last
    if entry_type := _entry_type(kind):
        return f"list of {_in_words(entry_type)}s"
    if group := _group_in(kind):
        return group.__name__
    return PLAIN_TYPES.get(kind) or str(getattr(kind, "__name__", kind))


def _bounds_in_words(field: FieldInfo) -> str:
    limit: dict[str, Any] = {}
    for constraint in field.metadata:
        for key in ("ge", "gt", "le", "lt", "multiple_of", "min_length", "max_length", "pattern"):
            if (value := getattr(constraint, key, None)) is not None:
                limit[key] = value
    words = []
    if "ge" in limit and "le" in limit:
        words.append(f"{limit['ge']} to {limit['le']}")
    else:
        sides = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
        words += [f"{side} {limit[key]}" for key, side in sides.items() if key in limit]
    if "multiple_of" in limit:
        words.append(f"a multiple of {limit['multiple_of']}")
    shortest, longest = limit.get("min_length"), limit.get("max_length")
    unit = "characters" if str in _present(field.annotation) else "entries"
    if longest is not None:
        words.append(f"{shortest or 0} to {longest} {unit}")
    elif shortest is not None:
        words.append("not empty" if shortest == 1 else f"at least {shortest} {unit}")
    if "pattern" in limit:
        words.append(f"matching {limit['pattern']}")
    return ", ".join(words)


def _fields_below(
    group: type[BaseModel], defaults: Mapping[str, Any] | None, prefix: str, group_description: str
) -> Iterator[SpecField]:
    """Fields of a group; `defaults` are those of the group's own field, which may differ from the class's."""
    defaults = _plain_defaults(group) if defaults is None else defaults
    for name, field in group.model_fields.items():
        dotted = f"{prefix}.{name}" if prefix else name
        description = field.description or ""
        inner = _group_in(field.annotation)
        if inner:
            yield from _fields_below(inner, defaults.get(name), dotted, description)
            continue
        yield SpecField(
            name=dotted,
            annotation=field.annotation,
            type=_in_words(field.annotation),
            default=defaults.get(name),
            required=name not in defaults,
            description=description,
            bounds=_bounds_in_words(field),
            group=prefix,
            group_description=group_description,
        )
        if entry := _group_in(_entry_type(field.annotation)):
            about = f"{(entry.__doc__ or '').split(chr(10))[0]} N is its position from 0, or its name."
            yield from _fields_below(entry, None, f"{dotted}.N", about)


# --- problems in words ------------------------------------------------------------------------------------------------


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    text = "none" if value is None else repr(value)
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
