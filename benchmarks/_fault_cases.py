"""A command that `benchmarks.faults` disturbs, and how what it came to is judged.

Every case begins with a copy of a data folder whose databases exist, at the path where they were made: first starts
would take most of the time.
"""

import atexit
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from tests.deployments.service import own_environment, running_server
from tests.flows.forked_commands import Forker, forking

OUTCOMES = ("right", "lost", "doubled", "wrong")
Ended = subprocess.CompletedProcess[str]


class Work(NamedTuple):
    """A command that is disturbed.

    Attributes
    ----------
    name
        Also of the folder of its data.
    set_up
        Writes its data into a folder and returns what is run once before; the data folder is kept then.
    arguments
        Of the command, whose data are in that folder.
    found
        What a command came to in a data folder, besides its JSON.
    add
        Adds to the data once the set-up has run.
    resumable
        Whether it prints how it is resumed; else the same command is given again.
    """

    name: str
    set_up: Callable[[Path], list[list[str]]]
    arguments: Callable[[Path], list[str]]
    found: Callable[[Path, dict[str, Any]], Any]
    add: Callable[[Path], None] = lambda place: None
    resumable: bool = False


class Case(NamedTuple):
    """A case of a work: where its data and its data folder are, and what it comes to undisturbed after how long.

    Its commands are forked from a process that has made the imports: they take no time, and none is killed in them.
    """

    work: Work
    place: Path
    forker: Forker
    expected: Any = None
    seconds: float = 0

    @property
    def home(self) -> Path:
        """Its data folder."""
        return self.place / "home"

    def command(self) -> list[str]:
        """What is disturbed, as a process of its own."""
        return [sys.executable, "-m", "unfreeze.flows.cli", *self.work.arguments(self.place), "--json"]

    def environment(self) -> dict[str, str]:
        """Of the data folder."""
        return own_environment(self.home)

    def run(self, *arguments: str, kill_after: float | None = None) -> Ended:
        """Run a command, by default the work's, to its end or until it is killed after so many seconds."""
        return self.forker.run(*(arguments or (*self.work.arguments(self.place), "--json")), kill_after=kill_after)

    def resume(self, said: str) -> Ended:
        """Run what continues a command that has said so much: what it printed itself, or the same again."""
        if self.work.resumable and "unfreeze resume " in said:
            run_id = said.rsplit("unfreeze resume ", 1)[1].split(maxsplit=1)[0].strip("'\"`);")
            return self.run("resume", run_id, "--json")
        return self.run()

    def outcome(self, ended: Ended) -> str:
        """How a case ended: see `benchmarks.faults`."""
        finished = re.search(r"run (\w+) is finished; there is nothing to", ended.stderr)
        found: Any
        if self.work.resumable and finished:  # it was killed after all of its work, and so it was in the next case
            found = last_metrics(self.home, finished[1], self.expected)
        elif "exists already, maybe from this very command" in ended.stderr:
            found = self.work.found(self.place, {})
        elif ended.returncode:
            return "lost" if "Traceback" not in ended.stderr else "wrong"
        else:
            found = self.work.found(self.place, json.loads(ended.stdout.splitlines()[-1]))
        if found != self.expected:
            return "wrong"
        if "begins again at its first epoch" in ended.stderr:
            return "lost"
        return "doubled" if is_doubled(self.home) else "right"


def begin(work: Work, folder: Path) -> Case:
    """A case from the state that the set-up left; what it comes to is found out once."""
    place = folder / work.name.replace(" ", "-")
    place.mkdir(parents=True, exist_ok=True)
    case = Case(work, place, _forker(place))
    kept = place / "reference.json"
    if not kept.exists():
        _prepare(case)
        renew(case)
        began = time.monotonic()
        result = json.loads(_whole(case.run()).splitlines()[-1])
        found = json.loads(json.dumps(work.found(place, result)))
        kept.write_text(json.dumps({"found": found, "seconds": time.monotonic() - began}))
    reference = json.loads(kept.read_text())
    renew(case)
    return case._replace(expected=reference["found"], seconds=reference["seconds"])


@cache
def _forker(place: Path) -> Forker:
    """What the commands of a place are forked from; it ends with the benchmark."""
    environment = {**own_environment(place / "home"), "PREFECT_HOME": str(place / "prefect"), "PREFECT_API_URL": _api()}
    return _until_the_end(forking(place, environment))


@cache
def _api() -> str:
    """Address of the Prefect server of all forked commands, as where `unfreeze up` runs; it has a folder of its own."""
    folder = Path(_until_the_end(tempfile.TemporaryDirectory()))
    return _until_the_end(running_server(folder, {**own_environment(folder), "PREFECT_HOME": str(folder)}))


_AT_END = ExitStack()
atexit.register(_AT_END.close)
_until_the_end = _AT_END.enter_context


def renew(case: Case) -> None:
    """Bring the data folder back to where the set-up left it."""
    shutil.rmtree(case.home, ignore_errors=True)
    shutil.copytree(case.place / "template", case.home, symlinks=True, dirs_exist_ok=True)
    for path in case.place.glob("*predictions.*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _prepare(case: Case) -> None:
    shutil.rmtree(case.place, ignore_errors=True)
    case.place.mkdir()
    for arguments in case.work.set_up(case.place):
        _whole(case.run(*arguments))
    case.work.add(case.place)
    for name in ("cache", "logs"):
        shutil.rmtree(case.home / name, ignore_errors=True)
    os.replace(case.home, case.place / "template")


def _whole(ended: Ended) -> str:
    if ended.returncode:
        sys.exit(f"{ended.args} ended with status {ended.returncode}:\n{ended.stderr[-3000:]}")
    return ended.stdout


def last_metrics(home: Path, run_id: str, names: Iterable[str]) -> dict[str, float]:
    """What MLflow has of a run's metrics of these names."""
    last = "select key, value from latest_metrics where run_uuid = ?"
    with closing(sqlite3.connect(home / "mlflow.db")) as store:
        found = dict(store.execute(last, [run_id]).fetchall())
    return {name: found[name] for name in names if name in found}


def is_doubled(home: Path) -> bool:
    """Whether MLflow has a step of a metric of a run twice, or two models of a run."""
    steps = "select 1 from metrics where key not like 'system/%' group by run_uuid, key, step having count(*) > 1"
    models = "select 1 from model_versions where run_id != '' group by run_id having count(*) > 1"
    with closing(sqlite3.connect(home / "mlflow.db")) as store:
        return any(store.execute(f"{query} limit 1").fetchone() for query in (steps, models))
