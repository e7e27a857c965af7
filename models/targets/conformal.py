"""Split conformal prediction: sets of classes and intervals of numbers that hold the truth with a given coverage.

Vovk et al., "Algorithmic Learning in a Random World", 2005, and Lei et al., "Distribution-Free Predictive Inference for
Regression", 2018. That holds for new rows that could be exchanged with the validation rows.
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
"""Of a target that are kept with a model: of more validation rows those of evenly spaced ranks, for 0.001 more."""


class Scores(NamedTuple):
    """How far validation rows were from what a model predicted of them.

    Attributes
    ----------
    rows
        How many rows there were.
    ranked
        For every target the scores of some ranks, ascending: those of `ranks_of`.
    """

    rows: int
    ranked: Sequence[Sequence[float]]


def ranks_of(rows: int) -> np.ndarray:
    """Ranks from 1 whose scores are kept, the last one included, int64."""
    kept = min(rows, MOST_SCORES)
    return -(-np.arange(1, kept + 1) * rows // kept)


def scores_of(target: Target, predictions: np.ndarray, actual: np.ndarray) -> Scores | None:
    """Of the validation rows, see `Target.distances`; None where a target has none."""
    distances = target.distances(predictions, actual)
    if distances is None:
        return None
    ranked = np.sort(distances, axis=0)[ranks_of(len(actual)) - 1]
    return Scores(len(actual), ranked.T.tolist())


def margins(scores: Scores | None, coverage: float) -> np.ndarray:
    """Distances (T,) within which the truth of a new row lies with a probability of at least `coverage`.

    Of n rows that is the score of rank ceil((n + 1) coverage).

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
    """Those of a model folder's description, if it has any."""
    kept = description.get(SCORES)
    return None if kept is None else Scores(*kept)


def answers(
    target: Target, predictions: np.ndarray, scores: Scores | None, params: Mapping[str, Any] | None
) -> pd.DataFrame:
    """`Target.frame`; where ``params`` has a ``coverage`` also `Target.covering`."""
    frame, coverage = target.frame(predictions), (params or {}).get("coverage")
    if not coverage:
        return frame
    return pd.concat([frame, target.covering(predictions, margins(scores, float(coverage)))], axis=1)
