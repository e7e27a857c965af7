"""Fine-tune pretrained networks the way the fast.ai course taught it, as a tracked and scheduled pipeline.

In a notebook, ``from unfreeze import Images, Tables, load_model`` trains and predicts without any server;
``train`` and ``predict`` run the flows tracked by MLflow and Prefect.

``unfreeze.models`` trains and predicts without orchestration, ``unfreeze.tasks`` wraps its steps for Prefect and
MLflow, and ``unfreeze.flows`` has the flows and commands. Imports point one way: flows, tasks, models.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unfreeze.flows.notebook import predict, train
    from unfreeze.models.recipe.estimator import Images, Tables, load_model

__all__ = ["Images", "Tables", "load_model", "predict", "train"]

_PLACES = {
    "Images": "unfreeze.models.recipe.estimator",
    "Tables": "unfreeze.models.recipe.estimator",
    "load_model": "unfreeze.models.recipe.estimator",
    "predict": "unfreeze.flows.notebook",
    "train": "unfreeze.flows.notebook",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, because torch and prefect take seconds."""
    if name not in _PLACES:
        raise AttributeError(f"module 'unfreeze' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
