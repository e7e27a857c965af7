"""What the README and the pages in docs/ tell a reader to type is what the program takes."""

import re
import shlex
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs import PAGES, ROOT, Block, blocks, commands, draw_user_files, name_of
from unfreeze.flows.cli import app, main
from unfreeze.flows.commands.flags import parse
from unfreeze.flows.commands.settings_file import parse_yaml
from unfreeze.flows.commands.training import training_from
from unfreeze.models.settings.images import TrainImages
from unfreeze.models.settings.overrides import build_spec
from unfreeze.models.training import finder

TYPED = {
    line: name_of(page)
    for page in reversed(PAGES)
    for block in blocks(page)
    if block.language == "sh"
    for line in commands(block)
    if line.startswith("unfreeze ")
}
"""Command -> the first page with it."""
ORDER = (
    *("README.md", "index.md", "start.md", "howto/images.md"),
    *("howto/labels.md", "howto/splits.md", "howto/settings.md", "howto/backbones.md"),
    *("python.md", "howto/extend.md", "course/index.md", "course/finder.md"),
    *("results.md", "course/augmentation.md", "course/unfreezing.md", "course/sgdr.md"),
    *("course/tta.md", "course/sizes.md", "course/ensembles.md", "howto/runs.md"),
    *("howto/multi-label.md", "howto/tables.md", "howto/columns.md", "howto/time-series.md"),
    *("course/tables.md", "howto/predict.md", "howto/serve.md", "howto/explain.md"),
    *("howto/sweeps.md", "howto/service.md", "howto/retrain.md", "trouble/questions.md"),
)
"""A reader's way through the pages with blocks to run."""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("typed")
    draw_user_files(place)
    (place / "deployments").symlink_to(ROOT / "deployments")
    return place


@pytest.mark.parametrize("line", [pytest.param(line, id=f"{page}: {line[:60]}") for line, page in TYPED.items()])
def test_every_command_is_understood(line: str, drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(drawn)
    command, bound = parse(app, shlex.split(line)[1:])
    if command.__name__ in ("train", "train_table", "find_lr", "plan", "summary"):
        training_from(bound.arguments.get("source"), bound.arguments.get("given", {}))


def test_every_page_with_blocks_to_run_is_run() -> None:
    ran = {name_of(page) for page in PAGES for block in blocks(page) if _is_run(block)}
    assert ran <= set(ORDER)


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    navigation = (ROOT / "zensical.toml").read_text()
    assert [name_of(page) for page in PAGES[1:] if f'"{name_of(page)}"' not in navigation] == []


def test_settings_files_on_the_pages_are_understood() -> None:
    texts = [block.text for page in PAGES for block in blocks(page) if block.language == "yaml"]
    specs = [build_spec(TrainImages, parse_yaml(text, "a page"), {}) for text in texts if "data:" in text]
    assert specs


def test_messages_that_are_explained_are_those_of_the_program() -> None:
    source = "\n".join(
        path.read_text() for room in ("flows", "tasks", "models") for path in (ROOT / room).rglob("*.py")
    )
    spoken = re.sub(r'"\s*\n\s*f?"', "", source)
    explained = re.findall(r"^### `(.+)`$", (ROOT / "docs" / "trouble" / "messages.md").read_text(), re.MULTILINE)
    assert [message for message in explained if message not in spoken] == []
    assert len(explained) > 20


def test_every_block_says_its_language_and_every_link_leads_somewhere() -> None:
    for page in PAGES:
        text = page.read_text()
        assert text.count("```") % 2 == 0, page
        for target in re.findall(r"\]\((?!http)([^)#]+)", text):
            assert (page.parent / target).exists(), f"{page}: {target}"


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
    (page,) = [page for page in PAGES if name_of(page) == name]
    for written in folder.glob("predictions.*"):
        written.unlink()  # several pages predict into it, and a CSV of another prediction is not replaced
    for block in filter(_is_run, blocks(page)):
        if block.language == "python":
            exec(compile(block.text, f"a block of {name}", "exec"), {})
        elif block.language == "sh":
            for line in commands(block):
                program, *arguments = shlex.split(_with_runs(line, folder))
                assert program == "unfreeze", line
                assert main(arguments) == 0, line


def _is_run(block: Block) -> bool:
    return block.language in ("sh", "python") and not block.why and "make " not in block.text


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
