"""Metrics of a run (by step, computed once, of the machine), each step logged exactly once."""

import math
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from unfreeze.tasks.tracking.entries import log_rows, metrics_of
from unfreeze.tasks.tracking.folder import folder_of
from unfreeze.tasks.tracking.publish import ROWS_PER_CALL

if TYPE_CHECKING:  # imports torch, which commands that only list runs do not need
    from unfreeze.models.training.loop import Event

SYSTEM = "system/"
"""Prefix of machine metrics."""
SECONDS_BETWEEN_SAMPLES = 5


class MetricLog:
    """Buffer a run's metrics by step and log them in batches; a context manager.

    Steps of a metric that an earlier attempt at the run logged are skipped.

    Parameters
    ----------
    run_id
        The run.
    with_checkpoints
        Log nothing until the block's end except what `take` returned. Metrics are committed with the checkpoint that
        follows them, so a killed and resumed run has each step once.
    """

    def __init__(self, run_id: str, with_checkpoints: bool = False) -> None:
        self.run_id, self._holds, self._rows, self._sent = run_id, with_checkpoints, list[list[Any]](), time.monotonic()
        folder = folder_of(run_id)
        self._known = {} if folder is None else {name: step for name, (step, _) in folder.known.items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Log values at a step; flushed when the buffer is full, every few seconds, and at the end.

        A value may be a tensor on an accelerator; it is read only at the flush, because reading waits for the device.
        """
        now = int(time.time() * 1000)
        self._rows += [
            [key, value, now, step] for key, value in values.items() if step > self._known.get(key, -math.inf)
        ]
        if not self._holds and (len(self._rows) >= ROWS_PER_CALL or time.monotonic() - self._sent > 5):
            self.flush()

    def log_event(self, event: "Event", section: str = "") -> None:
        """Log a batch's loss and lrs, or an epoch's losses and finite metrics; names begin with `section`."""
        if event.kind == "batch":
            values: dict[str, Any] = {
                "train/loss": event.loss,
                **{f"lr/{group}": lr for group, lr in event.lrs.items()},
            }
        elif event.kind == "epoch":
            valid = {f"valid/{name}": value for name, value in event.metrics.items()}
            values = as_float({"train/epoch_loss": float(event.loss), **valid})
        else:
            return
        self.log({f"{section}{name}": value for name, value in values.items()}, event.step)

    def take(self) -> list[list[Any]]:
        """Empty the buffer and return its rows, for `save_checkpoint` to commit."""
        rows, self._rows, self._sent = self._rows, [], time.monotonic()
        return [[key, float(value), now, step] for key, value, now, step in rows]

    def flush(self) -> None:
        """Log the buffered values."""
        log_rows(self.run_id, self.take())


def log_metrics(run_id: str, values: Mapping[str, float], step: int) -> None:
    """Log values that are computed once, except those that an earlier attempt already logged unchanged."""
    folder, now = folder_of(run_id), int(time.time() * 1000)
    known = {} if folder is None else folder.known
    new = {key: float(value) for key, value in values.items() if known.get(key) != (step, float(value))}
    log_rows(run_id, [[key, value, now, step] for key, value in new.items()])


def as_float(values: Mapping[str, Any]) -> dict[str, float]:
    """The finite values; an undefined metric (an AUC with one class missing) is left out rather than logged as NaN."""
    return {key: float(value) for key, value in values.items() if np.isfinite(value)}


@contextmanager
def system_metrics(run_id: str, wanted: bool) -> Iterator[None]:
    """Log CPU, memory, disk, network and GPU use under ``system/`` while the block runs."""
    if not wanted:
        yield
        return
    ending = threading.Event()
    watcher = threading.Thread(target=_watch_machine, args=(run_id, ending), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ending.set()
        watcher.join()


def _watch_machine(run_id: str, ending: threading.Event) -> None:
    """Sample into the run's folder; MLflow's own monitor stops when the server does not answer."""
    source, known = SystemMetricsMonitor(run_id), metrics_of(run_id)
    number = max([step for name, (step, _) in known.items() if name.startswith(SYSTEM)], default=-1) + 1
    while not ending.is_set():
        source.collect_metrics()
        if ending.wait(SECONDS_BETWEEN_SAMPLES):
            return
        now = int(time.time() * 1000)
        found = source.aggregate_metrics()
        log_rows(run_id, [[f"{SYSTEM}{name}", float(value), now, number] for name, value in found.items()])
        number += 1
        for each in source.monitors:
            each.clear_metrics()
