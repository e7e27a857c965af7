"""Fine-tune pretrained networks the way the fast.ai course taught it, as a tracked and scheduled pipeline.

In Python, ``from unfreeze import Images, Tables, load_model`` trains and predicts without any server; with
``tracked=True`` a training is a run, tracked by MLflow and shown by Prefect.

``unfreeze.models`` trains and predicts without orchestration, ``unfreeze.tasks`` wraps its steps for Prefect and
MLflow, and ``unfreeze.flows`` has the flows and commands. Imports point one way: estimators, flows, tasks, models.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unfreeze.estimators.images import Images
    from unfreeze.estimators.loading import load_model
    from unfreeze.estimators.tables import Tables

__all__ = ["Images", "Tables", "load_model"]

_PLACES = {
    "Images": "unfreeze.estimators.images",
    "Tables": "unfreeze.estimators.tables",
    "load_model": "unfreeze.estimators.loading",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, because torch and prefect take seconds."""
    if name not in _PLACES:
        raise AttributeError(f"module 'unfreeze' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
