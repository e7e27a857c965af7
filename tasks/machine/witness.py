"""A small process beside a training, which sees to its run should the training be killed."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from unfreeze.tasks.machine.environment import make_home
from unfreeze.tasks.machine.processes import own_module

SECONDS_TO_END = 5


@contextmanager
def witnessed(module: str) -> Iterator[None]:
    """Have a module of ours run should this process end within the block without leaving it.

    Until then the witness has imported nothing and takes 10 MB. It has a session of its own, so that a Ctrl-C or
    a terminal that closes does not end it; whatever ends the whole machine does.
    """
    *python, code = own_module(module)
    waiting = f"import sys\nif sys.stdin.buffer.read() != b'done':\n    exec({code!r})"
    log = make_home() / "logs" / "witness.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("ab") as output:
        witness = subprocess.Popen(
            [*python, waiting],
            stdin=subprocess.PIPE,  # closes as this process ends, however it ends
            stdout=subprocess.DEVNULL,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield
    finally:
        with suppress(OSError, subprocess.TimeoutExpired):
            witness.communicate(b"done", timeout=SECONDS_TO_END)
