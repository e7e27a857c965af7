"""Command-line flags derived from a spec, so that a setting is described once and never typed twice.

``--data.size 96`` sets a field, ``--recipe.2.lr 0.01`` or ``--recipe.full.lr 0.01`` one of a list's entry, and
``--recipe '[{name: full, lr: 0.01}]'`` the whole list. ``--config FILE`` is laid over the defaults first.
"""

import argparse
import difflib
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel

from unfreeze.flows.settings_file import parse_yaml, read_settings
from unfreeze.models.errors import UserError
from unfreeze.models.fields import SpecField, fields_of, present
from unfreeze.models.overrides import build_spec
from unfreeze.models.search import Dimension, parse_dimension

SpecType = TypeVar("SpecType", bound=BaseModel)

SETTING = "setting:"
"""Prefix of the flags' names in the namespace, so that no setting collides with an argument of the command."""


SECTIONS = ("sweep",)
"""Parts of a file of settings that belong to another spec than the training's."""


class FlagParser(argparse.ArgumentParser):
    """An argument parser whose flags may name any entry of a list, and that suggests the nearest known flag.

    Its usage and errors omit the flags of settings, which would fill a screen; ``--help`` describes them.
    Subparsers made by `add_subparsers` are of this class as well.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._known: list[str] = []
        self._positional: list[str] = []
        self._entry_fields: list[SpecField] = []
        self._has_commands = False
        self._has_settings = False
        # An abbreviation that is unique today is ambiguous, or means something else, once a setting is added.
        super().__init__(*args, **{"allow_abbrev": False, **options})

    def add_argument(self, *names: Any, **options: Any) -> argparse.Action:
        """Add an argument and remember its flags for suggestions."""
        action = super().add_argument(*names, **options)
        self._known += [flag for flag in action.option_strings if flag.startswith("--")]
        if not action.option_strings and action.help != argparse.SUPPRESS:
            name = str(action.metavar or action.dest)
            self._positional.append(f"[{name}]" if action.nargs in ("?", "*") else name)
        return action

    def add_subparsers(self, **options: Any) -> Any:
        """Add commands; from here on they report their own unknown flags."""
        self._has_commands = True
        return super().add_subparsers(**options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parse; an unknown flag ends the program with status 2 and names the nearest known one."""
        # The flags of list entries are known only now: a file or an earlier flag may name entries freely.
        args = list(sys.argv[1:] if args is None else args)
        for flag in dict.fromkeys(_flag_of(argument) for argument in args):
            field = next((field for field in self._entry_fields if _names_entry(flag, field)), None)
            if field and flag not in self._known:
                self.add_argument(flag, **{**_options(field, flag.removeprefix("--")), "help": argparse.SUPPRESS})
        parsed, left = super().parse_known_args(args, namespace)
        unknown = [_flag_of(argument) for argument in left if argument.startswith("--") and argument != "--"]
        if unknown and not self._has_commands:
            self._refuse(unknown[0])
        return parsed, left

    def error(self, message: str) -> NoReturn:
        """End the program with status 2 and one line."""
        self.exit(2, f"{self.prog}: error: {message}\n")

    def format_help(self) -> str:
        """Help text with a usage line that stays short."""
        if self._has_settings and self.usage is None:
            self.usage = " ".join(["%(prog)s", *self._positional, "[--config FILE] [--SETTING VALUE ...]"])
        return super().format_help()

    def _refuse(self, flag: str) -> NoReturn:
        known = list(self._known)
        for field in self._entry_fields:
            listed, _, leaf = field.name.partition(".N.")
            if flag.startswith(f"--{listed}.") and flag.count(".") > listed.count(".") + 1:
                entry = flag.removeprefix(f"--{listed}.").split(".")[0]
                known.append(f"--{listed}.{entry}.{leaf}")
            else:
                known.append(f"--{field.name}")
        word = flag.removeprefix("--")
        close = [f"--{name}" for name in difflib.get_close_matches(word, [name[2:] for name in known], n=1)]
        close = close or [name for name in known if name.split(".")[-1] == word][:3]
        hint = f"; did you mean {' or '.join(close)}?" if close else "; --help lists all"
        self.error(f"unknown flag {flag}{hint}")


def add_flags(parser: FlagParser, spec_class: type[BaseModel], without: Collection[str] = ()) -> None:
    """Give a parser ``--config`` and one flag per setting of a spec, a help group per group of settings.

    A parser may have the flags of several specs whose names differ.

    Parameters
    ----------
    parser : FlagParser
        The parser of a program or of one of its commands.
    spec_class : type of pydantic.BaseModel
        The spec; `spec_from` builds it from what was parsed.
    without : collection of str
        Settings at the top that get no flag.
    """
    top = parser.add_argument_group(f"settings of {spec_class.__name__}", "Each is NAME in a --config file as well.")
    if not parser._has_settings:
        parser._known.append("--config")
        top.add_argument("--config", metavar="FILE", help="YAML or JSON file of settings; flags win over it.")
    parser._has_settings = True
    groups = {"": top}
    for field in fields_of(spec_class):
        if field.name.split(".")[0] in without:
            continue
        if field.group not in groups:
            groups[field.group] = parser.add_argument_group(field.group, field.group_description.replace("%", "%%"))
        if ".N." in field.name:
            parser._entry_fields.append(field)
        else:
            parser._known.append(f"--{field.name}")
        groups[field.group].add_argument(f"--{field.name}", **_options(field, field.name))


def spec_from(
    arguments: argparse.Namespace, spec_class: type[SpecType], section: str | None = None, **fixed: Any
) -> SpecType:
    """Build the spec that the command line describes: defaults, then the file, then the flags, then `fixed`.

    Parameters
    ----------
    arguments : argparse.Namespace
        What a parser with the spec's flags parsed.
    spec_class : type of pydantic.BaseModel
        The spec that `add_flags` was given; flags of other specs are left alone.
    section : str, optional
        The part of the file that holds this spec's settings; without it they are at the top, beside `SECTIONS`.
    **fixed
        Settings by dotted name that win over the flags: ``spec_from(arguments, Spec, **{"data.source": source})``.

    Raises
    ------
    UserError
        If the file cannot be read, or one line per setting that is not valid.
    """
    fields = {field.name: field for field in fields_of(spec_class)}
    given = {name.removeprefix(SETTING): text for name, text in vars(arguments).items() if name.startswith(SETTING)}
    overrides: dict[str, Any] = {}
    for name, text in given.items():
        entry = (field for field in fields.values() if _names_entry(f"--{name}", field))
        field = fields.get(name) or next(entry, None)
        if field is None:
            continue
        # Single values stay text, and the field says what it means.
        overrides[name] = _structured(text, name, field) if field.is_structured else text
    config = _config(arguments.config)
    if section is not None:
        config = config.get(section) or {}
        if not isinstance(config, dict):
            raise UserError(f"{arguments.config}: {section}: expected settings as NAME: VALUE below it")
    else:
        config = {name: value for name, value in config.items() if name not in SECTIONS or name in fields}
    return build_spec(spec_class, config, {**overrides, **fixed})


def space_from(texts: Sequence[str], space: Sequence[Dimension]) -> list[Dimension]:
    """A sweep's space with what ``--space`` adds, replaces and excludes.

    Raises
    ------
    UserError
        If a text cannot be read, or nothing is left to vary.
    """
    named = {dimension.name: dimension for dimension in space}
    for text in texts:
        name, dimension = parse_dimension(text)
        if dimension is not None:
            named[name] = dimension
        elif named.pop(name, None) is None:
            raise UserError(f"--space {text!r}: {name} is not varied anyway; {', '.join(named)} are")
    if not named:
        raise UserError("--space: nothing is left to vary")
    return list(named.values())


def _config(file: str | None) -> dict[str, Any]:
    if file is None:
        return {}
    if not file.strip():
        raise UserError("--config: the name of the file is empty; give a YAML or JSON file, or omit --config")
    return read_settings(Path(file).expanduser())


def _structured(text: str, name: str, field: SpecField) -> Any:
    """The flag's YAML; a single text where a list of texts belongs is a list of one."""
    value = parse_yaml(text, f"--{name}")
    return [text] if isinstance(value, str) and list[str] in present(field.annotation) else value


def _flag_of(argument: str) -> str:
    return argument.split("=", 1)[0]


def _names_entry(flag: str, field: SpecField) -> bool:
    """Whether a flag such as ``--recipe.full.lr`` is that of the field ``recipe.N.lr``."""
    parts, pattern = flag.removeprefix("--").split("."), field.name.split(".")
    same_length = flag.startswith("--") and len(parts) == len(pattern) and "N" in pattern
    return same_length and all(part and known in ("N", part) for part, known in zip(parts, pattern, strict=True))


def _options(field: SpecField, name: str) -> dict[str, Any]:
    default = "required" if field.required else f"default {_default_in_words(field.default)}"
    words = f"{field.description} ({field.allowed}; {default})".strip()
    options: dict[str, Any] = {
        "dest": f"{SETTING}{name}",
        "default": argparse.SUPPRESS,
        "metavar": "YAML" if field.is_structured else "VALUE",
        "help": words.replace("%", "%%"),
    }
    if field.is_switch:
        options |= {"nargs": "?", "const": "true", "metavar": "true|false"}
    return options


def _default_in_words(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Sequence) and not isinstance(value, str):
        entries = [entry.get("name", "...") if isinstance(entry, dict) else str(entry) for entry in value]
        return ", ".join(entries) or "empty"
    return str(value) if value != "" else "''"
