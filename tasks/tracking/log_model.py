"""A model's folder into MLflow: logged with its run, registered under a name, given an alias."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from unfreeze.tasks.prefect_run.progress import log_info
from unfreeze.tasks.tracking import runs as tracking

IMAGE_LOADER, TABLE_LOADER = "unfreeze.models.images.serving", "unfreeze.models.tables.serving"
"""Modules that read a model's folder: they also say what kind of model it is."""


def log_and_register(
    run_id: str,
    folder: Path,
    loader: str,
    signature: Any,
    example: pd.DataFrame,
    requirements: Sequence[str],
    metadata: Mapping[str, Any],
    name: str,
    description: str,
) -> dict[str, str]:
    """Log a model that predicts alone, register it under `name`, and say so.

    Parameters
    ----------
    run_id, folder, loader, signature, example, requirements, metadata
        See `tracking.log_model`.
    name
        Name in the model registry.
    description
        Of the version, for people.

    Returns
    -------
    dict
        ``model_uri``, ``name``, ``version`` and ``alias``.
    """
    uri, model_id = tracking.log_model(run_id, folder, loader, signature, example, requirements, metadata)
    number, alias = tracking.register_model(name, run_id, uri, model_id, description)
    log_info(f"registered {name} version {number} as {alias}")
    return {"model_uri": uri, "name": name, "version": number, "alias": alias}
