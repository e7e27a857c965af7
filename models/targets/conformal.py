"""Split conformal prediction: sets of classes and intervals of numbers that hold the truth at a given coverage.

Vovk et al., "Algorithmic Learning in a Random World", 2005, and Lei et al., "Distribution-Free Predictive Inference for
Regression", 2018. The coverage holds for new rows that are exchangeable with the validation rows.
"""

from collections.abc import Mapping, Sequence
from math import ceil, floor
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from unfreeze.models.errors import UserError
from unfreeze.models.store.model_folder import SCORES
from unfreeze.models.targets.base import Target

MOST_SCORES = 1000
"""Maximum scores kept per target; beyond it those of evenly spaced ranks, which adds up to 0.001 to the coverage."""


class Scores(NamedTuple):
    """Distances of validation rows from a model's predictions.

    Attributes
    ----------
    rows
        Number of validation rows.
    ranked
        Scores of every target at the ranks of `ranks_of`, ascending.
    """

    rows: int
    ranked: Sequence[Sequence[float]]


def ranks_of(rows: int) -> np.ndarray:
    """Ranks (from 1) whose scores are kept, including the last, int64."""
    kept = min(rows, MOST_SCORES)
    return -(-np.arange(1, kept + 1) * rows // kept)


def scores_of(target: Target, predictions: np.ndarray, actual: np.ndarray) -> Scores | None:
    """Compute the validation rows' scores, see `Target.distances`; None if the target has none."""
    distances = target.distances(predictions, actual)
    if distances is None:
        return None
    ranked = np.sort(distances, axis=0)[ranks_of(len(actual)) - 1]
    return Scores(len(actual), ranked.T.tolist())


def margins(scores: Scores | None, coverage: float) -> np.ndarray:
    """Distances (T,) that contain the truth of a new row with probability at least `coverage`.

    For n rows this is the score of rank ceil((n + 1) coverage).

    Raises
    ------
    UserError
        If there are no scores, or too few for the coverage.
    """
    if not 0 < coverage < 1:
        raise UserError(f"coverage: {coverage} is not between 0 and 1")
    if scores is None:
        raise UserError(
            "coverage: the model has no distances of validation rows: it predicts several labels, or an earlier "
            "release trained it; train it again, or omit coverage"
        )
    rank = ceil(round((scores.rows + 1) * coverage, 9))
    if rank > scores.rows:
        raise UserError(
            f"coverage: {coverage:g} needs {ceil(round(coverage / (1 - coverage), 9)):,} validation rows, and the "
            f"model has {scores.rows:,}: only a set of all classes, or an endless interval, would be sure enough; "
            f"choose at most {floor(scores.rows / (scores.rows + 1) * 1000) / 1000}"
        )
    place = int(np.searchsorted(ranks_of(scores.rows), rank))
    return np.array([column[place] for column in scores.ranked])


def kept_scores(description: Mapping[str, Any]) -> Scores | None:
    """Read the scores in a model folder's description, if any."""
    kept = description.get(SCORES)
    return None if kept is None else Scores(*kept)


def answers(
    target: Target, predictions: np.ndarray, scores: Scores | None, params: Mapping[str, Any] | None
) -> pd.DataFrame:
    """Make `Target.frame`, with `Target.covering` if ``params`` has a ``coverage``."""
    frame, coverage = target.frame(predictions), (params or {}).get("coverage")
    if not coverage:
        return frame
    return pd.concat([frame, target.covering(predictions, margins(scores, float(coverage)))], axis=1)
