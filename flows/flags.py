"""Command-line flags derived from a spec, so that a setting is described once and never typed twice.

``--data.size 96`` sets a field, ``--recipe.2.lr 0.01`` or ``--recipe.full.lr 0.01`` one of a list's entry, and
``--recipe '[{name: full, lr: 0.01}]'`` the whole list. ``--config FILE`` wins over the defaults, flags win over both.
"""

import argparse
import copy
import difflib
import sys
from collections.abc import Collection, Sequence
from typing import Any, NoReturn

from pydantic import BaseModel

from unfreeze.flows.settings_file import parse_yaml, read_settings
from unfreeze.models.errors import UserError, printable
from unfreeze.models.settings.fields import covers, field_named, fields_of
from unfreeze.models.settings.overrides import SpecType, build_spec
from unfreeze.models.settings.search import Dimension, parse_dimension
from unfreeze.models.store.paths import given_path

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
        # An abbreviation that is unique today is ambiguous, or means something else, once a setting is added.
        super().__init__(*args, **{"allow_abbrev": False, **options})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parse; an unknown flag ends the program with status 2 and names the nearest known one."""
        args = list(sys.argv[1:] if args is None else args)
        # The flags of list entries are known only now: a file or an earlier flag may name entries freely.
        for flag in dict.fromkeys(argument.split("=")[0] for argument in args if argument.startswith("--")):
            actions = self._option_string_actions
            action = next((actions[known] for known in actions if covers(known, flag)), None)
            if action and flag not in actions:
                actions[flag] = copy.copy(action)
                actions[flag].dest, actions[flag].option_strings = f"{SETTING}{flag[2:]}", [flag]
        parsed, left = super().parse_known_args(args, namespace)
        if unknown := [argument.split("=")[0] for argument in left if argument.startswith("--") and argument != "--"]:
            self._reject(unknown[0])
        return parsed, left

    def error(self, message: str) -> NoReturn:
        """End the program with status 2 and one line."""
        self.exit(2, f"{self.prog}: error: {printable(message)}\n")

    def format_help(self) -> str:
        """Help text with a usage line that stays short."""
        if "--config" in self._option_string_actions:
            positional = [f"[{action.metavar or action.dest}]" for action in self._get_positional_actions()]
            self.usage = " ".join(["%(prog)s", *positional, "[--config FILE] [--SETTING VALUE ...]"])
        return super().format_help()

    def _reject(self, flag: str) -> NoReturn:
        name, known = flag[2:], []
        for option in self._option_string_actions:
            group, is_entry, leaf = option[2:].partition(".N.")
            entry, has_leaf, _ = name.removeprefix(f"{group}.").partition(".")
            names_entry = is_entry and has_leaf and name.startswith(f"{group}.")
            known.append(f"{group}.{entry}.{leaf}" if names_entry else option[2:])
        close = difflib.get_close_matches(name, known, n=1) or [each for each in known if each.split(".")[-1] == name]
        hint = f"; did you mean --{' or --'.join(close[:3])}?" if close else "; --help lists all"
        self.error(f"unknown flag {flag}{hint}")


def add_flags(parser: FlagParser, spec_class: type[BaseModel], without: Collection[str] = ()) -> None:
    """Give a parser ``--config`` and one flag per setting of a spec except `without`, a help group per settings group.

    A parser may have the flags of several specs whose names differ.
    """
    top = parser.add_argument_group(f"settings of {spec_class.__name__}", "Each is NAME in a --config file as well.")
    if "--config" not in parser._option_string_actions:
        top.add_argument("--config", metavar="FILE", help="YAML or JSON file of settings; flags win over it.")
    groups = {"": top}
    for field in fields_of(spec_class):
        if field.name.split(".")[0] in without:
            continue
        if field.group not in groups:
            groups[field.group] = parser.add_argument_group(field.group, field.group_description.replace("%", "%%"))
        default = "required" if field.required else f"default {_default_in_words(field.default)}"
        words = f"{field.info.description or ''} ({field.allowed}; {default})".strip()
        options: dict[str, Any] = {"metavar": "YAML" if field.is_structured else "VALUE"}
        if bool in field.kinds:
            options = {"nargs": "?", "const": "true", "metavar": "true|false"}
        groups[field.group].add_argument(
            f"--{field.name}",
            dest=f"{SETTING}{field.name}",
            default=argparse.SUPPRESS,
            help=words.replace("%", "%%"),
            **options,
        )


def spec_from(
    arguments: argparse.Namespace, spec_class: type[SpecType], section: str | None = None, **fixed: Any
) -> SpecType:
    """Build the spec that the command line describes: defaults, then the file, then the flags, then `fixed`.

    Flags of other specs are ignored. `section` is the part of the file that holds this spec's settings; without it they
    are at the top, beside `SECTIONS`. `fixed` settings go by dotted name. A `UserError` has one line per problem.
    """
    overrides: dict[str, Any] = {}
    for key, text in vars(arguments).items():
        name = key.removeprefix(SETTING)
        if key.startswith(SETTING) and (field := field_named(spec_class, name)):
            # Single values stay text, and the field says what it means.
            overrides[name] = parse_yaml(text, f"--{name}") if field.is_structured else text
            if isinstance(overrides[name], str) and list[str] in field.kinds:
                overrides[name] = [text]
    config = {}
    if arguments.config is not None:
        if not arguments.config.strip():
            raise UserError("--config: the name of the file is empty; give a YAML or JSON file, or omit --config")
        config = read_settings(given_path(arguments.config))
    if section is None:
        config = {name: value for name, value in config.items() if name not in SECTIONS}
    else:
        config = config.get(section) or {}
        if not isinstance(config, dict):
            raise UserError(f"{arguments.config}: {section}: expected settings as NAME: VALUE below it")
    return build_spec(spec_class, config, {**overrides, **fixed})


def space_from(texts: Sequence[str], space: Sequence[Dimension]) -> list[Dimension]:
    """A sweep's space with what ``--space`` adds, replaces and excludes; a `UserError` if nothing is left to vary."""
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


def _default_in_words(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return (
            ", ".join(entry.get("name", "...") if isinstance(entry, dict) else str(entry) for entry in value) or "empty"
        )
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if value != "" else "''"
