"""What goes into a training, as a step: the data set, what was rejected, augmented images, the network."""

from pathlib import Path

import pandas as pd
import torch
from prefect import task

from unfreeze.models.drift import image_statistics
from unfreeze.models.errors import UserError
from unfreeze.models.images.augmentation import apply_views, draw_views
from unfreeze.models.images.classifier import summarise
from unfreeze.models.images.index import CONTRADICTION, Index
from unfreeze.models.images.recipe import ImageRecipe
from unfreeze.models.specs import TrainImages
from unfreeze.tasks import tracking
from unfreeze.tasks.prefect_run.progress import log_info, log_notice
from unfreeze.tasks.prefect_run.report import log_figure, show_table
from unfreeze.tasks.retraining.drift import REFERENCE, sample_rows
from unfreeze.tasks.steps.plots import plot_images
from unfreeze.tasks.steps.stage import bind

MOST_ROWS_SHOWN = 500
PREVIEWED = 4
"""Images in the preview of augmentation, each with three random views beside it."""


@task(name="describe", task_run_name="describe data and network")
def describe(params: TrainImages, index_path: str, caches: dict[str, str], run_id: str) -> None:
    """Log the run's inputs: data set with digest, files rejected, a grid of augmented images, model summary.

    Raises
    ------
    UserError
        If the run is resumed and its images are no longer those it was started with.
    """
    recipe = bind(params, index_path, caches)
    index = recipe.index
    known = tracking.tags_of(run_id).get("data.digest")
    if known == index.digest:
        return
    if known is not None:
        raise UserError(
            f"{params.data.source}: the images, labels or split changed since run {run_id} was started; "
            "put them back, or start a new run"
        )
    _log_data(params.data.source, index, index_path, run_id)
    _log_rejected(index, run_id)
    _log_augmentation(params, recipe, run_id)
    _log_reference(recipe, run_id)
    summary = pd.DataFrame(summarise(recipe.learner().network))
    tracking.log_text(run_id, f"{params.model.backbone}\n\n{summary.to_string(index=False)}\n", "model_summary.txt")
    # Last: a run that was killed within this step does it again.
    digests = {"data.digest": index.digest, tracking.FINGERPRINT: index.fingerprint()}
    tracking.log_tags(run_id, {**digests, "data.rows": str(len(index))})


def _log_data(source: str, index: Index, index_path: str, run_id: str) -> None:
    splits = {"train": len(index.train_rows()), "valid": len(index.valid_rows())}
    profile = {"classes": len(index.classes), **splits, "rejected": index.rejected.num_rows}
    tracking.log_data_set(run_id, Path(source).name or source, index.digest, source, profile)
    tracking.log_file(run_id, Path(index_path), "data")
    log_info(f"{splits['train']:,} training and {splits['valid']:,} validation images of {len(index.classes)} classes")


def _log_rejected(index: Index, run_id: str) -> None:
    rows = index.rejected.to_pylist()
    if not rows:
        return
    tracking.log_frame(run_id, index.rejected.to_pandas(), "data/rejected.feather")
    note = f"{len(rows):,} files were rejected"
    if len(rows) > MOST_ROWS_SHOWN:
        note += f"; the first {MOST_ROWS_SHOWN} are shown, all are in data/rejected.feather of the MLflow run"
    show_table(rows[:MOST_ROWS_SHOWN], "left-out", note)
    log_info(f"{note}, such as {rows[0]['path']}: {rows[0]['reason']}")
    contradicting = [row for row in rows if row["reason"].startswith(CONTRADICTION)]
    if contradicting:
        row = contradicting[0]
        log_notice(
            f"warning: {len(contradicting):,} files are rejected because the same image has another label elsewhere, "
            f"such as {row['path']} (labelled {row['label']!r}): {row['reason'].removeprefix(CONTRADICTION).strip()}; "
            "keep the right ones"
        )


def _log_reference(recipe: ImageRecipe, run_id: str) -> None:
    """Keep how a sample of the training images looks: what later data are compared with."""
    rows = sample_rows(recipe.rows["train"])
    statistics = image_statistics(recipe.cache(0).gather(rows).permute(0, 2, 3, 1).numpy())
    labels = recipe.index.rows["label"].take(rows).to_pylist()
    tracking.log_frame(run_id, statistics.assign(label=labels), REFERENCE)


def _log_augmentation(params: TrainImages, recipe: ImageRecipe, run_id: str) -> None:
    rows = recipe.rows["train"][:PREVIEWED].repeat(4)
    images = recipe.cache(0).gather(rows).float().div_(255)
    views = draw_views(len(rows), params.augment, torch.Generator().manual_seed(params.seed))
    augmented = apply_views(images, views)
    augmented[::4] = images[::4]
    pixels = augmented.mul(255).byte().permute(0, 2, 3, 1).numpy()
    captions = [("as it is" if number % 4 == 0 else "augmented") for number in range(len(rows))]
    grid = plot_images(pixels, captions, f"Augmentation: {params.augment.preset}")
    log_figure(run_id, grid, "data/augmentation.png", f"Augmentation: {params.augment.preset}")
