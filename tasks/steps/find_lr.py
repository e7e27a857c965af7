"""The learning-rate finder as a step."""

import pandas as pd
from prefect import task

from unfreeze.models.specs import TrainImages
from unfreeze.models.table_specs import TrainTables
from unfreeze.models.training.finder import find_lr_curve
from unfreeze.tasks import tracking
from unfreeze.tasks.prefect_run.progress import log_info
from unfreeze.tasks.prefect_run.report import log_figure
from unfreeze.tasks.steps.plots import plot_lr_curve
from unfreeze.tasks.steps.precompute import as_views
from unfreeze.tasks.steps.stage import bind_any, checkpoint_of, learner_at, named_after_stage


@task(name="find-lr", task_run_name=named_after_stage("find a learning rate for"))
def find_lr(
    params: TrainImages | TrainTables,
    index_path: str,
    caches: dict[str, str],
    activations: dict[str, str],
    run_id: str,
    position: int,
) -> dict[str, float]:
    """Sweep the lr of stage `position` on the weights as they are; returns the suggestions by method.

    The curve goes to MLflow as an image and a feather file.
    """
    stage = params.recipe[position]
    recipe = bind_any(params, index_path, caches)
    learner = learner_at(recipe, position, 1.0, checkpoint_of(run_id))
    train, _ = recipe.batches(position, as_views(activations))
    curve = find_lr_curve(learner, train, params.finder)
    suggestions = curve.suggestions()
    method = params.finder.method
    frame = pd.DataFrame({"lr": curve.lrs, "loss": curve.losses, "smoothed": curve.smoothed})
    tracking.log_frame(run_id, frame, f"learning_rate/{stage.name}.feather")
    figure = plot_lr_curve(curve, suggestions, method, f"Learning rate for stage {stage.name}")
    log_figure(run_id, figure, f"learning_rate/{stage.name}.png", f"Learning-rate finder, stage {stage.name}")
    log_info(f"{stage.name}: learning rate {suggestions[method]:.2g} ({method}), of {_listed(suggestions)}")
    return suggestions


def _listed(suggestions: dict[str, float]) -> str:
    return ", ".join(f"{method} {lr:.2g}" for method, lr in suggestions.items())
