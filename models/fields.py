"""The settings of a spec one by one, with what each allows in words: for help texts, forms and refusals."""

import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

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
        parts = [self.type, self.bounds, "or none" if type(None) in alternatives(self.annotation) else ""]
        return ", ".join(part for part in parts if part)

    @property
    def is_switch(self) -> bool:
        """Whether it is either on or off."""
        return bool in alternatives(self.annotation)

    @property
    def is_structured(self) -> bool:
        """Whether text alone cannot give it (a list, a mapping), so that it has to be written as YAML."""
        return not all(kind in PLAIN_TYPES or _takes_text(kind) for kind in present(self.annotation))


def fields_of(spec_class: type[BaseModel]) -> Iterator[SpecField]:
    """Every setting of a spec in order, those of nested groups and of list entries included.

    A list of groups comes twice: as itself (``recipe``), and field by field (``recipe.N.lr``).
    """
    yield from _fields_below(spec_class, None, "", (spec_class.__doc__ or "").split("\n")[0])


# --- plain data -------------------------------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """The value as mappings with text keys, lists and single values, so that one rule merges files, flags and specs."""
    if isinstance(value, BaseModel):
        value = value.model_dump()
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value


def plain_defaults(spec_class: type[BaseModel]) -> dict[str, Any]:
    """Field -> default as plain data, for the fields that have one."""
    return {
        name: plain(field.get_default(call_default_factory=True, validated_data={}))
        for name, field in spec_class.model_fields.items()
        if not field.is_required()
    }


# --- types in words ---------------------------------------------------------------------------------------------------


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """The types that an annotation allows: the members of a union, none included."""
    if get_origin(annotation) is Annotated:
        return alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(kind for part in get_args(annotation) for kind in alternatives(part))
    return (annotation,)


def present(annotation: Any) -> list[Any]:
    """The types that an annotation allows beside none."""
    return [kind for kind in alternatives(annotation) if kind is not type(None)]


def _takes_text(kind: Any) -> bool:
    return get_origin(kind) is Literal and all(isinstance(choice, str) for choice in get_args(kind))


def group_in(annotation: Any) -> type[BaseModel] | None:
    """The group of settings that an annotation allows, if it allows one."""
    groups = [kind for kind in present(annotation) if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return groups[0] if groups else None


def entry_type_of(annotation: Any) -> Any:
    """Type of the entries of the list that an annotation allows; None if it allows no list."""
    entries = [get_args(kind)[0] for kind in present(annotation) if get_origin(kind) in (list, tuple)]
    return entries[0] if entries else None


def _in_words(annotation: Any) -> str:
    return " or ".join(dict.fromkeys(_kind_in_words(kind) for kind in present(annotation)))


def _kind_in_words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        *first, last = [str(choice) for choice in get_args(kind)]
        return f"{', '.join(first)} or {last}" if first else last
    if entry_type := entry_type_of(kind):
        return f"list of {_in_words(entry_type)}s"
    if group := group_in(kind):
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
    unit = "characters" if str in present(field.annotation) else "entries"
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
    defaults = plain_defaults(group) if defaults is None else defaults
    for name, field in group.model_fields.items():
        dotted = f"{prefix}.{name}" if prefix else name
        description = field.description or ""
        inner = group_in(field.annotation)
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
        if entry := group_in(entry_type_of(field.annotation)):
            about = f"{(entry.__doc__ or '').split(chr(10))[0]} N is its position from 0, or its name."
            yield from _fields_below(entry, None, f"{dotted}.N", about)
