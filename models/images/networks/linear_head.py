"""Logistic regression on activations as a one-layer head, and its cross-validation.

It is the baseline for a fine-tuned network. It needs no learning rate and is convex; on a few hundred images it is
often the best head. It equals scikit-learn's ``LogisticRegression(C=strength)``, intercepts not penalised, but is much
faster. Activations are wide and rows few, and a penalised solution is a linear combination of rows, so rows are rotated
once into their span (N x 2,560 activations become N x N) for all folds and strengths. L-BFGS is preconditioned by the
bounds of Böhning, "Multinomial logistic regression algorithm", 1992, and each strength starts from the solution of the
stronger penalty before it.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import expit, log_softmax
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold
from threadpoolctl import threadpool_limits
from torch import nn

from unfreeze.models.evaluation.intervals import intervals
from unfreeze.models.evaluation.metrics import Metric
from unfreeze.models.evaluation.results import Findings
from unfreeze.models.store.progress import Advance
from unfreeze.models.targets import Target

MOST_ROWS = 10_000
"""Maximum number of rows to fit: the first of a random order."""
LEAST_DEVIATION = 0.1
"""Share of the mean standard deviation that is added to each activation's own before scaling by it."""
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Candidate inverse L2 penalties, for standardised activations."""
FOLDS = 3
MANY_NUMBERS = 10_000_000
"""Below this number of inputs, one thread is faster than several."""
_NEVER = -20.0
FEW_ROWS = 150
"""Below this number of validation rows, training and validation rows together are cross-validated as well."""
FOLDS_OF_ROWS, REPEATS = 5, 2


class _Rotated(NamedTuple):
    """Inputs (N, D) are ``scores @ basis.T``; `energies` are the squared lengths of the columns of `scores`."""

    scores: np.ndarray
    basis: np.ndarray
    energies: np.ndarray


def build_linear_head(features: int, classes: int, width: int = 0, dropout: float = 0.0) -> nn.Sequential:
    """Build a linear layer from activations (B, `features`) to logits (B, `classes`); `width`, `dropout` are unused."""
    head = nn.Sequential(nn.Linear(features, classes))
    nn.init.zeros_(head[0].weight)  # type: ignore[arg-type]
    nn.init.zeros_(head[0].bias)  # type: ignore[arg-type]
    return head


def fit_linear_head(
    views: Sequence[np.ndarray],
    targets: np.ndarray,
    classes: int,
    class_weights: np.ndarray | None = None,
) -> dict[str, torch.Tensor]:
    """Fit a `build_linear_head` by L2-penalised logistic regression; for multi-label targets, one per label.

    The penalty is chosen by cross-validation on the plain view; all views are fitted. Validation rows are not used.

    Parameters
    ----------
    views
        Activations (N, D) float32 of the plain view, then of augmented views.
    targets
        Class numbers (N,) int64, or binary labels (N, C).
    classes
        Number C of classes or labels; those without rows get no probability.
    class_weights
        Row weight of each class, (C,); None for equal weights.

    Returns
    -------
    dict
        ``0.weight`` (C, D) and ``0.bias`` (C,), float32, with the standardisation folded in.
    """
    exclusive = targets.ndim == 1
    plain, known, _, _ = _standardised(views[:1], targets, classes)
    strengths = choose_strengths(plain, known, exclusive, _of_rows(known, class_weights))
    inputs, known, mean, scale = _standardised(views, targets, classes)
    weights, biases = regress(inputs, known, strengths / len(views), exclusive, _of_rows(known, class_weights))
    weights /= scale
    return {"0.weight": torch.from_numpy(weights).float(), "0.bias": torch.from_numpy(biases - weights @ mean).float()}


def losses_out_of_fold(
    plain: np.ndarray, targets: np.ndarray, classes: int, class_weights: np.ndarray | None = None
) -> np.ndarray:
    """Out-of-fold losses (N,) with the best penalty, in an order that depends only on N.

    Averaged over labels for multi-label targets. Parameters as for `fit_linear_head`.
    """
    inputs, known, _, _ = _standardised([plain], targets, classes)
    exclusive = targets.ndim == 1
    losses = _out_of_fold(inputs, known, exclusive, _of_rows(known, class_weights))
    chosen = losses[_best(losses, exclusive), :, np.arange(classes)]
    return np.asarray(chosen.sum(axis=0) / (1 if exclusive else len(chosen)))


def _of_rows(known: np.ndarray, class_weights: np.ndarray | None) -> np.ndarray | None:
    return None if class_weights is None else known @ class_weights


def _standardised(
    views: Sequence[np.ndarray], targets: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Standardise all views in random row order; also return binary targets, mean and scale.

    The scale covers all views, because a unit silent on plain images may respond to augmented ones. A share of the mean
    deviation is added to each unit's, like the s0 of Tibshirani et al., "Diagnosis of multiple cancer types by shrunken
    centroids", 2002; otherwise a unit that hardly responds to training images would dominate on others.
    """
    rows = np.random.default_rng(0).permutation(len(targets))[:MOST_ROWS]
    inputs = np.concatenate([view[rows] for view in views]).astype(np.float64)
    known = targets[rows].astype(np.float64) if targets.ndim == 2 else np.eye(classes)[targets[rows]]
    mean, deviations = inputs.mean(axis=0), inputs.std(axis=0)
    scale = deviations + max(LEAST_DEVIATION * float(deviations.mean()), 1e-6)
    inputs -= mean
    inputs /= scale
    return inputs, np.tile(known, (len(views), 1)), mean, scale


def choose_strengths(
    inputs: np.ndarray, targets: np.ndarray, exclusive: bool, weights: np.ndarray | None = None
) -> np.ndarray:
    """Choose the inverse penalties (C,) with the lowest cross-validated loss: one per label, or one for all classes.

    Parameters
    ----------
    inputs
        Standardised activations (N, D) float64, in random order.
    targets
        (N, C) of 0 and 1.
    exclusive
        Whether every row has exactly one class.
    weights
        Row weights, (N,); None for equal weights.
    """
    if len(inputs) < 2 * FOLDS:
        return np.full(targets.shape[1], STRENGTHS[2])
    return np.asarray(np.array(STRENGTHS)[_best(_out_of_fold(inputs, targets, exclusive, weights), exclusive)])


def _best(losses: np.ndarray, exclusive: bool) -> np.ndarray:
    """Index of the strength with the lowest loss, (C,), from losses (S, N, C)."""
    totals = losses.sum(axis=1)
    if exclusive:
        totals[:] = totals.sum(axis=1, keepdims=True)
    return np.asarray(totals.argmin(axis=0))


def _out_of_fold(inputs: np.ndarray, targets: np.ndarray, exclusive: bool, weights: np.ndarray | None) -> np.ndarray:
    """Weighted out-of-fold losses (S, N, C) of every row for every strength."""
    losses, counts = np.zeros((len(STRENGTHS), *targets.shape)), np.ones(len(inputs)) if weights is None else weights
    with _threads(inputs):
        rotated = _rotate(inputs)
        for judged in np.array_split(np.arange(len(inputs)), FOLDS):
            train, fitted = np.delete(np.arange(len(inputs)), judged), None
            for number, strength in enumerate(STRENGTHS):
                strengths = np.full(targets.shape[1], strength)
                part = rotated._replace(scores=rotated.scores[train])
                fitted = _fit(part, targets[train], strengths, exclusive, counts[train], fitted)
                logits = rotated.scores[judged] @ fitted[1:] + fitted[0]
                losses[number, judged] = counts[judged, None] * _losses(logits, targets[judged], exclusive)
    return losses


def regress(
    inputs: np.ndarray,
    targets: np.ndarray,
    strengths: np.ndarray,
    exclusive: bool,
    weights: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Fit weights (C, D) and biases (C,) float64 that minimise the summed losses plus |w|^2 / (2 strength).

    Classes or labels without rows, and labels on every row, get zero weights.

    Parameters
    ----------
    inputs, targets, exclusive, weights
        As for `choose_strengths`, in any order.
    strengths
        Inverse penalty of each class or label, (C,).
    """
    found, biases = np.zeros((targets.shape[1], inputs.shape[1])), np.where(targets.any(axis=0), -_NEVER, _NEVER)
    counts = np.ones(len(inputs)) if weights is None else weights
    fitted = targets.any(axis=0) if exclusive else targets.any(axis=0) & ~targets.all(axis=0)
    with _threads(inputs):
        rotated = _rotate(inputs)
        solved = _fit(rotated, targets[:, fitted], strengths[fitted], exclusive, counts)
        found[fitted], biases[fitted] = (rotated.basis @ solved[1:]).T, solved[0]
    if exclusive:
        biases[~fitted] += solved[0].min()
    return found, biases


def _threads(inputs: np.ndarray) -> AbstractContextManager[object]:
    limits: AbstractContextManager[object] = threadpool_limits(1 if inputs.size < MANY_NUMBERS else None, "blas")
    return limits


def _rotate(inputs: np.ndarray) -> _Rotated:
    """Rotate inputs into the span of their rows; unchanged if there are more rows than columns."""
    if len(inputs) > inputs.shape[1]:
        return _Rotated(inputs, np.eye(inputs.shape[1]), np.einsum("nd,nd->d", inputs, inputs))
    energies, vectors = np.linalg.eigh(inputs @ inputs.T)
    kept = energies > 1e-10 * max(float(energies[-1]), 1e-10)
    energies, vectors = energies[kept], vectors[:, kept]
    lengths = np.sqrt(energies)
    return _Rotated(vectors * lengths, inputs.T @ vectors / lengths, energies)


def _losses(logits: np.ndarray, targets: np.ndarray, exclusive: bool) -> np.ndarray:
    """Cross entropy (N, C); for exclusive classes, a row's loss is in the column of its class."""
    if exclusive:
        return np.asarray(-targets * log_softmax(logits, axis=1))
    return np.asarray(np.logaddexp(0.0, logits) - targets * logits)


def _fit(
    rotated: _Rotated,
    targets: np.ndarray,
    strengths: np.ndarray,
    exclusive: bool,
    counts: np.ndarray,
    start: np.ndarray | None = None,
) -> np.ndarray:
    """Fit biases and weights (1 + R, C) to rotated inputs."""
    scores, _, energies = rotated
    rows, width = targets.shape
    # The curvature of a row's loss is at most 1/2 (softmax) or 1/4 (sigmoid); half of that is usual.
    unit = np.empty((1 + len(energies), width))
    unit[0], unit[1:] = 2 / np.sqrt(rows), 1 / np.sqrt(energies[:, None] / 8 + 1 / strengths)
    penalties = np.vstack([np.zeros(width), np.broadcast_to(1 / strengths, unit[1:].shape)])

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(unit.shape) * unit
        logits = scores @ weights[1:] + weights[0]
        errors = counts[:, None] * ((np.exp(log_softmax(logits, axis=1)) if exclusive else expit(logits)) - targets)
        gradient = penalties * weights
        gradient[0] += errors.sum(axis=0)
        gradient[1:] += scores.T @ errors
        loss = (counts @ _losses(logits, targets, exclusive)).sum() + 0.5 * (penalties * weights**2).sum()
        return float(loss), (gradient * unit).ravel()

    initial = np.zeros(unit.shape) if start is None else start / unit
    options = {"maxiter": 1000, "gtol": 1e-6 * rows, "ftol": 0.0}
    found = minimize(objective, initial.ravel(), jac=True, method="L-BFGS-B", options=options)
    return np.asarray(found.x).reshape(unit.shape) * unit


# --- cross-validation for small data sets, where the validation split is too small to be informative


def out_of_fold(
    activations: np.ndarray,
    targets: np.ndarray,
    target: Target,
    groups: np.ndarray | None = None,
    advance: Advance = lambda done, total: None,
) -> np.ndarray:
    """Average out-of-fold predictions (N, C) of logistic regressions; groups are never split between folds.

    `REPEATS` times `FOLDS_OF_ROWS` folds, stratified if every class has enough rows; each regression chooses its
    penalty on its own training rows.
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
    is_stratified = targets.ndim == 1 and np.bincount(targets).min() >= FOLDS_OF_ROWS
    count = FOLDS_OF_ROWS if groups is None else min(FOLDS_OF_ROWS, len(np.unique(groups)))
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
    by = "" if groups is None else ", by groups"
    found.lines.append(
        f"few validation rows: logistic regression on the activations by {REPEATS} times {FOLDS_OF_ROWS}-fold "
        f"cross-validation of all {len(targets):,} training and validation rows{by}: {', '.join(shown)}"
    )
    return found
