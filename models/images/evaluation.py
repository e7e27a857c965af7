"""Evaluation of an image classifier: plain and TTA probabilities, metrics, mistakes and label errors."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from unfreeze.models.evaluation.intervals import ends_of, gains, intervals, standard_error
from unfreeze.models.evaluation.plots import plot_images
from unfreeze.models.evaluation.results import Card, Findings
from unfreeze.models.images.bound import BoundImages
from unfreeze.models.images.networks.classifier import normalise_bytes
from unfreeze.models.images.pixels.augmentation import average_views
from unfreeze.models.images.pixels.decode import square_jpeg
from unfreeze.models.images.serving.explain import grad_cam, overlays
from unfreeze.models.recipe.training_data import Activations, Candidate
from unfreeze.models.settings import TtaSpec
from unfreeze.models.targets.temperature import calibrate
from unfreeze.models.training.batches import Batches
from unfreeze.models.training.learner import Learner

Views = Callable[[int], Batches]
"""View number (0 is plain) -> its batches, in the data set's row order."""
TUNED = "tuned"
"""Evaluation column that marks rows used to tune thresholds and therefore excluded from metrics."""
MOST_CARDS = 12
LARGEST = 640
"""Maximum side of the images on cards, in pixels; smaller images keep their size."""
MOST_LISTED = 50
"""Likely label errors shown in a table; the file lists all."""
_MODES = {"plain": "without TTA", "tta": "with TTA"}


def predict_views(learner: Learner, views: Views, tta: TtaSpec) -> tuple[np.ndarray, np.ndarray]:
    """Predict with the plain view and with test-time augmentation.

    Returns
    -------
    tuple of numpy.ndarray
        Plain and averaged probabilities, each (N, C) float64 in the data set's row order.
    """

    def probabilities(view: int) -> np.ndarray:
        logits, _ = learner.predict(views(view))
        return learner.target.predictions(logits)

    plain = probabilities(0)
    return plain, average_views(plain, [probabilities(view) for view in range(1, tta.n_aug + 1)])


def error_reduction(plain_accuracy: float, tta_accuracy: float) -> float:
    """Share of the plain view's errors that TTA removes; negative if it adds errors, 0 if the plain view has none."""
    error = 1 - plain_accuracy
    return (tta_accuracy - plain_accuracy) / error if error > 0 else 0.0


def evaluate(
    data: BoundImages, learner: Learner, candidate: Candidate, activations: Activations, section: str
) -> tuple[Findings, Candidate]:
    """Evaluate a candidate as it predicts (``SECTION/NAME``), with TTA (``NAME_tta``) and without (``NAME_plain``).

    Also reports ``error_reduction_tta`` and ``majority`` (the accuracy of always predicting the commonest class).
    Metrics exclude the rows that `Target.tuned` used; losses cover all rows. The head alone (``baseline``) is evaluated
    without TTA. The validation rows choose whether to predict with TTA, fit the temperature and tune the target of
    `data`; their own probabilities are scaled out of fold.
    """
    split, position = "test" if section == "test" else "valid", candidate.position
    actual, found = data.actual(split), Findings()
    views = data.evaluation_views(position, split, activations)
    tta = TtaSpec(n_aug=0) if section == "baseline" else data.params.tta
    members = data.of_members(learner, candidate, lambda: predict_views(learner, views, tta))
    plain, averaged = (np.mean(each, axis=0) for each in zip(*members, strict=True))
    if section == "valid":
        candidate, plain, averaged = _calibrated(candidate, plain, averaged, data, actual, found)
    else:
        plain, averaged = (data.target.tempered(each, candidate.temperature) for each in (plain, averaged))
    kept = averaged if candidate.with_tta else plain
    target = data.target.tuned(kept, actual) if section == "baseline" else data.target
    rows = np.arange(len(actual)) if section == "test" else target.unbiased_rows(actual)
    metrics, groups = target.metrics(data.metric_names()), data.blocks(split)
    blocks = groups[rows] if groups is not None else None
    modes = {"plain": plain, "tta": averaged} if tta.n_aug else {}
    values: dict[str, float] = {}
    for suffix, probabilities in {"": kept, **{f"_{mode}": each for mode, each in modes.items()}}.items():
        values[f"loss{suffix}"] = target.loss_of(probabilities, actual)
        values |= {f"{name}{suffix}": metric(probabilities[rows], actual[rows]) for name, metric in metrics.items()}
    values["majority"] = target.majority(actual[rows])
    if section == "valid":
        values["temperature"] = candidate.temperature
    if modes:
        values["error_reduction_tta"] = error_reduction(values["accuracy_plain"], values["accuracy_tta"])
    if section != "baseline":
        compared = metrics if section == "test" else data.comparison_metrics()
        values |= ends_of(intervals(compared, kept[rows], actual[rows], blocks))
    found.metrics = {f"{section}/{name}": value for name, value in values.items()}
    others = {mode: each for mode, each in modes.items() if each is not kept}
    predictions = target.evaluated(actual, kept, others)
    predictions.insert(0, "path", data.index.rows["path"].take(data.rows[split]).to_pylist())
    if groups is not None:
        predictions.insert(1, "group", groups)
    if len(rows) < len(actual):
        predictions[TUNED] = ~np.isin(np.arange(len(actual)), rows)
        found.lines.append(
            f"{section}: metrics are of {len(rows):,} rows; the other {len(actual) - len(rows):,} tuned thresholds"
        )
    found.frame(f"{section}/predictions.feather", predictions)
    for name in target.headline:
        shown = ", ".join(f"{values[f'{name}_{mode}']:.4f} {_MODES[mode]}" for mode in others)
        found.lines.append(
            f"{section}: {name} {values[name]:.4f} of {candidate.title}{f' ({shown})' if shown else ''}, on "
            f"{len(rows):,} rows"
        )
    if section != "baseline":
        found.add(target.report(kept[rows], actual[rows], section, candidate.title))
        if candidate.with_tta:
            found.gains += gains("TTA", data.comparison_metrics(), plain[rows], averaged[rows], actual[rows], blocks)
        if data.params.tracking.top_losses:
            title = f"Highest losses: {candidate.title}, {len(actual):,} {section} rows"
            mistaken = target.mistaken(kept, actual)
            found.later |= {
                "highest losses": lambda more: show_top_losses(data, position, split, predictions, title, more),
                "mistakes": lambda more: show_mistakes(data, learner, candidate, split, predictions, mistaken, more),
            }
        found.later["label errors"] = lambda more: show_label_errors(
            data, split, predictions["path"], kept, actual, more
        )
    return found, candidate


def _calibrated(
    candidate: Candidate,
    plain: np.ndarray,
    averaged: np.ndarray,
    data: BoundImages,
    actual: np.ndarray,
    found: Findings,
) -> tuple[Candidate, np.ndarray, np.ndarray]:
    """Calibrate the candidate; also return plain and TTA probabilities scaled by out-of-fold temperatures.

    TTA is used only if it lowers the validation loss by more than a standard error, because each view adds a pass.
    """
    target, groups = data.target, data.blocks("valid")
    way = candidate.fitted or calibrate(target, plain, actual, groups)
    ways = [way, calibrate(target, averaged, actual, groups) if data.params.tta.n_aug else way]
    if data.params.tta.n_aug:
        losses = [target.loss_of(each.predictions, actual) for each in ways]
        error = standard_error(target.loss_of, ways[0].predictions, ways[1].predictions, actual, groups)
        gain, before = losses[0] - losses[1], candidate
        candidate = replace(candidate, with_tta=bool(gain > error))
        why = "does not lower the loss"
        if gain > 0:
            compared = "more" if gain > error else "less"
            why = f"lowers the loss by {gain:.2g}, {compared} than the standard error {error:.2g}"
        found.lines.append(f"{candidate.title} predicts: TTA {why}, on {len(actual):,} valid rows")
        rows = [
            {
                "model": replace(before, with_tta=with_tta).title,
                "validation loss": f"{loss:.4g}",
                "kept": "yes" if with_tta == candidate.with_tta else "",
            }
            for with_tta, loss in zip((False, True), losses, strict=True)
        ]
        found.table("tta", found.lines[-1], rows)
    way = ways[bool(candidate.with_tta)]
    found.lines.append(f"{candidate.title}: {way}")
    candidate, final = candidate.calibrated(way, target, averaged if candidate.with_tta else plain, actual)
    data.target = target.tuned(final, actual)
    return candidate, ways[0].predictions, ways[1].predictions


def show_top_losses(
    data: BoundImages, position: int, split: str, predictions: pd.DataFrame, title: str, found: Findings
) -> None:
    """Draw the rows of `Target.evaluated` with the highest loss."""
    worst = predictions.nlargest(data.params.tracking.top_losses, "loss")
    pixels = data.cache(position).gather(data.rows[split][worst.index.to_numpy()]).permute(0, 2, 3, 1).numpy()
    found.figure(f"{split}/top_losses.png", title, lambda: plot_images(pixels, data.target.captions(worst), title))


def show_mistakes(
    data: BoundImages,
    learner: Learner,
    candidate: Candidate,
    split: str,
    predictions: pd.DataFrame,
    mistaken: np.ndarray,
    found: Findings,
) -> None:
    """Add a card for each of the worst mistakes, with its Grad-CAM map.

    Parameters
    ----------
    predictions
        Rows of the split; see `Target.evaluated`.
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
    records = cast(list[dict[str, Any]], worst.to_dict("records"))
    of_data = data.params.data
    shown = of_data.fit, data.preprocessing.interpolation, of_data.max_megapixels, data.index.ranges
    for row, over in zip(records, overlays(maps, len(rows)), strict=True):
        path = str(row["path"])
        facts, square = {**data.target.facts(row), "path": path}, square_jpeg(Path(path), LARGEST, *shown)
        found.cards.append(Card(Path(path).name, facts, square, over if square is not None else None))


def show_label_errors(
    data: BoundImages, split: str, paths: pd.Series, predictions: np.ndarray, actual: np.ndarray, found: Findings
) -> None:
    """List rows that are probably mislabelled in a table, and their paths in a file for `data.exclude`.

    Not for test rows: excluding the model's own mistakes would make the test meaningless.
    """
    suspected = data.target.label_errors(predictions, actual)
    if suspected.empty:
        return
    table = suspected.assign(path=paths).loc[:, ["path", *suspected.columns]]
    found.frame(f"{split}/label_errors.feather", table.reset_index(drop=True))
    if split != "test":
        found.text(f"{split}/label_errors.txt", "".join(f"{path}\n" for path in table["path"]))
    found.table("label-errors", f"Likely label errors: {len(table):,} {split} images", table.head(MOST_LISTED))
