"""The final model as a step: log it, register it, give it an alias."""

import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
from prefect import task

from models.images.serving import save_classifier
from models.specs import TrainImages
from tasks import tracking
from tasks.progress import say
from tasks.stage import bind, checkpoint_of, learner_at

REQUIREMENTS = ("torch", "torchvision", "timm", "safetensors", "pydantic", "pillow", "numpy", "pandas", "pyarrow")
"""What a served model needs, besides MLflow."""


@task(name="register-model", task_run_name="register {name}")
def register_model(
    params: TrainImages,
    index_path: str,
    caches: dict[str, str],
    run_id: str,
    position: int,
    name: str,
    metrics: dict[str, float],
) -> dict[str, str]:
    """Log the run's latest weights as a model that predicts alone, and register it under `name`.

    Returns
    -------
    dict
        ``model_uri``, ``name``, ``version`` and ``alias``.
    """
    recipe = bind(params, index_path, caches)
    learner = learner_at(recipe, position, 1.0, checkpoint_of(run_id))
    example = Path(recipe.index.rows["path"][int(recipe.rows["valid"][0])].as_py()).read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        save_classifier(
            Path(folder) / "classifier",
            learner.network,
            params.model,
            recipe.preprocessing,
            recipe.index.classes,
            recipe.sizes[position],
            params.data.fit,
            params.data.max_megapixels,
            params.precision,
        )
        uri, model_id = tracking.log_model(
            run_id,
            Path(folder) / "classifier",
            "models.images.serving",
            (tracking.PICTURES_IN, tracking.CLASSES_OUT),
            pd.DataFrame({"image": [example]}),
            REQUIREMENTS,
            {"classes": list(recipe.index.classes)},
        )
    accuracy = metrics["valid/accuracy_tta"]
    description = (
        f"{len(recipe.index.classes)} classes of {params.data.source}; validation accuracy with TTA {accuracy:.4f}"
    )
    number, alias = tracking.register_model(name, run_id, uri, model_id, description)
    say(f"registered {name} version {number} as {alias}")
    result: dict[str, Any] = {"model_uri": uri, "name": name, "version": number, "alias": alias}
    return result
