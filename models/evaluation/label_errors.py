"""Find probably wrong labels by confident learning.

After Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", 2021.
"""

import numpy as np


def find_label_errors(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find rows that confidently belong to a class other than their label.

    The threshold of a class is the mean probability of that class over its own rows. A row confidently belongs to the
    most probable class whose threshold it reaches; if that is not its label, it is off the diagonal of the confident
    joint. Rows are ordered by the probability of their own label, lowest first.

    Parameters
    ----------
    probabilities
        (N, C) float64, of a model that was not trained on these rows.
    labels
        Class numbers (N,) int64.

    Returns
    -------
    tuple of numpy.ndarray
        Numbers of the suspected rows, (n,) int64, most suspicious first, and the class that each seems to have.
    """
    classes = probabilities.shape[1]
    own = probabilities[np.arange(len(labels)), labels]
    counts = np.bincount(labels, minlength=classes)
    sums = np.bincount(labels, weights=own, minlength=classes)
    # A class without rows has no threshold, so no row confidently belongs to it.
    thresholds = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    reached = np.where(probabilities >= thresholds, probabilities, -1.0)
    confident = reached.argmax(1)
    suspected = np.flatnonzero((reached.max(1) >= 0) & (confident != labels))
    ordered = suspected[np.argsort(own[suspected], kind="stable")]
    return ordered, confident[ordered]


def find_label_set_errors(probabilities: np.ndarray, actual: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find rows with a label that is confidently missing or wrong.

    Each label is treated as a two-class problem, see `find_label_errors`.

    Parameters
    ----------
    probabilities
        (N, L) float64, of a model that was not trained on these rows.
    actual
        (N, L) bool.

    Returns
    -------
    tuple of numpy.ndarray
        Numbers of the suspected rows, (n,) int64, most suspicious first; the labels that each seems to lack or to have
        wrongly, (n, L) bool; and the lowest probability that one of those is correct as given, (n,) float64.
    """
    changed = np.zeros(actual.shape, bool)
    for label, (has, is_labelled) in enumerate(zip(probabilities.T, actual.T, strict=True)):
        changed[find_label_errors(np.stack([1 - has, has], axis=1), is_labelled.astype(np.int64))[0], label] = True
    own = np.where(changed, np.where(actual, probabilities, 1 - probabilities), np.inf).min(axis=1)
    suspected = np.flatnonzero(changed.any(axis=1))
    ordered = suspected[np.argsort(own[suspected], kind="stable")]
    return ordered, changed[ordered], own[ordered]
