"""Which process runs a flow, so that a flow run whose process was killed can be ended by whoever comes next."""

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from unfreeze.tasks.machine.environment import home
from unfreeze.tasks.machine.processes import is_gone, this_process

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State


def note_process(flow: Any, flow_run: Any, state: Any) -> None:
    """A hook of flows that begin: note the process of one that a person started, or that is part of another.

    Those of deployments have a worker, and automations, that see them end.
    """
    if flow_run.deployment_id is None:
        path = _folder() / str(flow_run.id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(this_process()))


def forget_process(flow: Any, flow_run: Any, state: Any) -> None:
    """A hook of flows that end."""
    (_folder() / str(flow_run.id)).unlink(missing_ok=True)


HOOKS: dict[str, Any] = {
    "on_running": [note_process],
    **{f"on_{end}": [forget_process] for end in ("completion", "failure", "cancellation", "crashed")},
}
"""Of every flow."""


def note_end(state: "State[Any]") -> None:
    """Note how this process's flow runs ended where Prefect could not be told."""
    for path in _folder().glob("*"):
        kept = json.loads(path.read_text())
        if kept["unfreeze.process"] == this_process()["unfreeze.process"]:
            path.write_text(json.dumps({**kept, "ended": str(state.type.value), "message": state.message}))


def gone_flow_runs() -> dict[Path, dict[str, Any]]:
    """Notes on flow runs of this data folder whose process on this machine is gone."""
    found = {}
    for path in sorted(_folder().glob("*")):
        with suppress(FileNotFoundError, ValueError):  # another command is at it
            kept = json.loads(path.read_text())
            if is_gone(kept):
                found[path] = kept
    return found


def end_gone_flow_runs() -> int:
    """End flow runs of this data folder whose process on this machine is gone; returns how many.

    They end as their process noted, else as Crashed. The server is asked only if there are such processes.
    """
    # Here, because most commands find none, and importing Prefect takes two seconds.
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.objects import State, StateType
    from prefect.exceptions import ObjectNotFound

    count = 0
    crashed = {"ended": "CRASHED", "message": "Its process is gone; see `unfreeze runs`"}
    for path, noted in gone_flow_runs().items():
        with suppress(ValueError):  # of a note that is not ours
            kept = crashed | noted
            with get_client(sync_client=True) as client, suppress(ObjectNotFound):
                found = client.read_flow_run(UUID(path.name))
                if found.state is not None and not found.state.is_final():
                    state: State[Any] = State(type=StateType(kept["ended"]), message=kept["message"])
                    client.set_flow_run_state(found.id, state, force=True)
                    count += 1
            path.unlink(missing_ok=True)
    return count


def _folder() -> Path:
    return home() / "flow-runs"
