"""Automations on a Prefect server: requeue of crashed flow runs, retrainings on new data."""

from collections.abc import Iterable
from pathlib import Path
from uuid import UUID

import yaml
from prefect.automations import AutomationCore
from prefect.client.orchestration import get_client


def automations(retrain: UUID) -> list[AutomationCore]:
    """All of `automations.yaml`; `retrain` is the id of the deployment that new data start."""
    text = Path(__file__).with_name("automations.yaml").read_text().replace("RETRAIN", str(retrain))
    return [AutomationCore.model_validate(each) for each in yaml.safe_load(text)]


def apply_automations(wanted: Iterable[AutomationCore]) -> None:
    """Create the automations on the server, or update those of the same name; paused ones stay paused."""
    with get_client(sync_client=True) as client:
        for automation in wanted:
            known = client.read_automations_by_name(automation.name)
            if not known:
                client.create_automation(automation)
            for found in known:
                client.update_automation(found.id, automation.model_copy(update={"enabled": found.enabled}))
