"""Flow runs of killed processes, found by lock files and ended by the next command.

``flow-runs/ID`` in the data folder is locked by the flow run's process and removed when the run ends. An unlocked file
belongs to a process that was killed, or that could not report its final state to Prefect and wrote it to the file.
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from unfreeze.tasks.machine.environment import home
from unfreeze.tasks.machine.locks import hold, holding, release

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

_held: dict[Path, int] = {}
"""Files of this process's flow runs -> their locks."""


def note_process(flow: Any, flow_run: Any, state: Any) -> None:
    """Lock the file of a starting flow run, except for deployments, which have a worker and automations."""
    path = _folder() / str(flow_run.id)
    if flow_run.deployment_id is None and path not in _held:
        new = path.with_name(f"{flow_run.id.hex}.new")  # ignored by others until it is locked
        if (lock := hold(new)) is not None:
            new.rename(path)
            _held[path] = lock


def forget_process(flow: Any, flow_run: Any, state: Any) -> None:
    """Remove the file of a finished flow run."""
    path = _folder() / str(flow_run.id)
    path.unlink(missing_ok=True)
    if path in _held:
        release(_held.pop(path))


HOOKS: dict[str, Any] = {
    "on_running": [note_process],
    **{f"on_{end}": [forget_process] for end in ("completion", "failure", "cancellation", "crashed")},
}
"""Of every flow."""


def note_end(state: "State[Any]") -> None:
    """Record the final state of this process's flow runs when Prefect is unreachable."""
    for path in list(_held):
        if path.exists():
            path.write_text(json.dumps({"ended": str(state.type.value), "message": state.message}))
        release(_held.pop(path))


def gone_flow_runs() -> list[Path]:
    """Files of this data folder's flow runs that no living process holds."""
    found = []
    for path in sorted(_folder().glob("*-*")):
        with holding(path) as is_gone:
            if is_gone:
                found.append(path)
    return found


def end_gone_flow_runs() -> int:
    """End the flow runs of `gone_flow_runs` on the server, in their recorded state or as Crashed; returns their number.

    The server is contacted only if there are any.
    """
    if not (gone := gone_flow_runs()):  # most commands find none, and importing Prefect takes two seconds
        return 0
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.objects import State, StateType
    from prefect.exceptions import ObjectNotFound

    count = 0
    crashed = {"ended": "CRASHED", "message": "Its process is gone; see `unfreeze runs`"}
    for path in gone:
        with suppress(ValueError):  # the file name is not an id
            noted = crashed | json.loads(path.read_text() or "{}")
            with get_client(sync_client=True) as client, suppress(ObjectNotFound):
                found = client.read_flow_run(UUID(path.name))
                if found.state is not None and not found.state.is_final():
                    state: State[Any] = State(type=StateType(noted["ended"]), message=noted["message"])
                    client.set_flow_run_state(found.id, state, force=True)
                    count += 1
        path.unlink(missing_ok=True)
    return count


def _folder() -> Path:
    return home() / "flow-runs"
