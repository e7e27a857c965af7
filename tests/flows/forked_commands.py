"""Commands without the seconds that their imports take: a process that has made them forks one for each command."""

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

PROJECT = Path(__file__).parents[2]


class Forker:
    """Runs commands of `unfreeze`, each in a process of its own; see `forking`."""

    def __init__(self, process: "subprocess.Popen[str]", folder: Path) -> None:
        self._process, self._folder = process, folder

    def run(self, *arguments: str, kill_after: float | None = None) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end, or until it is killed after so many seconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        files = [str(self._folder / name) for name in ("stdout", "stderr")]
        self._process.stdin.write(f"{json.dumps([arguments, *files])}\n")
        self._process.stdin.flush()
        pid = int(self._process.stdout.readline())
        killer = threading.Timer(kill_after or 0, os.kill, [pid, signal.SIGKILL])
        if kill_after is not None:
            killer.start()
        status = int(self._process.stdout.readline())
        killer.cancel()
        output, errors = (Path(file).read_text() for file in files)
        return subprocess.CompletedProcess(arguments, status, output, errors)


@contextmanager
def forking(folder: Path, environment: Mapping[str, str]) -> Iterator[Forker]:
    """A forker whose commands have this environment; Prefect reads its own part of it once."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.flows.forked_commands"],
        cwd=PROJECT,
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Forker(process, folder)
        assert process.stdin is not None
        process.stdin.close()


def _serve() -> None:
    from unfreeze.flows import cli, predict, retrain, sweep, train_images  # noqa: F401
    from unfreeze.models.images import modality  # noqa: F401  so that commands find it imported

    for line in sys.stdin:
        arguments, *files = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(cli.main, arguments, files)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _become(main: object, arguments: list[str], files: list[str]) -> None:
    status = 1
    try:
        for number, file in enumerate(files, start=1):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        status = main(arguments)
        atexit._run_exitfuncs()
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    _serve()
