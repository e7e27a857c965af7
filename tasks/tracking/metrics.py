"""Metrics of a run: by step, computed once, and of the machine; each step of a metric is logged once."""

import math
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from unfreeze.tasks.tracking.operations import METRICS_PER_CALL
from unfreeze.tasks.tracking.spool import Entry
from unfreeze.tasks.tracking.under_way import delivery_of, keep

SYSTEM = "system/"
"""Prefix of metrics of the machine."""
SECONDS_BETWEEN_SAMPLES = 5


class MetricLog:
    """Buffers a run's metrics by step and sends them in batches; use it as a context manager.

    What an earlier attempt at the run logged of a metric is not logged again: its steps up to the latest are skipped.

    Parameters
    ----------
    run_id
        The MLflow run.
    with_checkpoints
        Send nothing before the block's end but what `take` returned: metrics are kept with the checkpoint that they
        lead up to, so that a run that is killed and resumed has each step once.
    """

    def __init__(self, run_id: str, with_checkpoints: bool = False) -> None:
        self.run_id, self._holds, self._rows, self._sent = run_id, with_checkpoints, list[list[Any]](), time.monotonic()
        delivery = delivery_of(run_id)
        self._known = {name: step for name, (step, _) in delivery.known.items()} if delivery is not None else {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Log values at a step; they are sent when the buffer is full, every few seconds, and at the end.

        A value may be a tensor on an accelerator, which is only read when it is sent: reading waits for the device.
        """
        now = int(time.time() * 1000)
        self._rows += [[key, value, now, step] for key, value in values.items() if step > self._latest(key)]
        if not self._holds and (len(self._rows) >= METRICS_PER_CALL or time.monotonic() - self._sent > 5):
            self.flush()

    def _latest(self, key: str) -> float:
        return self._known.get(key, -math.inf)

    def take(self) -> list[Entry]:
        """What is buffered, for `save_checkpoint` to keep; the buffer is empty then."""
        rows, self._rows, self._sent = self._rows, [], time.monotonic()
        for row in rows:
            row[1] = float(row[1])
        return [("metrics", {"rows": rows})] if rows else []

    def flush(self) -> None:
        """Send what is buffered."""
        keep(self.run_id, *self.take())


def log_metrics(run_id: str, values: Mapping[str, float], step: int) -> None:
    """Log values that are computed once; those that an earlier attempt at the run logged as they are, are skipped."""
    delivery, now = delivery_of(run_id), int(time.time() * 1000)
    known = delivery.known if delivery is not None else {}
    new = {key: float(value) for key, value in values.items() if known.get(key) != (step, float(value))}
    if new:
        keep(run_id, ("metrics", {"rows": [[key, value, now, step] for key, value in new.items()]}))


def as_float(values: Mapping[str, Any]) -> dict[str, float]:
    """The finite values: an undefined metric (an AUC without one class) is left out, not logged as NaN."""
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
    """Log by way of the run's spool; MLflow's own monitor asks the server each time, and ends if it does not answer."""
    source, delivery = SystemMetricsMonitor(run_id), delivery_of(run_id)
    known = delivery.known if delivery is not None else {}
    number = max([step for name, (step, _) in known.items() if name.startswith(SYSTEM)], default=-1) + 1
    while not ending.is_set():
        source.collect_metrics()
        if ending.wait(SECONDS_BETWEEN_SAMPLES):
            return
        now = int(time.time() * 1000)
        rows = [[f"{SYSTEM}{name}", float(value), now, number] for name, value in source.aggregate_metrics().items()]
        keep(run_id, ("metrics", {"rows": rows}))
        number += 1
        for each in source.monitors:
            each.clear_metrics()
