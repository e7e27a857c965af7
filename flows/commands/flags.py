"""Command-line flags generated from specs, one per setting.

``--data.size 96`` sets a field, ``--recipe.2.lr 0.01`` or ``--recipe.full.lr 0.01`` a field of a list entry, and
``--recipe '[{name: full, lr: 0.01}]'`` the whole list. ``--config FILE`` wins over the defaults, flags win over both.
Cyclopts parses, completes and documents flags; the spec interprets their values.
"""

import inspect
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any, Literal, TypedDict, get_args, get_origin

from cyclopts import App, Group, Parameter, UnknownOptionError

from unfreeze.flows.commands.settings_file import parse_yaml, read_settings
from unfreeze.models.errors import UserError
from unfreeze.models.settings import Spec, Stage
from unfreeze.models.settings.fields import SpecField, field_named, fields_by_name
from unfreeze.models.settings.overrides import NONE_WORDS, SpecType, build_spec
from unfreeze.models.store.paths import given_path

SECTIONS = ("sweep",)
"""Sections of a settings file that belong to other specs than the training's."""
SWITCH_WORDS = ("true", "false", "yes", "no", "on", "off", *NONE_WORDS)
_switches: set[str] = set()
"""Flags, of any command, that need no value."""
_ENTRY = re.compile(r"--recipe\.([^.=]+)\.([^.=]+)")

_EPOCHS = "--recipe.STAGE.cycle_len 3 --recipe.STAGE.cycle_steps none (`unfreeze plan SOURCE` names the stages)"
_LR = "--recipe.STAGE.lr 0.001 (`unfreeze plan SOURCE` names the stages)"
_QUIET = "PREFECT_LOGGING_LEVEL=WARNING in the environment"
CALLED_HERE = {
    **dict.fromkeys(("epoch", "epochs", "n_epochs", "num_epochs", "max_epochs"), _EPOCHS),
    **dict.fromkeys(("lr", "learning_rate", "max_lr"), _LR),
    **dict.fromkeys(("quiet", "q", "silent"), _QUIET),
    **dict.fromkeys(("bs", "batch"), "--optimizer.batch_size 32"),
    **dict.fromkeys(("gpu", "gpus", "num_gpus"), "--devices 2 (device cuda:1 picks one)"),
    **dict.fromkeys(("arch", "architecture", "net", "network", "pretrained"), "--model.backbone NAME"),
    **dict.fromkeys(("wd",), "--optimizer.weight_decay 0.01"),
    **dict.fromkeys(("img_size", "image_size", "imgsz"), "--data.size 224"),
}
"""Names that other programs give to settings -> the flag here."""
Given = Mapping[str, str]
"""Settings as text by dotted name; ``config`` is the path of a settings file."""
NOTHING: Given = {}

Json = Annotated[bool, Parameter(help="Print one JSON object as the last line of stdout.")]


def flags_of(*specs: type[Spec], without: Collection[str] = (), config: bool = True) -> Any:
    """The annotation of a command's parameter `given`: ``--config`` and a flag per setting of the specs.

    A setting of several specs is one flag, whose help describes each.
    """
    about = "YAML or JSON file of settings; flags win over it."
    file = Annotated[str, Parameter(name="--config", metavar="FILE", help=about)]
    flags: dict[str, Any] = {"config": file} if config else {}
    found: dict[str, dict[str, SpecField]] = {}
    groups: dict[str, list[str]] = {}
    for spec in specs:
        for field in fields_by_name(spec).values():
            if field.name.split(".")[0] not in without:
                found.setdefault(field.name, {})[_kind(spec)] = field
                groups.setdefault(field.group, []).append(field.group_description)
    panels = {
        name: Group.create_ordered(
            name or ("Settings" if config else "Search"), help=" ".join(dict.fromkeys(descriptions)) if name else ""
        )
        for name, descriptions in groups.items()
    }
    for name, by_kind in found.items():
        fields = list(by_kind.values())
        texts = dict.fromkeys(map(_described, fields))
        shared = len(texts) == 1 and len(fields) == len(specs)
        words = [text if shared else f"{kind}: {text}" for kind, text in zip(by_kind, texts, strict=False)]
        if bool in fields[0].kinds:
            _switches.add(name)
        flags[name] = Annotated[
            str,
            Parameter(
                name=f"--{name}",
                group=panels[fields[0].group],
                help=" ".join(words),
                metavar="YAML" if fields[0].is_structured else "VALUE",
                choices=_choices(fields),
                show_choices=False,
            ),
        ]
    return Annotated[TypedDict("Settings", flags, total=False), Parameter(name="*")]  # type: ignore[operator]


def parse(app: App, arguments: Sequence[str]) -> tuple[Callable[..., Any], inspect.BoundArguments]:
    """The function of a command and its arguments.

    Raises
    ------
    cyclopts.CycloptsError
        If the arguments are invalid.
    """
    entries: dict[str, str] = {}
    rest: list[str] = []
    words = list(arguments)
    while words:
        flag, equals, value = words.pop(0).partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        match = _ENTRY.fullmatch(flag)
        leaf = match[2].replace("-", "_") if match else ""
        is_entry = match is not None and match[1] != "N" and leaf in Stage.model_fields
        is_switch = flag.startswith("--") and not equals and (f"recipe.N.{leaf}" if is_entry else name) in _switches
        if is_switch:  # may stand alone
            value = words.pop(0) if words and words[0].lower() in SWITCH_WORDS else "true"
        elif is_entry and not equals and words:
            value = words.pop(0)
        if match and is_entry:
            entries[f"recipe.{match[1]}.{leaf}"] = value
        else:
            rest.append(f"{flag}={value}" if is_switch or equals else flag)
    try:
        command, bound, _ = app.parse_args(rest)
    except UnknownOptionError as error:
        option = (error.token.keyword or error.token.value or "").partition("=")[0]
        found = CALLED_HERE.get(option.lstrip("-").rpartition(".")[2].replace("-", "_"))
        names = {name for each in error.argument_collection for name in each.names}
        if found is None or found.split()[0].replace("STAGE", "N") not in {*names, "PREFECT_LOGGING_LEVEL=WARNING"}:
            raise
        raise UserError(f"there is no {option}: use {found}") from error
    if entries and "given" in bound.signature.parameters:
        bound.arguments["given"] = {**bound.arguments.get("given", {}), **entries}
    elif entries and command.__module__.startswith("unfreeze."):  # not cyclopts' own: --help
        raise UserError(f"unknown flag --{next(iter(entries))}; --help lists all")
    return command, bound


def spec_from(spec_class: type[SpecType], given: Given, section: str | None = None, **fixed: Any) -> SpecType:
    """Build the spec that the command line describes: defaults, then the file, then the flags, then `fixed`.

    `section` is the part of the file with this spec's settings; without it they are at the top level, beside
    `SECTIONS`. `fixed` is keyed by dotted name; None means not given. A `UserError` has one line per problem.
    """
    overrides: dict[str, Any] = {}
    for name, text in given.items():
        field = field_named(spec_class, name)
        if name != "config":  # single values stay text, which the field parses
            is_yaml = field is not None and field.is_structured
            overrides[name] = parse_yaml(text, f"--{name}") if is_yaml else text
        if field and isinstance(overrides[name], str) and list[str] in field.kinds:
            overrides[name] = [text]
    config = config_of(given)
    if section is None:
        config = {name: value for name, value in config.items() if name not in SECTIONS}
    else:
        config = config.get(section) or {}
        if not isinstance(config, dict):
            raise UserError(f"{given['config']}: {section}: expected settings as NAME: VALUE below it")
    return build_spec(
        spec_class, config, overrides | {name: value for name, value in fixed.items() if value is not None}
    )


def config_of(given: Given) -> dict[str, Any]:
    """The settings in the file that was given; none without one."""
    if "config" not in given:
        return {}
    if not given["config"].strip():
        raise UserError("--config: the name of the file is empty; give a YAML or JSON file, or omit --config")
    return read_settings(given_path(given["config"]))


def _kind(spec: type[Spec]) -> str:
    modality = spec.model_fields.get("modality")
    return spec.__name__ if modality is None else str(modality.default)


def _described(field: SpecField) -> str:
    value = field.default
    if field.required:
        return f"{field.info.description or ''} ({field.allowed}; required)"
    if isinstance(value, list):
        value = ", ".join(each.get("name", "...") if isinstance(each, dict) else str(each) for each in value) or "empty"
    elif value is None or isinstance(value, bool):
        value = str(value).lower()
    return f"{field.info.description or ''} ({field.allowed}; default {value!s})".strip()


def _choices(fields: Sequence[SpecField]) -> list[str] | None:
    """The values that a shell can complete, if these are all."""
    kinds = [kind for field in fields for kind in field.kinds]
    if any(get_origin(kind) is not Literal for kind in kinds):
        return None
    return list(dict.fromkeys(str(value) for kind in kinds for value in get_args(kind)))
