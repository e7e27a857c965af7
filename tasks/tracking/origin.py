"""What a run was made with, kept with it: the code, the packages and the machine of each time it was started."""

import json

from unfreeze.tasks import tracking
from unfreeze.tasks.machine.notices import log_notice
from unfreeze.tasks.machine.provenance import provenance

STARTS, PACKAGES = "code/starts.json", "code/packages.txt"
COMMIT = "mlflow.source.git.commit"
"""Tag that MLflow's page shows."""


def log_origin(run_id: str) -> None:
    """Keep what the run is made with from here on: a resumed run may be finished by other code on another machine."""
    found, before = provenance(), starts_of(run_id)
    patch = f"code/uncommitted-{len(before) + 1}.patch" if found.diff else ""
    if patch:
        tracking.log_text(run_id, found.diff, patch)
    tracking.log_text(run_id, found.packages, PACKAGES)
    tracking.log_text(run_id, json.dumps([*before, {**found.facts, "patch": patch}], indent=1), STARTS)
    if found.commit:
        tracking.log_tags(run_id, {COMMIT: found.commit})


def starts_of(run_id: str) -> list[dict[str, str]]:
    """What the run was made with at every start, the first one first; see `Provenance.facts`."""
    path = tracking.fetch(run_id, STARTS)
    try:
        starts: list[dict[str, str]] = json.loads(path.read_text()) if path is not None else []
    except ValueError as error:
        log_notice(f"warning: {STARTS} of run {run_id} is damaged ({error}): what it was made with is unknown")
        return []
    return starts
