"""Whether a challenger is better than the champion at several labels per row."""

from collections.abc import Sequence

import numpy as np

from unfreeze.models.errors import UserError
from unfreeze.models.evaluation.comparison import GROUPS, RESAMPLES, Comparison, bootstrapped, check_rows
from unfreeze.models.evaluation.label_metrics import fbeta_of_labels
from unfreeze.models.reading.labels import matrix_of

_DRAWN_AT_ONCE = 4_000_000


def compare_labels(
    actual: np.ndarray,
    champion: np.ndarray,
    challenger: np.ndarray,
    names: Sequence[str],
    seed: int = 0,
    margin: float = 0.0,
    blocks: Sequence[np.ndarray] = (),
) -> Comparison:
    """Compare the mean F1 over labels on the same rows, by a paired bootstrap of rows.

    Labels that no row has do not count. See `unfreeze.models.evaluation.comparison.compare_values` for the p-value.

    Parameters
    ----------
    actual
        Labels of every row, (N, L) bool.
    champion, challenger
        Their answers, (N, L) bool: a label that one of them does not know is never answered.
    names
        Of the labels.
    seed
        Of the bootstrap.
    margin, blocks
        See `compare_values`.

    Raises
    ------
    UserError
        If there are no rows, or none has a label.
    """
    check_rows(actual, champion, challenger)
    known = actual.any(axis=0)
    if not known.any():
        raise UserError(f"none of the {len(actual)} rows to compare on has a label")
    actual, champion, challenger = actual[:, known], champion[:, known], challenger[:, known]
    before, now = (float(fbeta_of_labels(answers, actual).mean()) for answers in (champion, challenger))
    improvement = now - before

    def gains(way: np.ndarray | None) -> np.ndarray:
        return _resampled(actual, champion, challenger, seed, way)

    differing = int((champion != challenger).any(axis=1).sum())
    low, high, p_value, test = bootstrapped(gains, improvement, margin, blocks, differing)
    rows = actual.sum(axis=0)
    recalls = [(answers & actual).sum(axis=0) / rows for answers in (champion, challenger)]
    table = zip(np.array(names)[known], rows, *recalls, strict=True)
    classes = [
        {
            "class": str(name),
            "rows": int(count),
            "champion": float(one),
            "challenger": float(two),
            "difference": float(two - one),
        }
        for name, count, one, two in table
    ]
    return Comparison("f1", before, now, improvement, low, high, p_value, test, len(actual), classes)


def compare_label_sets(
    actual: Sequence[Sequence[str]],
    champion: Sequence[Sequence[str]],
    challenger: Sequence[Sequence[str]],
    margin: float = 0.0,
    blocks: Sequence[np.ndarray] = (),
) -> Comparison:
    """As `compare_labels`, of the labels of every row as lists; models may know other labels."""
    names = sorted({str(label) for each in (actual, champion, challenger) for row in each for label in row})
    known, before, now = (matrix_of(each, names) for each in (actual, champion, challenger))
    return compare_labels(known, before, now, names, margin=margin, blocks=blocks)


def _resampled(
    actual: np.ndarray, champion: np.ndarray, challenger: np.ndarray, seed: int, blocks: np.ndarray | None
) -> np.ndarray:
    """Gain in the mean F1 in every resample; a label that a resample lacks does not count there."""
    generator = np.random.default_rng(seed)
    # Of many rows, sums over random groups are resampled, as for values: see `unfreeze.models.evaluation.comparison`.
    codes = generator.permutation(len(actual)) % GROUPS if blocks is None else np.unique(blocks, return_inverse=True)[1]
    groups = int(codes.max()) + 1
    # F1 is 2 right / (answered + actual): sums over rows, which a resample weighs by how often it drew them.
    terms = [actual, champion & actual, champion, challenger & actual, challenger]
    sums = np.zeros((groups, len(terms), actual.shape[1]))
    np.add.at(sums, codes, np.stack(terms, axis=1))
    gains, width = [], actual.shape[1]
    size = max(1, _DRAWN_AT_ONCE // groups)
    for start in range(0, RESAMPLES, size):
        drawn = generator.multinomial(groups, np.full(groups, 1 / groups), size=min(size, RESAMPLES - start))
        known, *counts = np.moveaxis((drawn @ sums.reshape(groups, -1)).reshape(-1, len(terms), width), 1, 0)
        right, said, right_now, said_now = counts
        with np.errstate(invalid="ignore"):
            difference = np.where(known > 0, 2 * right_now / (known + said_now) - 2 * right / (known + said), np.nan)
        present = (known > 0).any(axis=1)
        gains.append(np.nanmean(difference[present], axis=1))
    return np.concatenate(gains)
