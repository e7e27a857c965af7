"""Images that a model is wrong about, as a person wants to see them: large, with what misled it, and wrong labels."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from unfreeze.models.evaluation.plots import plot_images
from unfreeze.models.evaluation.results import Card, Findings
from unfreeze.models.images.networks.classifier import normalise_bytes
from unfreeze.models.images.networks.grad_cam import grad_cam, overlay
from unfreeze.models.images.pixels.rendering import square_jpeg
from unfreeze.models.recipe.training_data import Candidate
from unfreeze.models.training.learner import Learner

if TYPE_CHECKING:
    from unfreeze.models.images.data import ImageData

MOST_CARDS = 12
LARGEST = 640
"""Side in pixels of the images on cards, at most: smaller ones have all of their pixels."""
MOST_LISTED = 50
"""Likely label errors that a table shows; a file has all."""


def show_top_losses(
    data: "ImageData", position: int, split: str, predictions: pd.DataFrame, title: str, found: Findings
) -> None:
    """A figure of the rows of `Target.evaluated` with the highest loss."""
    worst = predictions.nlargest(data.params.tracking.top_losses, "loss")
    pixels = data.cache(position).gather(data.rows[split][worst.index.to_numpy()]).permute(0, 2, 3, 1).numpy()
    found.figure(f"{split}/top_losses.png", title, lambda: plot_images(pixels, data.target.captions(worst), title))


def show_mistakes(
    data: "ImageData",
    learner: Learner,
    candidate: Candidate,
    split: str,
    predictions: pd.DataFrame,
    mistaken: np.ndarray,
    found: Findings,
) -> None:
    """A card for each of the worst mistakes, with what spoke for it in the image.

    Parameters
    ----------
    predictions
        Rows of the split, see `Target.evaluated`.
    mistaken
        See `Target.mistaken`.
    """
    wrong = predictions[mistaken >= 0]
    worst = wrong.nlargest(min(MOST_CARDS, data.params.tracking.top_losses), "loss")
    if worst.empty:
        return
    rows = worst.index.to_numpy()
    pixels = data.cache(candidate.position).gather(data.rows[split][rows]).to(data.device)
    inputs = normalise_bytes(pixels, data.preprocessing)
    maps = data.of_members(learner, candidate, lambda: grad_cam(learner.network, inputs, mistaken[rows]))
    found_maps = [each for each in maps if each is not None]
    heats = np.mean(found_maps, axis=0) if found_maps else [None] * len(rows)
    records = cast(list[dict[str, Any]], worst.to_dict("records"))
    of_data = data.params.data
    shown = of_data.fit, data.preprocessing.interpolation, of_data.max_megapixels, data.index.ranges
    for row, heat in zip(records, heats, strict=True):
        path = str(row["path"])
        facts, square = {**data.target.facts(row), "path": path}, square_jpeg(Path(path), LARGEST, *shown)
        # A map that is 0 everywhere says that no place speaks for the class, which an overlay cannot show.
        over = overlay(heat) if square is not None and heat is not None and heat.max() > 0 else None
        found.cards.append(Card(Path(path).name, facts, square, over))


def show_label_errors(
    data: "ImageData", split: str, paths: pd.Series, predictions: np.ndarray, actual: np.ndarray, found: Findings
) -> None:
    """Rows that are probably labelled wrong, as a table; their paths as a file that `data.exclude` takes.

    Not of test rows: a test without the rows that the model has wrong would say nothing.
    """
    suspected = data.target.label_errors(predictions, actual)
    if suspected.empty:
        return
    table = suspected.assign(path=paths).loc[:, ["path", *suspected.columns]]
    found.frame(f"{split}/label_errors.feather", table.reset_index(drop=True))
    if split != "test":
        found.text(f"{split}/label_errors.txt", "".join(f"{path}\n" for path in table["path"]))
    found.table("label-errors", f"Likely label errors: {len(table):,} {split} images", table.head(MOST_LISTED))
