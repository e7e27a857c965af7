"""The final model as a step: log it, register it, give it an alias."""

import tempfile
from pathlib import Path

import pandas as pd
from prefect import task

from unfreeze.models.images.serving import example_image, save_classifier
from unfreeze.models.specs import TrainImages
from unfreeze.tasks import tracking
from unfreeze.tasks.steps.stage import bind, checkpoint_of, learner_at, snapshots_of
from unfreeze.tasks.tracking.log_model import IMAGE_LOADER, log_and_register

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
    size = recipe.sizes[position]
    example = example_image(size)
    if params.tracking.keep_examples:
        example = Path(recipe.index.rows["path"][int(recipe.rows["valid"][0])].as_py()).read_bytes()
    classes = list(recipe.index.classes)
    accuracy, snapshots = metrics["valid/accuracy_tta"], snapshots_of(run_id, params)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "classifier"
        save_classifier(folder, learner.network, params, recipe.preprocessing, classes, size, snapshots)
        return log_and_register(
            run_id,
            folder,
            IMAGE_LOADER,
            (tracking.IMAGES_IN, tracking.CLASSES_OUT),
            pd.DataFrame({"image": [example]}),
            REQUIREMENTS,
            {"classes": classes},
            name,
            f"{len(classes)} classes of {params.data.source}; validation accuracy with TTA {accuracy:.4f}",
        )
