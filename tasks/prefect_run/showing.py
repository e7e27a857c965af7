"""What the Prefect page shows is sent by a thread of its own: a server that is gone neither stalls nor ends a run."""

import atexit
import queue
import threading
import time
from collections.abc import Callable
from contextvars import Context, copy_context

from unfreeze.tasks.prefect_run.notices import log_notice

MOST_WAITING = 1000
"""Things to show that wait; MLflow has everything that they show, so more are left out."""
SECONDS_AT_THE_END = 10.0


class _Showing:
    """The thread and what waits for it."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[tuple[Context, Callable[[], object]]] = queue.Queue(MOST_WAITING)
        self._start, self._is_away = threading.Lock(), False
        self._thread: threading.Thread | None = None

    def add(self, make: Callable[[], object]) -> None:
        with self._start:
            if self._thread is None:
                self._thread = threading.Thread(target=self._show, daemon=True)
                self._thread.start()
                atexit.register(self.wait, SECONDS_AT_THE_END)
        try:
            self._waiting.put_nowait((copy_context(), make))
        except queue.Full:
            return

    def wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while self._waiting.unfinished_tasks and not self._is_away and time.monotonic() < end:
            time.sleep(0.05)

    def _show(self) -> None:
        while True:
            context, make = self._waiting.get()
            try:
                context.run(make)
                self._is_away = False
            except Exception as error:  # of Prefect, its client, or the network
                if not self._is_away:
                    text = (
                        f"Prefect does not answer ({type(error).__name__}: {error}); the run continues without its page"
                    )
                    context.run(log_notice, text)
                self._is_away = True
            finally:
                self._waiting.task_done()


_SHOWING = _Showing()


def show(make: Callable[[], object]) -> None:
    """Have `make` called, which makes something on the Prefect page of the run under way; returns at once."""
    _SHOWING.add(make)


def wait_until_shown() -> None:
    """Wait a moment until the page has everything; not while Prefect does not answer."""
    _SHOWING.wait(SECONDS_AT_THE_END)
