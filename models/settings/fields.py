"""Individual settings of a spec, with their allowed values in words, for help texts and error messages."""

import json
import re
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

PLAIN_TYPES: dict[Any, str] = {bool: "true or false", int: "whole number", float: "number", str: "text"}

_LIMITS = (
    (("ge", "le"), "{} to {}"),
    (("ge",), "at least {}"),
    (("gt",), "above {}"),
    (("le",), "at most {}"),
    (("lt",), "below {}"),
    (("min_length", "max_length"), "{} to {} {unit}"),
    (("min_length",), "at least {} {unit}"),
    (("max_length",), "at most {} {unit}"),
    (("pattern",), "matching {}"),
)
_NAME = re.compile(r"\w{1,100}", re.ASCII)


@dataclass(frozen=True)
class SpecField:
    """One setting of a spec; `default` is plain data, `group` the dotted name of its group of settings (empty at top).

    The fields of a list's entries are named ``recipe.N.lr``.
    """

    name: str
    info: FieldInfo
    required: bool
    default: Any
    group: str
    group_description: str

    @property
    def kinds(self) -> list[Any]:
        """The allowed types except None."""
        return [kind for kind in kinds_of(self.info.annotation) if kind is not types.NoneType]

    @property
    def allowed(self) -> str:
        """Type, limits and optionality in words."""
        or_none = "or none" if types.NoneType in kinds_of(self.info.annotation) else ""
        return ", ".join(part for part in (_in_words(self.kinds), _limits_in_words(self), or_none) if part)

    @property
    def is_structured(self) -> bool:
        """Whether it must be written as YAML: a list or a mapping."""
        return not all(kind in PLAIN_TYPES or get_origin(kind) is Literal for kind in self.kinds)


def fields_of(
    spec_class: type[BaseModel], prefix: str = "", defaults: Any = None, about: str | None = None
) -> Iterator[SpecField]:
    """Every setting of a spec in order, including those of nested groups and of list entries.

    A list of groups appears twice: as itself (``recipe``), and field by field (``recipe.N.lr``). `prefix`, `defaults`
    and the description `about` belong to a nested group, whose defaults may differ from its class's.
    """
    defaults = plain_defaults(spec_class) if defaults is None else defaults
    about = _summary(spec_class) if about is None else about
    for name, info in spec_class.model_fields.items():
        dotted = f"{prefix}{name}"
        if group := group_in(info.annotation):
            yield from fields_of(group, f"{dotted}.", defaults.get(name), info.description or "")
            continue
        yield SpecField(dotted, info, name not in defaults, defaults.get(name), prefix.rstrip("."), about)
        if entry := group_in(entry_type_of(info.annotation)):
            about_entry = f"{_summary(entry)} N is its position from 0, or its name."
            yield from fields_of(entry, f"{dotted}.N.", None, about_entry)


@cache
def fields_by_name(spec_class: type[BaseModel]) -> dict[str, SpecField]:
    """The fields of a spec by name."""
    return {field.name: field for field in fields_of(spec_class)}


def field_named(spec_class: type[BaseModel], dotted: str) -> SpecField | None:
    """Look up the field of a dotted name, such as ``recipe.N.lr`` for ``recipe.full.lr``; None if unknown."""
    fields, parts = fields_by_name(spec_class), dotted.split(".")
    return fields.get(dotted) or (fields.get(f"{parts[0]}.N.{parts[2]}") if len(parts) == 3 and parts[1] else None)


def plain(value: Any) -> Any:
    """Convert a value to mappings with text keys, lists and scalars, the common form of files, flags and specs."""
    return to_jsonable_python(value, fallback=lambda each: each.tolist() if hasattr(each, "tolist") else str(each))


def plain_defaults(spec_class: type[BaseModel]) -> dict[str, Any]:
    """Field -> default as plain data, for the fields that have one."""
    return dict(plain(vars(spec_class.model_construct())))


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name; lists of settings by position, other lists as JSON.

    Mappings keyed by user-chosen names, such as columns, are JSON too if MLflow would reject the names.
    """
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            value = {str(position): item for position, item in enumerate(value)}
        if isinstance(value, Mapping) and all(_NAME.fullmatch(each) for each in value):
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = json.dumps(value) if isinstance(value, list | Mapping) else value
    return flat


# --- types ------------------------------------------------------------------------------------------------------------


def kinds_of(annotation: Any) -> tuple[Any, ...]:
    """Types allowed by an annotation: the members of a union, including None's."""
    if get_origin(annotation) is Annotated:
        return kinds_of(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(kind for part in get_args(annotation) for kind in kinds_of(part))
    return (annotation,)


def group_in(annotation: Any) -> type[BaseModel] | None:
    """The group of settings in an annotation, or None."""
    groups = (kind for kind in kinds_of(annotation) if isinstance(kind, type) and issubclass(kind, BaseModel))
    return next(groups, None)


def entry_type_of(annotation: Any) -> Any:
    """Entry type of the list in an annotation, or None."""
    return next((get_args(kind)[0] for kind in kinds_of(annotation) if get_origin(kind) in (list, tuple)), None)


def _summary(spec_class: type[BaseModel]) -> str:
    return (spec_class.__doc__ or "").split("\n")[0]


def _in_words(kinds: Iterable[Any]) -> str:
    return " or ".join(dict.fromkeys(_kind_in_words(kind) for kind in kinds))


def _kind_in_words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        *first, last = map(str, get_args(kind))
        return f"{', '.join(first)} or {last}" if first else last
    if entry_type := entry_type_of(kind):
        return f"list of {_in_words(kinds_of(entry_type))}s"
    return PLAIN_TYPES.get(kind, str(getattr(kind, "__name__", kind)))


def _limits_in_words(field: SpecField) -> str:
    names = {name for group, _ in _LIMITS for name in group}
    found = ((name, getattr(constraint, name, None)) for constraint in field.info.metadata for name in names)
    limits = {name: limit for name, limit in found if limit is not None}
    unit = "characters" if str in field.kinds else "entries"
    words = []
    for group, text in _LIMITS:
        if limits.keys() >= set(group):
            words.append(text.format(*(limits.pop(name) for name in group), unit=unit))
    return ", ".join(words).replace(f"at least 1 {unit}", "not empty")
