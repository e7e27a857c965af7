"""What goes into a training, as a step: the data set, what was left out, augmented pictures, the network."""

from pathlib import Path

import pandas as pd
import torch
from prefect import task

from unfreeze.models.drift import picture_statistics
from unfreeze.models.errors import UserError
from unfreeze.models.images.augmentation import apply_views, draw_views
from unfreeze.models.images.classifier import summarise
from unfreeze.models.images.index import CONTRADICTION, Index
from unfreeze.models.images.recipe import ImageRecipe
from unfreeze.models.specs import TrainImages
from unfreeze.tasks import tracking
from unfreeze.tasks.drift import REFERENCE, sample_rows
from unfreeze.tasks.plots import plot_pictures
from unfreeze.tasks.progress import announce, say
from unfreeze.tasks.report import keep_picture, show_table
from unfreeze.tasks.stage import bind

MOST_ROWS_SHOWN = 500
PREVIEWED = 4
"""Pictures in the preview of augmentation, each with three random views beside it."""


@task(name="describe", task_run_name="describe data and network")
def describe(params: TrainImages, index_path: str, caches: dict[str, str], run_id: str) -> None:
    """Log the run's inputs: data set with digest, files left out, a grid of augmented pictures, model summary.

    Raises
    ------
    UserError
        If the run is resumed and its pictures are no longer those it was started with.
    """
    recipe = bind(params, index_path, caches)
    index = recipe.index
    known = tracking.tags_of(run_id).get("data.digest")
    if known == index.digest:
        return
    if known is not None:
        raise UserError(
            f"{params.data.source}: the pictures, labels or split changed since run {run_id} was started; "
            "put them back, or start a new run"
        )
    _log_data(params.data.source, index, index_path, run_id)
    _log_left_out(index, run_id)
    _log_augmentation(params, recipe, run_id)
    _log_reference(recipe, run_id)
    summary = pd.DataFrame(summarise(recipe.learner().network))
    tracking.log_text(run_id, f"{params.model.backbone}\n\n{summary.to_string(index=False)}\n", "model_summary.txt")
    # Last: a run that was killed within this step does it again.
    digests = {"data.digest": index.digest, tracking.FINGERPRINT: index.fingerprint()}
    tracking.log_tags(run_id, {**digests, "data.rows": str(len(index))})


def _log_data(source: str, index: Index, index_path: str, run_id: str) -> None:
    splits = {"train": len(index.train_rows()), "valid": len(index.valid_rows())}
    profile = {"classes": len(index.classes), **splits, "left_out": index.left_out.num_rows}
    tracking.log_data_set(run_id, Path(source).name or source, index.digest, source, profile)
    tracking.log_file(run_id, Path(index_path), "data")
    say(f"{splits['train']:,} training and {splits['valid']:,} validation pictures of {len(index.classes)} classes")


def _log_left_out(index: Index, run_id: str) -> None:
    rows = index.left_out.to_pylist()
    if not rows:
        return
    tracking.log_frame(run_id, index.left_out.to_pandas(), "data/left_out.feather")
    note = f"{len(rows):,} files were left out"
    if len(rows) > MOST_ROWS_SHOWN:
        note += f"; the first {MOST_ROWS_SHOWN} are shown, all are in data/left_out.feather of the MLflow run"
    show_table(rows[:MOST_ROWS_SHOWN], "left-out", note)
    say(f"{note}, such as {rows[0]['path']}: {rows[0]['reason']}")
    contradicting = [row for row in rows if row["reason"].startswith(CONTRADICTION)]
    if contradicting:
        row = contradicting[0]
        announce(
            f"warning: {len(contradicting):,} files are left out because the same image has another label elsewhere, "
            f"such as {row['path']} (labelled {row['label']!r}): {row['reason'].removeprefix(CONTRADICTION).strip()}; "
            "keep the right ones"
        )


def _log_reference(recipe: ImageRecipe, run_id: str) -> None:
    """Keep how a sample of the training pictures looks: what later data are compared with."""
    rows = sample_rows(recipe.rows["train"])
    statistics = picture_statistics(recipe.cache(0).gather(rows).permute(0, 2, 3, 1).numpy())
    labels = recipe.index.rows["label"].take(rows).to_pylist()
    tracking.log_frame(run_id, statistics.assign(label=labels), REFERENCE)


def _log_augmentation(params: TrainImages, recipe: ImageRecipe, run_id: str) -> None:
    rows = recipe.rows["train"][:PREVIEWED].repeat(4)
    pictures = recipe.cache(0).gather(rows).float().div_(255)
    views = draw_views(len(rows), params.augment, torch.Generator().manual_seed(params.seed))
    augmented = apply_views(pictures, views)
    augmented[::4] = pictures[::4]
    pixels = augmented.mul(255).byte().permute(0, 2, 3, 1).numpy()
    captions = [("as it is" if number % 4 == 0 else "augmented") for number in range(len(rows))]
    grid = plot_pictures(pixels, captions, f"Augmentation: {params.augment.preset}")
    keep_picture(run_id, grid, "data/augmentation.png", f"Augmentation: {params.augment.preset}")
