"""The workspace of a flow, with steps as Prefect tasks; those whose derived files exist show as Cached."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from prefect import Task

from unfreeze.models.store.workspace import Build, Derived, Result, Workspace, key_of
from unfreeze.tasks.machine.environment import home
from unfreeze.tasks.machine.notices import in_run, log_info, log_notice
from unfreeze.tasks.machine.page import progress


def as_task(name: str, function: Callable[[], Result], **settings: Any) -> Result:
    """Run a function as a Prefect task of that name; outside a flow just call it."""
    if not in_run():
        return function()
    shown = name.replace("{", "{{").replace("}", "}}")  # Prefect formats names; escape braces in paths
    run: Callable[[], Result] = Task(function, name=name.split(" ", maxsplit=1)[0], task_run_name=shown, **settings)
    return run()


class FlowWorkspace(Workspace):
    """The data folder, with steps as Prefect tasks inside a flow."""

    step = staticmethod(as_task)
    progress = staticmethod(progress)
    log = staticmethod(log_info)
    notice = staticmethod(log_notice)

    def __init__(self) -> None:
        super().__init__(home())

    def derive(self, name: str, files: Mapping[str, Derived], build: Build) -> dict[str, Path]:
        """Derive files in a task that Prefect skips as Cached while they exist; a deleted file is rebuilt."""
        paths = {each: self.path(derived) for each, derived in files.items()}
        key = key_of(name, {each: str(path) for each, path in paths.items()})

        def derive() -> dict[str, str]:
            return {each: str(path) for each, path in Workspace.derive(self, name, files, build).items()}

        is_missing = bool(self.unready(files.values()))
        as_task(name, derive, persist_result=True, cache_key_fn=lambda *_: key, refresh_cache=is_missing)
        return paths
