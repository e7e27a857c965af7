"""Work on a Ray cluster, if one is named: whole shards as tasks, which Ray repeats on another node if theirs is lost.

Ray places the tasks and lends them CPUs and GPUs; nothing here schedules. Plain tasks rather than Ray Data, because a
shard is done once its files are in the folder that all nodes share, so rows pass through neither the driver nor Ray's
memory, and a task that is repeated skips what it has written. Ray is imported only if a cluster is named.
"""

import logging
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from unfreeze.models.errors import UserError, one_line
from unfreeze.tasks.machine.interruption import own_signal_handlers
from unfreeze.tasks.machine.notices import log_notice

ADDRESS = "RAY_ADDRESS"
"""Environment variable with a cluster's address; Ray sets it in the jobs that it runs."""
SHARDS_EACH = 8
"""Tasks for each CPU or GPU, so that a slow node or a lost one delays the end by an eighth of the work."""
REPEATS = 5
"""A task that was lost with its node or process so many times ends the work."""


def cluster_of(given: str | None) -> str | None:
    """Address of the cluster to use, or None."""
    return given or os.environ.get(ADDRESS) or None


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Be connected to a cluster while the block runs; yields the module `ray`.

    Raises
    ------
    UserError
        If Ray is not installed, or the cluster does not answer.
    """
    try:
        ray: Any = import_module("ray")
    except ImportError as error:
        raise UserError("cluster: Ray is a package of its own: pip install 'unfreeze[ray]'") from error
    try:
        with own_signal_handlers():
            context = ray.init(address, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise UserError(
            f"cluster: {address} does not answer as a Ray cluster of this release: {one_line(error)}"
        ) from error
    try:
        page = f"; Ray's page: http://{context.dashboard_url}" if context.dashboard_url else ""
        log_notice(f"on the Ray cluster {address} of {len(ray.nodes())} nodes{page}")
        yield ray
    finally:
        ray.shutdown()


def resources(ray: Any, device: str) -> tuple[dict[str, int], int]:
    """What a task asks for: a GPU if the cluster has any and `device` allows it, else a CPU; and how many there are."""
    total = ray.cluster_resources()
    if device in ("auto", "cuda") and total.get("GPU"):
        return {"num_gpus": 1}, int(total["GPU"])
    return {"num_cpus": 1}, int(total.get("CPU", 1))


class OnNode:
    """A command on a node of the cluster, which starts again on another if its node is lost.

    Parameters
    ----------
    ray, wanted
        From `connected` and `resources`.
    command, environment
        The command, and what differs in its environment from the node's.
    log
        Receives what it writes to its standard error; in a folder that all nodes share.
    """

    def __init__(
        self, ray: Any, wanted: dict[str, int], command: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> None:
        self._ray = ray
        self._task = ray.remote(_run).options(max_retries=REPEATS, **wanted).remote(command, environment, log)

    def wait(self) -> int:
        """Wait for the end; returns the exit status."""
        try:
            return int(self._ray.get(self._task))
        except self._ray.exceptions.RayError:
            return 1

    def terminate(self) -> None:
        """Stop the command, unless it is over."""
        self._ray.cancel(self._task)


def _run(command: Sequence[str], environment: Mapping[str, str], log: Path) -> int:
    with log.open("ab") as output:
        changed = {**os.environ, **environment}
        return subprocess.run(command, env=changed, stdout=subprocess.DEVNULL, stderr=output).returncode


def run_shards(
    ray: Any, function: Callable[..., Any], shards: Sequence[Sequence[Any]], wanted: dict[str, int]
) -> Iterator[Any]:
    """Call `function` with each shard's arguments on the cluster; yields results as they come.

    Tasks that are not over are cancelled if the caller stops, as it does when its flow run is cancelled.
    """
    task = ray.remote(function).options(max_retries=REPEATS, **wanted)
    waiting = [task.remote(*shard) for shard in shards]
    try:
        while waiting:
            done, waiting = ray.wait(waiting)
            try:
                yield from ray.get(done)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except ray.exceptions.RayError as error:
                raise UserError(f"cluster: a task was lost {REPEATS} times: {one_line(error)}") from error
    finally:
        for each in waiting:
            ray.cancel(each, force=True)
