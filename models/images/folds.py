"""Cross-validation for small data sets, where the validation split is too small to be informative."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

from unfreeze.models.evaluation.intervals import intervals
from unfreeze.models.evaluation.metrics import Metric
from unfreeze.models.evaluation.results import Findings
from unfreeze.models.images.networks.linear_head import fit_linear_head
from unfreeze.models.store.workspace import Advance
from unfreeze.models.targets import Target

FEW_ROWS = 150
"""Below this number of validation rows, training and validation rows together are cross-validated as well."""
FOLDS, REPEATS = 5, 2


def out_of_fold(
    activations: np.ndarray,
    targets: np.ndarray,
    target: Target,
    groups: np.ndarray | None = None,
    advance: Advance = lambda done, total: None,
) -> np.ndarray:
    """Average out-of-fold predictions (N, C) of logistic regressions; groups are never split between folds.

    `REPEATS` times `FOLDS` folds, stratified if every class has enough rows; each regression chooses its penalty on its
    own training rows.
    """
    total = np.zeros((len(targets), target.outputs))
    folds = [fold for repeat in range(REPEATS) for fold in _folds(targets, groups, repeat)]
    for number, (train, judged) in enumerate(folds, start=1):
        head = fit_linear_head([activations[train]], targets[train], target.outputs, target.class_weights)
        logits = torch.from_numpy(activations[judged]) @ head["0.weight"].T + head["0.bias"]
        total[judged] += target.predictions(logits)
        advance(number, len(folds))
    return total / REPEATS


def _folds(targets: np.ndarray, groups: np.ndarray | None, repeat: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the positions of training and held-out rows of each fold."""
    is_stratified = targets.ndim == 1 and np.bincount(targets).min() >= FOLDS
    count = FOLDS if groups is None else min(FOLDS, len(np.unique(groups)))
    if groups is None:
        folds = StratifiedKFold if is_stratified else KFold
    else:
        folds = StratifiedGroupKFold if is_stratified else GroupKFold
    for train, judged in folds(count, shuffle=True, random_state=repeat).split(targets, targets, groups):
        if len(judged):  # stratified folds of few groups may be empty
            yield train, judged


def cross_validate(
    activations: np.ndarray,
    targets: np.ndarray,
    target: Target,
    metrics: Mapping[str, Metric],
    groups: np.ndarray | None = None,
    advance: Advance = lambda done, total: None,
) -> Findings:
    """Cross-validate logistic regression on plain activations (N, D) float32; see `out_of_fold`.

    Returns
    -------
    Findings
        ``folds/NAME``, ``folds/NAME_low`` and ``folds/NAME_high`` (95 %, by rows or groups), and a summary line.
    """
    found = Findings()
    predictions = out_of_fold(activations, targets, target, groups, advance)
    actual = target.actual(torch.from_numpy(targets))
    shown = []
    for name, (low, high) in intervals(metrics, predictions, actual, blocks=groups).items():
        value = metrics[name](predictions, actual)
        found.metrics |= {f"folds/{name}": value, f"folds/{name}_low": low, f"folds/{name}_high": high}
        shown.append(f"{name} {value:.4f} ({low:.4f} to {high:.4f})")
    found.lines.append(
        f"few validation rows: logistic regression on the activations by {REPEATS} times {FOLDS}-fold cross-validation "
        f"of all {len(targets):,} training and validation rows{'' if groups is None else ', by groups'}: "
        f"{', '.join(shown)}"
    )
    return found
