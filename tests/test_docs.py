"""What the README and the pages in docs/ tell a reader to type is what the program takes."""

import doctest
import re
import shlex
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs import PAGES, ROOT, blocks, commands, draw_user_files
from unfreeze.flows import notebook
from unfreeze.flows.cli import app, main
from unfreeze.flows.commands.flags import parse
from unfreeze.flows.commands.training import training_from
from unfreeze.models.training import finder

TYPED = [
    pytest.param(line, id=f"{page.stem}: {line[:60]}")
    for page in PAGES
    for block in blocks(page)
    if block.language == "sh"
    for line in commands(block)
    if line.startswith("unfreeze ")
]
TASKS = ("images", "recipe", "results", "multi-label", "tables", "predict", "explain", "sweeps", "service")
ORDER = ("README.md", *(f"{task}.md" for task in TASKS))


@pytest.mark.parametrize("line", TYPED)
def test_every_command_is_understood(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_user_files(tmp_path)
    (tmp_path / "deployments").symlink_to(ROOT / "deployments")
    monkeypatch.chdir(tmp_path)
    command, bound = parse(app, shlex.split(line)[1:])
    if command.__name__ in ("train", "train_table", "find_lr", "plan", "summary"):
        training_from(bound.arguments.get("source"), bound.arguments.get("given", {}))


def test_every_block_says_its_language_and_every_link_leads_somewhere() -> None:
    for page in PAGES:
        text = page.read_text()
        assert text.count("```") % 2 == 0, page.name
        for target in re.findall(r"\]\((?!http)([^)#]+)", text):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, prefect_api: None) -> Iterator[Path]:
    """A user's folder, which all pages share as a reader's does, as the working folder of this process."""
    place = tmp_path_factory.mktemp("reader")
    draw_user_files(place)
    home = place / ".unfreeze"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNFREEZE_HOME", str(home))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'mlflow.db'}")
        patch.setattr(finder, "MOST_STEPS", 10)  # which lr is best is not what the pages are read for
        patch.chdir(place)
        yield place


@pytest.mark.slow
@pytest.mark.parametrize("name", ORDER)
def test_the_blocks_of_a_page_run_as_they_stand(name: str, folder: Path) -> None:
    """In one process: a process for each command would take most of the time to import libraries."""
    (page,) = [page for page in PAGES if page.name == name]
    ran = [block for block in blocks(page) if not block.why and "make " not in block.text]
    assert any(block.language in ("sh", "python") for block in ran)
    for block in ran:
        if block.language == "python":
            exec(compile(block.text, f"a block of {name}", "exec"), {})
        elif block.language == "sh":
            for line in commands(block):
                program, *arguments = shlex.split(_with_runs(line, folder))
                assert program == "unfreeze", line
                assert main(arguments) == 0, line


@pytest.mark.slow
def test_the_examples_of_tracked_trainings_and_predictions_run(folder: Path) -> None:
    assert doctest.testmod(notebook).failed == 0


def _with_runs(line: str, folder: Path) -> str:
    """The line with ids of the folder's latest trainings of images for every RUN_ID."""
    if "RUN_ID" not in line:
        return line
    with sqlite3.connect(folder / ".unfreeze" / "mlflow.db") as database:
        query = (
            "select runs.run_uuid from runs join tags on tags.run_uuid = runs.run_uuid where runs.status = 'FINISHED' "
            "and tags.key = 'unfreeze.kind' and tags.value = 'train-images' order by start_time"
        )
        for (run_id,) in database.execute(query).fetchall()[:2]:
            line = line.replace("RUN_ID", run_id, 1)
    return line
