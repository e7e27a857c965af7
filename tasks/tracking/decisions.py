"""What a retraining decided, carried out in the registry: at once, or when MLflow answers again."""

import json
import time
from collections.abc import Mapping
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

from unfreeze.tasks.tracking.registry import CHAMPION, LATEST_RETRAINING, describe, set_champion
from unfreeze.tasks.tracking.server import client

PROMOTED, KEPT, SUPERSEDED = "promoted", "kept champion", "superseded"
"""Values of the tag ``unfreeze.decision``; superseded is a promotion over a version that is not champion any more."""


def decision_entry(
    name: str, champion: str, promote: bool, reasons: list[str], numbers: str, data: str
) -> tuple[str, dict[str, Any]]:
    """The entry of a spool that `apply_decision` carries out, for the run of the challenger.

    Parameters
    ----------
    name
        Registered model.
    champion
        Number of the version that the challenger was compared with.
    promote
        Whether the challenger becomes champion.
    reasons, numbers
        Why; and the numbers as JSON.
    data
        Fingerprint of the data that the challenger was trained on.
    """
    about = {"reasons": reasons, "numbers": numbers, "data": data, "time": int(time.time())}
    return "decision", {"name": name, "champion": champion, "promote": promote, **about}


def apply_decision(run_id: str, body: Mapping[str, Any]) -> dict[str, str]:
    """Move the alias if the challenger is promoted and the version it beat is still champion; write it all down.

    Returns
    -------
    dict
        ``decision``, one of this module's constants, ``version`` of the challenger, ``champion``, and a ``line``.
    """
    mlflow_client, name, compared = client(), body["name"], body["champion"]
    found = mlflow_client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    if not found:
        raise MlflowException(f"run {run_id} has registered no version of {name}", RESOURCE_DOES_NOT_EXIST)
    number = str(max(int(each.version) for each in found))
    champion = mlflow_client.get_registered_model(name).aliases.get(CHAMPION)
    champion = None if champion is None else str(champion)
    if not body["promote"]:
        decision = KEPT
        line = f"Version {number} was not promoted, version {compared} stays champion"
    elif champion in (compared, number):
        set_champion(name, number)
        decision, champion = PROMOTED, number
        line = f"Version {number} was promoted over version {compared}"
    else:
        decision, now = SUPERSEDED, f"version {champion} is" if champion is not None else "there is none"
        line = f"Version {number} beat version {compared}, but {now} champion by now, so it was not promoted"
    tags = {
        "unfreeze.decision": decision,
        "unfreeze.decision.reasons": "; ".join(body["reasons"]),
        "unfreeze.decision.numbers": body["numbers"],
        "unfreeze.champion_before": compared,
    }
    whole = f"{line}: {'; '.join(body['reasons'])}."
    if whole not in (mlflow_client.get_model_version(name, number).description or ""):  # by an earlier attempt
        describe(name, number, whole)
    for key, value in tags.items():
        mlflow_client.set_model_version_tag(name, number, key, value)
        mlflow_client.set_tag(run_id, key, value)
    _remember(name, {"time": body["time"], "decision": line, "version": number, "data": body["data"]})
    return {"decision": decision, "version": number, "champion": champion or "", "line": line}


def _remember(name: str, retraining: dict[str, Any]) -> None:
    """Keep it as the model's latest retraining, unless a later one is known already."""
    latest = latest_retraining(name)
    if latest is None or latest["time"] <= retraining["time"]:
        client().set_registered_model_tag(name, LATEST_RETRAINING, json.dumps(retraining))


def latest_retraining(name: str) -> dict[str, Any] | None:
    """The model's latest retraining, its time, decision, version and data; None before the first."""
    text = client().get_registered_model(name).tags.get(LATEST_RETRAINING)
    kept: dict[str, Any] | None = json.loads(text) if text else None
    return kept
