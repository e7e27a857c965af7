"""Write the tables of the reference from the specs and the commands: ``python docs/reference.py build/reference``."""

import html
import inspect
import re
import sys
from pathlib import Path

from docstring_parser import parse

from unfreeze.flows.cli import COMMANDS, app
from unfreeze.models.settings import Spec
from unfreeze.models.settings.fields import SpecField, fields_of
from unfreeze.models.settings.images import TrainImages
from unfreeze.models.settings.predict import Explain, Export, Predict
from unfreeze.models.settings.retrain import Retrain, Service, Watch
from unfreeze.models.settings.search import SweepSpec
from unfreeze.models.settings.tables import TrainTables

OTHERS: dict[str, type[Spec]] = {
    "sweep": SweepSpec,
    "predict": Predict,
    "explain": Explain,
    "export": Export,
    "retrain": Retrain,
    "up": Service,
    "the flow `watch`": Watch,
}


def main(folder: Path) -> None:
    """Write a Markdown file per page."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings-images.md").write_text(settings(TrainImages, "##"))
    (folder / "settings-tables.md").write_text(settings(TrainTables, "##"))
    others = [f"## {title}\n\n{settings(spec, '###')}" for title, spec in OTHERS.items()]
    (folder / "settings-other.md").write_text("\n".join(others))
    (folder / "commands.md").write_text("\n".join(map(command_group, COMMANDS)))


def settings(spec: type[Spec], heading: str) -> str:
    """A table per group of settings."""
    groups: dict[str, list[SpecField]] = {}
    for field in fields_of(spec):
        groups.setdefault(field.group, []).append(field)
    lines = []
    for group, fields in groups.items():
        if group:
            lines += [f"{heading} `{group}`", "", fields[0].group_description, ""]
        lines += ["| setting | default | values | |", "|---|---|---|---|"]
        for field in fields:
            allowed = re.sub("matching (.+?)(, or none)?$", _pattern, field.allowed)
            cells = (f"`{field.name}`", _default(field.default), allowed, field.info.description or "")
            lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines)


def command_group(title: str) -> str:
    """The commands of a section of ``unfreeze --help``, each with what it takes besides settings."""
    lines = [f"## {title}", ""]
    for function in COMMANDS[title]:
        name = function.__name__.replace("_", "-")
        doc = parse(inspect.getdoc(function) or "")
        about = {each.arg_name: each.description or "" for each in doc.params}
        lines += [f"### `unfreeze {name}`", "", doc.short_description or "", ""]
        others = 0
        for argument in app[name].assemble_argument_collection():
            if not argument.show or not argument.parameter.name:
                continue
            if argument.parameter.group[0].name not in ("Arguments", "Parameters"):
                others += 1
                continue
            flag = argument.parameter.name[0]
            text = argument.parameter.help or about.get(flag.lstrip("-").lower().replace("-", "_"), "")
            lines.append(f"- `{flag}`" + (f": {' '.join(text.split())}" if text else ""))
        lines += ["", f"and {others} settings as flags."] if others else []
        lines.append("")
    return "\n".join(lines)


def _pattern(found: re.Match[str]) -> str:
    """A regular expression as code; in a table, a bar in backticks would keep its backslash."""
    return f"matching <code>{html.escape(found[1]).replace('|', '&#124;').replace('[', '&#91;')}</code>{found[2] or ''}"


def _default(value: object) -> str:
    if isinstance(value, list):
        value = ", ".join(each["name"] if isinstance(each, dict) else str(each) for each in value)
    elif value is None or isinstance(value, bool):
        value = str(value).lower()
    return f"`{value}`" if value not in ("", "none") else ""


if __name__ == "__main__":
    main(Path(sys.argv[1]))
