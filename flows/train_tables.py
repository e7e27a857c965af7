"""Train an entity-embedding network on a table, from CSV files to a registered model, with baselines.

The steps are those of `unfreeze.flows.train_images`. Networks for tables have no pretrained body, so the default recipe
finds an lr and trains all layers.
"""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from unfreeze.flows.train_images import train, train_images
from unfreeze.models.settings.tables import TrainTables
from unfreeze.tasks.machine.flow_runs import HOOKS

DEFAULTS = TrainTables()


@flow(name="train-tables", flow_run_name="train on {params.data.source}", **HOOKS)
def train_tables(params: TrainTables = DEFAULTS, resume_run_id: str | None = None) -> dict[str, Any] | State[Any]:
    """Train, evaluate and register a network on a table by the recipe.

    Args:
        params: Everything that defines the training; every field has a default.
        resume_run_id: Id of an MLflow run that was stopped: resume it with the params it was started with.
    """
    return train(params, resume_run_id)


FLOWS: dict[str, Any] = {"images": train_images, "tables": train_tables}
"""Modality -> flow that trains on it."""
