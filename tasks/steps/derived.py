"""Preparation steps: tasks whose results are derived files, shown as Cached when all of them are there."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from prefect import Task
from prefect.context import TaskRunContext

from unfreeze.tasks.machine.cache import key_of, missing


def derived_task(
    targets: Callable[..., list[Path]], name: str, run_name: str | Callable[[], str]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a function a task that Prefect skips, as Cached, while the files that it derives exist.

    Prefect's own cache would hand out a path whose file was deleted; here such a step runs again.

    Parameters
    ----------
    targets
        Takes the function's arguments and returns the content-addressed paths that it makes.
    name
        The task's name.
    run_name
        Name of a task run: a template of the arguments, or a function that reads them from the run's context.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        step: Task[..., Any] = Task(function, name=name, task_run_name=run_name, persist_result=True)

        @wraps(function)
        def call(*arguments: Any) -> Any:
            paths = targets(*arguments)
            key = key_of(name, [str(path) for path in paths])

            def cache_key(context: TaskRunContext, parameters: dict[str, Any]) -> str:
                return key

            return step.with_options(cache_key_fn=cache_key, refresh_cache=bool(missing(paths)))(*arguments)

        call.fn = function  # type: ignore[attr-defined]
        return call

    return decorate
