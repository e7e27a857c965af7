"""Two trainings on the rows that both evaluated: which is better, how sure that is, and which rows changed sides."""

from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from unfreeze.models.errors import UserError
from unfreeze.models.evaluation.comparison import Comparison, compare_classes, compare_labels, compare_values
from unfreeze.models.images.evaluation import TUNED
from unfreeze.models.reading.labels import split
from unfreeze.models.recipe.modality import training_from
from unfreeze.models.tables.modality import blocks_of
from unfreeze.tasks import tracking

SECTIONS = ("test", "valid")
MOST_SHOWN = 100


def compare_runs(first: str, second: str) -> dict[str, Any]:
    """Compare the second run with the first, on test rows if both have them, else on validation rows.

    Validation rows chose the model of each run, so a difference on them flatters whichever run tried more.

    Returns
    -------
    dict
        ``comparison`` (see `Comparison`; the first run is the champion), ``section``, ``rows`` that both evaluated,
        ``better`` and ``worse``: rows that only the second, or only the first, has right; none for numbers.

    Raises
    ------
    UserError
        If a run has no predictions, or the two have no rows in common.
    """
    section, before, after = _predictions(first, second)
    params: Any = training_from(tracking.spec_of(second), f"run {second}")
    if "path" in before and "path" in after:
        multiple = "labels" in after
        label, predicted = ("labels", "predicted_labels") if multiple else ("label", "predicted")
        if label not in before:
            raise UserError(f"of runs {first} and {second} one predicts several labels per image, the other a class")
        # Rows that tuned thresholds are in no metric of the run's report either.
        judged = [frame[~frame[TUNED]] if TUNED in frame else frame for frame in (before, after)]
        kept = judged[0].merge(judged[1], on=["path", label], suffixes=("", "_second"))
        if kept.empty:
            raise UserError(f"runs {first} and {second} have no {section} image in common: compare runs of one source")
        one, two = (kept[name].astype(str).to_numpy() for name in (predicted, f"{predicted}_second"))
        actual, names = kept[label].astype(str).to_numpy(), kept["path"]
        groups = [kept["group"].to_numpy()] if "group" in kept and kept["group"].nunique() > 1 else []
        if multiple:
            sets = [[split(text) for text in texts] for texts in (actual, one, two)]
            comparison = compare_labels(sets[0], sets[1], sets[2], blocks=groups)
        else:
            comparison = compare_classes(actual, one, two, blocks=groups)
    else:
        if tracking.tags_of(first).get("data.digest") != tracking.tags_of(second).get("data.digest"):
            raise UserError(
                f"runs {first} and {second} evaluated other rows: compare runs on one table with one split and the "
                "same features"
            )
        kept, names = before, before.index.to_series().map(lambda row: f"row {row}")
        targets, blocks = params.data.target, blocks_of(before, params.data)
        if "kept_class" in before:
            actual = before[targets[0]].astype(str).to_numpy()
            one, two = (frame["kept_class"].astype(str).to_numpy() for frame in (before, after))
            comparison = compare_classes(actual, one, two, blocks=blocks)
        else:
            columns = [f"kept_{name}" for name in targets]
            values = [frame.to_numpy(np.float64) for frame in (before[targets], before[columns], after[columns])]
            metric = "rmspe" if params.data.log_target else "rmse"
            return _result(section, compare_values(values[0], values[1], values[2], metric, blocks=blocks), [], [])
    right, right_now = one == actual, two == actual
    better, worse = names[right_now & ~right].tolist(), names[right & ~right_now].tolist()
    return _result(section, comparison, better, worse)


def _result(section: str, comparison: Comparison, better: list[str], worse: list[str]) -> dict[str, Any]:
    return {
        "section": section,
        "rows": comparison.rows,
        "comparison": asdict(comparison),
        "better": better[:MOST_SHOWN],
        "worse": worse[:MOST_SHOWN],
        "flipped": [len(better), len(worse)],
    }


def _predictions(first: str, second: str) -> tuple[str, pd.DataFrame, pd.DataFrame]:
    """The section, and both runs' predictions of its rows."""
    for run_id in (first, second):
        tracking.get_run(run_id)
    for section in SECTIONS:
        one, other = (tracking.read_frame(run_id, f"{section}/predictions.feather") for run_id in (first, second))
        if one is not None and other is not None:
            return section, one, other
    raise UserError(f"runs {first} and {second} do not both have predictions: both must be trainings that ended")
