"""What `benchmarks.faults` does to commands: kills, outages, flipped bits, full disks, starts at the same moment."""

import json
import random
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psutil

from benchmarks import outages
from benchmarks._fault_cases import Case, Work, begin
from benchmarks._fault_commands import PREDICT, RETRAIN, SWEEP, SWEEP_OF_TWO, TRAIN, TRAIN_TABLE
from tests.disks import small_disk, why_no_disks

Found = dict[str, Any]
"""What was done, the ``outcome``, and the last line that was ``said``."""
FLIPPED = (".arrow", ".json", ".jsonl", ".safetensors", ".xxh3", ".feather")
"""Kept files that a training reads again; databases have a format of their own."""
LONGEST_OUTAGE = 300
"""Seconds; the shortest is one, and as many are below 17 as above."""
LARGE = 2**20
"""Kilobytes of a disk that is large enough."""
AT_ONCE = 3


def kill(work: Work, flips: bool = False) -> Callable[[Path, random.Random], Found]:
    """Kill a command at a random moment and continue it; a bit of a kept file may flip in between."""

    def tried(folder: Path, chance: random.Random) -> Found:
        case = begin(work, folder)
        after = chance.random() * case.seconds
        killed = case.run(kill_after=after)
        done: Found = {"killed after": round(after, 1)}
        if flips:
            done["flipped"] = _flip(case.home, chance)
        if killed.returncode:
            return {**done, **_end(case, case.resume(killed.stderr))}
        return {**done, **_end(case, case.run() if flips else killed)}  # it was faster than the undisturbed one

    return tried


def kill_worker(folder: Path, chance: random.Random) -> Found:
    """Kill one of two processes of a sweep: the other finishes what there is to do."""
    case = begin(SWEEP_OF_TWO, folder)
    pipe = subprocess.PIPE
    process = subprocess.Popen(case.command(), env=case.environment(), stdout=pipe, stderr=pipe, text=True)
    threading.Timer(
        after := chance.uniform(0.4, 0.95) * case.seconds, lambda: [each.kill() for each in _workers_of(process.pid)]
    ).start()
    output, errors = process.communicate()
    # All workers beside the first died: the search is whole, and its status is not 0, so that somebody looks.
    whole = process.returncode == 1 and "workers beside the first died" in errors
    ended = subprocess.CompletedProcess(case.command(), process.returncode, output, errors)
    if whole:
        ended = case.run()  # which finds all trials there
    return {"killed after": round(after, 1), **_end(case, ended)}


def mlflow_outage(folder: Path, chance: random.Random) -> Found:
    """MLflow is stopped, killed, gone or locked for a while, from the first epoch's end on."""
    seconds = LONGEST_OUTAGE ** chance.random()
    name = chance.choice(list(outages.DISTURBANCES))
    kept = folder / "outage.json"
    if not kept.exists():
        kept.write_text(json.dumps(_with_mlflow(lambda server: None)))
    expected = json.loads(kept.read_text())
    found = _with_mlflow(lambda server: outages.DISTURBANCES[name](server, seconds))
    return {
        "outage": f"{name} {seconds:.0f} s",
        "outcome": _outcome_of_outage(found, expected),
        "said": found["notices"][-1:],
    }


def prefect_outage(folder: Path, chance: random.Random) -> Found:
    """Prefect's server is stopped for a while, or killed for good, at a random moment."""
    case = begin(TRAIN, folder)
    after, seconds = chance.uniform(0.4, 0.95) * case.seconds, LONGEST_OUTAGE ** chance.random()
    killed = chance.random() < 0.5
    pipe = subprocess.PIPE
    process = subprocess.Popen(case.command(), env=case.environment(), stdout=pipe, stderr=pipe, text=True)

    def disturb() -> None:
        for server in _servers_of(process.pid):
            server.send_signal(signal.SIGKILL if killed else signal.SIGSTOP)
            if not killed:
                threading.Timer(seconds, server.send_signal, [signal.SIGCONT]).start()

    threading.Timer(after, disturb).start()
    output, errors = process.communicate()
    ended = subprocess.CompletedProcess(case.command(), process.returncode, output, errors)
    if ended.returncode and "Traceback" not in errors:  # without an answer in time a command begins nothing
        ended = case.resume(errors)
    outage = "killed" if killed else f"stopped {seconds:.0f} s"
    return {"outage": f"{outage} after {after:.1f} s", **_end(case, ended)}


def full_disk(folder: Path, chance: random.Random) -> Found:
    """The disk of the data folder is full at some point; then it is larger, and the command is continued."""
    if reason := why_no_disks():
        return {"outcome": "lost", "said": [reason]}
    case = begin(TRAIN, folder)
    template = case.place / "template"
    with small_disk(case.home, LARGE) as disk:
        shutil.copytree(template, case.home, dirs_exist_ok=True)
        least = disk.used
        kept = folder / "disk.json"
        if not kept.exists():
            _end(case, case.run())
            kept.write_text(json.dumps(disk.used - least))
    free = int(chance.uniform(0, 1.1) * json.loads(kept.read_text()))
    with small_disk(case.home, LARGE) as disk:
        shutil.copytree(template, case.home, dirs_exist_ok=True)
        disk.resize(disk.used + free)
        ended = case.run()
        disk.resize(LARGE)
        clear = ended.returncode == 0 or ("Traceback" not in ended.stderr and "is full" in ended.stderr)
        if ended.returncode:
            ended = case.resume(ended.stderr)
        case.run("sync")
        found = _end(case, ended)
    return {"free kB": free, **found, "outcome": found["outcome"] if clear else "wrong"}


def first_starts(folder: Path, chance: random.Random) -> Found:
    """Several first commands of one fresh data folder within a second."""
    case = begin(TRAIN, folder)
    shutil.rmtree(case.home)
    pipe, commands = subprocess.PIPE, []
    for _ in range(AT_ONCE):
        commands.append(subprocess.Popen(case.command(), env=case.environment(), stdout=pipe, stderr=pipe, text=True))
        time.sleep(chance.uniform(0, 0.5))
    ended = [
        subprocess.CompletedProcess(command.args, command.returncode, *texts)
        for command, texts in [(command, command.communicate()) for command in commands]
    ]
    found = [_end(case, each) for each in ended]
    worst = next((each for each in found if each["outcome"] != "right"), found[0])
    with closing(sqlite3.connect(case.home / "prefect" / "prefect.db")) as pages:
        states = pages.execute("select state_type from flow_run").fetchall()
    return worst if states == [("COMPLETED",)] * AT_ONCE else {**worst, "outcome": "lost"}


ROWS: dict[str, Callable[[Path, random.Random], Found]] = {
    **{f"kill {work.name}": kill(work) for work in (TRAIN, TRAIN_TABLE, SWEEP, RETRAIN, PREDICT)},
    "kill worker": kill_worker,
    "MLflow outage": mlflow_outage,
    "Prefect outage": prefect_outage,
    "bit flip": kill(TRAIN, flips=True),
    "full disk": full_disk,
    "first starts": first_starts,
}
"""Row of the table -> tries one case."""


def _end(case: Case, ended: "subprocess.CompletedProcess[str]") -> Found:
    return {"outcome": case.outcome(ended), "said": ended.stderr.splitlines()[-1:]}


def _flip(home: Path, chance: random.Random) -> str | None:
    """Flip a bit of a kept file; the file's name, None if there is none yet."""
    folders = (home / "cache", home / "mlflow-artifacts", home / "runs")
    files = sorted(
        path for folder in folders for path in folder.rglob("*") if path.suffix in FLIPPED and path.stat().st_size
    )
    if not files:
        return None
    path = chance.choice(files)
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)
    return str(path.relative_to(home))


def _with_mlflow(disturb: Callable[[outages.Server], None]) -> Found:
    with tempfile.TemporaryDirectory() as folder, outages.running(Path(folder)) as server:
        found = outages.train(server, lambda: disturb(server), outages.EPOCHS)
    return {**found, "steps": sorted([*name, count] for name, count in found["steps"].items())}


def _outcome_of_outage(found: Found, expected: Found) -> str:
    if found["tracebacks"] or found["status"] != "FINISHED":
        return "wrong"
    if any(count > 1 for *_, count in found["steps"]) or found["versions"] > 1:
        return "doubled"
    return "right" if found["steps"] == expected["steps"] and found["versions"] == 1 else "lost"


def _workers_of(pid: int) -> list[psutil.Process]:
    return [each for each in _children_of(pid) if "UNFREEZE_WORKER" in each.environ()]


def _servers_of(pid: int) -> list[psutil.Process]:
    return [
        each
        for each in _children_of(pid)
        if any("unfreeze.tasks.service.prefect_server" in word for word in each.cmdline())
    ]


def _children_of(pid: int) -> list[psutil.Process]:
    with suppress(psutil.Error):
        children: list[psutil.Process] = psutil.Process(pid).children()
        return children
    return []
