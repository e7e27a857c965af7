"""Evaluation as a step: plain and with test-time augmentation, and everything that shows where it errs."""

from pathlib import Path

import numpy as np
import pandas as pd
from prefect import task

from unfreeze.models.images.evaluation import (
    error_reduction,
    per_class_table,
    predict_views,
    predictions_table,
    row_losses,
)
from unfreeze.models.images.recipe import ImageRecipe, majority_share
from unfreeze.models.specs import TrainImages
from unfreeze.models.training.metrics import pick_metrics
from unfreeze.tasks import tracking
from unfreeze.tasks.prefect_run.progress import log_info
from unfreeze.tasks.prefect_run.report import log_figure, show_table
from unfreeze.tasks.steps.plots import plot_confusion, plot_images
from unfreeze.tasks.steps.precompute import as_views
from unfreeze.tasks.steps.stage import bind, checkpoint_of, learner_at, snapshots_of


@task(name="evaluate", task_run_name="evaluate {section}")
def evaluate(
    params: TrainImages,
    index_path: str,
    caches: dict[str, str],
    activations: dict[str, str],
    run_id: str,
    position: int,
    section: str,
) -> dict[str, float]:
    """Evaluate the run's latest weights on all validation rows, with and without TTA.

    Parameters
    ----------
    params, index_path, caches, activations, run_id, position
        As for `train_stage`; the images are those of stage `position`.
    section
        Prefix of the metrics: ``valid`` for the final weights, ``baseline`` for those of the head stages.

    Returns
    -------
    dict
        ``SECTION/loss``, ``SECTION/accuracy``, every metric also as ``..._tta``, ``SECTION/error_reduction_tta`` and
        ``SECTION/majority`` (the accuracy of always answering the commonest class). With a snapshot ensemble they are
        its own, and ``..._tta_single`` those of the final weights alone.
    """
    recipe = bind(params, index_path, caches)
    learner = learner_at(recipe, position, 1.0, checkpoint_of(run_id))
    targets = recipe.targets["valid"]
    views = recipe.evaluation_views(position, as_views(activations))
    plain, averaged = predict_views(learner, views, params.tta)
    values: dict[str, float] = {}
    if section == "valid" and params.snapshots > 1:
        single = {name: metric(averaged, targets) for name, metric in pick_metrics(params.metrics).items()}
        members = [(plain, averaged)]
        for state in snapshots_of(run_id, params):
            learner.network.load_state_dict(state)
            members.append(predict_views(learner, views, params.tta))
        plain, averaged = (np.mean(each, axis=0) for each in zip(*members, strict=True))
        values |= {f"{name}_tta_single": value for name, value in single.items()}
    for suffix, probabilities in (("", plain), ("_tta", averaged)):
        values[f"loss{suffix}"] = float(row_losses(probabilities, targets).mean())
        for name, metric in pick_metrics(params.metrics).items():
            values[f"{name}{suffix}"] = metric(probabilities, targets)
    values["error_reduction_tta"] = error_reduction(values["accuracy"], values["accuracy_tta"])
    values["majority"] = majority_share(targets)
    metrics = tracking.as_float({f"{section}/{name}": value for name, value in values.items()})
    with tracking.MetricLog(run_id) as log:
        log.log(metrics, learner.progress.step)
    paths = recipe.index.rows["path"].take(recipe.rows["valid"]).to_pylist()
    predictions = predictions_table(paths, targets, plain, averaged, recipe.index.classes)
    tracking.log_frame(run_id, predictions, f"{section}/predictions.feather")
    log_info(
        f"{section}: accuracy {values['accuracy']:.4f} plain, {values['accuracy_tta']:.4f} with TTA "
        f"({values['error_reduction_tta']:+.0%} of the errors removed), on {len(targets):,} rows"
    )
    if section == "valid":
        _show_errors(params, recipe, run_id, position, predictions, averaged)
    return metrics


def _show_errors(
    params: TrainImages,
    recipe: ImageRecipe,
    run_id: str,
    position: int,
    predictions: pd.DataFrame,
    averaged: np.ndarray,
) -> None:
    """Log the table per class, the confusion matrix and the images with the highest loss."""
    targets, classes = recipe.targets["valid"], recipe.index.classes
    table = per_class_table(averaged, targets, classes)
    tracking.log_frame(run_id, table, "valid/per_class.feather")
    tracking.log_text(run_id, table.to_string(index=False), "valid/per_class.txt")
    show_table(
        [{str(key): value for key, value in row.items()} for row in table.round(4).to_dict("records")],
        "per-class",
        "Per class (validation rows, with TTA)",
    )
    confusion = plot_confusion(targets, averaged.argmax(1), classes)
    log_figure(run_id, confusion, "valid/confusion.png", "Confusion matrix")
    if params.tracking.top_losses:
        worst = predictions.nlargest(params.tracking.top_losses, "loss")
        shown = ["path", "label", "predicted", "probability", "loss"]
        rows = recipe.rows["valid"][worst.index.to_numpy()]
        pixels = recipe.cache(position).gather(rows).permute(0, 2, 3, 1).numpy()
        captions = [
            f"{Path(path).name}\n{label}, said {predicted} ({probability:.2f}), loss {loss:.2f}"
            for path, label, predicted, probability, loss in worst[shown].itertuples(index=False)
        ]
        grid = plot_images(pixels, captions, "Highest losses")
        log_figure(run_id, grid, "valid/top_losses.png", "Images with the highest loss")
