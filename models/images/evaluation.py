"""How good a classifier is: probabilities of every row, plain and averaged over views, and what follows from them."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from unfreeze.models.findings import Findings
from unfreeze.models.images.augmentation import average_views
from unfreeze.models.images.errors import show_label_errors, show_mistakes, show_top_losses
from unfreeze.models.intervals import gains, intervals
from unfreeze.models.specs import TtaSpec
from unfreeze.models.training.batches import Batches
from unfreeze.models.training.learner import Learner
from unfreeze.models.training_data import Activations, Candidate

if TYPE_CHECKING:
    from unfreeze.models.images.data import ImageData

Views = Callable[[int], Batches]
"""Number of a view, 0 for the plain one -> its batches, all in the data set's row order."""


def predict_views(learner: Learner, views: Views, tta: TtaSpec) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of the plain view and of test-time augmentation.

    Returns
    -------
    tuple of numpy.ndarray
        Plain and averaged probabilities, each (N, C) float64 in the data set's row order.
    """

    def probabilities(view: int) -> np.ndarray:
        logits, _ = learner.predict(views(view))
        return learner.target.predictions(logits)

    plain = probabilities(0)
    return plain, average_views(plain, [probabilities(view) for view in range(1, tta.n_aug + 1)], tta.beta)


def error_reduction(plain_accuracy: float, tta_accuracy: float) -> float:
    """Share of the plain view's errors that test-time augmentation removes; negative where it adds errors, 0 of 0."""
    error = 1 - plain_accuracy
    return (tta_accuracy - plain_accuracy) / error if error > 0 else 0.0


def evaluate(
    data: "ImageData", learner: Learner, candidate: Candidate, activations: Activations, section: str
) -> Findings:
    """Evaluate with and without TTA: ``SECTION/NAME`` and ``SECTION/NAME_tta``.

    Also ``error_reduction_tta`` and ``majority`` (the accuracy of always answering the commonest class). Metrics
    are of the rows that took no part in what `Target.settled` tuned; the losses are of all rows.
    """
    split, position = "test" if section == "test" else "valid", candidate.position
    actual, found = data.actual(split), Findings()
    views = data.evaluation_views(position, split, activations)
    members = data.of_members(learner, candidate, lambda: predict_views(learner, views, data.params.tta))
    values: dict[str, float] = {}
    plain, averaged = (np.mean(each, axis=0) for each in zip(*members, strict=True))
    target = data.target.settled(plain, actual) if section == "baseline" else data.target
    rows = np.arange(len(actual)) if section == "test" else target.unbiased_rows(actual)
    metrics = target.metrics(data.metric_names())
    for suffix, probabilities in (("", plain), ("_tta", averaged)):
        values[f"loss{suffix}"] = target.loss_of(probabilities, actual)
        values |= {f"{name}{suffix}": metric(probabilities[rows], actual[rows]) for name, metric in metrics.items()}
    values["error_reduction_tta"] = error_reduction(values["accuracy"], values["accuracy_tta"])
    values["majority"] = target.majority(actual[rows])
    if section == "test":
        suffix, judged = ("", plain) if "tta" in candidate.parts else ("_tta", averaged)  # as the model predicts
        values |= _ends(intervals(metrics, judged, actual), suffix)
    elif section == "valid":
        suffix = "_tta" if data.params.keep != "best" or values["loss_tta"] <= values["loss"] else ""
        judged = averaged if suffix else plain
        values |= _ends(intervals(data.judges(), judged[rows], actual[rows]), suffix)
    found.metrics = {f"{section}/{name}": value for name, value in values.items()}
    predictions = target.evaluated(actual, plain, averaged)
    predictions.insert(0, "path", data.index.rows["path"].take(data.rows[split]).to_pylist())
    found.frame(f"{section}/predictions.feather", predictions)
    for name in target.headline:
        removed = f" ({values['error_reduction_tta']:+.0%} of the errors removed)" if name == "accuracy" else ""
        found.lines.append(
            f"{section}: {name} {values[name]:.4f} plain, {values[f'{name}_tta']:.4f} with TTA{removed}, "
            f"on {len(rows):,} rows"
        )
    if len(rows) < len(actual):
        found.lines.append(
            f"{section}: metrics are of {len(rows):,} rows; the other {len(actual) - len(rows):,} tuned thresholds"
        )
    if section == "valid" and data.params.keep == "best" and values["loss_tta"] > values["loss"]:
        found.lines.append("TTA does not lower the validation loss: the model predicts without it, also with --tta")
    if section != "baseline":
        found.add(target.report(averaged[rows], actual[rows], section))
        found.gains += gains("TTA", data.judges(), plain[rows], averaged[rows], actual[rows])
        if data.params.tracking.top_losses:
            show_top_losses(data, position, split, predictions, found)
            mistaken = target.mistaken(averaged, actual)
            show_mistakes(data, learner, candidate, split, predictions, mistaken, found)
        show_label_errors(data, split, predictions["path"], averaged, actual, found)
    return found


def _ends(found: Mapping[str, tuple[float, float]], suffix: str) -> dict[str, float]:
    """Intervals of metrics as metrics: ``NAME_low`` and ``NAME_high``."""
    low = {f"{name}{suffix}_low": ends[0] for name, ends in found.items()}
    return low | {f"{name}{suffix}_high": ends[1] for name, ends in found.items()}
