"""Flipped labels among the photos: how many of them are among the rows that `unfreeze look` finds most suspicious.

5 % of the labels of cats_dogs are exchanged, in five drawings. Every image is judged by logistic regressions on the
pretrained body's activations that did not see it. Ours are the rows that confident learning suspects, then the others
by the probability of their label; of each ranking the first 5 % are looked at. cleanlab (`pip install cleanlab`) ranks
the same probabilities.
"""

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks._prepared import PHOTOS, SEEDS, prepared
from unfreeze.models.evaluation.label_errors import find_label_errors
from unfreeze.models.images.look import looking_at
from unfreeze.models.images.networks.linear_head import out_of_fold
from unfreeze.models.settings import TrainImages
from unfreeze.models.settings.overrides import build_spec

SHARE = 0.05


def ranked(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """All rows, the most suspicious first."""
    suspected = find_label_errors(probabilities, labels)[0]
    others = np.setdiff1d(np.arange(len(labels)), suspected)
    return np.concatenate([suspected, others[np.argsort(probabilities[others, labels[others]], kind="stable")]])


def cleanlab_ranked(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
    """The same by cleanlab; None if it is not there."""
    try:
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores
    except ImportError:
        return None
    suspected = find_label_issues(labels, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1)
    scores = get_label_quality_scores(labels, probabilities)
    others = np.setdiff1d(np.arange(len(labels)), suspected)
    return np.concatenate([suspected, others[np.argsort(scores[others], kind="stable")]])


def main() -> None:
    """Measure and print."""
    table = Table("drawing", "flipped", "suspected", "precision", "recall", "cleanlab: precision", "recall")
    with prepared(looking_at(build_spec(TrainImages, {"data": {"source": str(PHOTOS)}}))) as photos:
        data = photos.bind()
        activations, clean = data.plain_activations(photos.precompute()[0])
        for seed in SEEDS:
            rng, count = np.random.default_rng(seed), round(SHARE * len(clean))
            flipped = rng.permutation(len(clean))[:count]
            labels = clean.copy()
            labels[flipped] = (labels[flipped] + rng.integers(1, data.target.outputs, count)) % data.target.outputs
            probabilities = out_of_fold(activations, labels, data.target)
            cells = []
            for order in (ranked(probabilities, labels), cleanlab_ranked(probabilities, labels)):
                found = None if order is None else len(np.intersect1d(order[:count], flipped)) / count
                cells += ["-", "-"] if found is None else [f"{found:.3f}", f"{found:.3f}"]
            suspected = find_label_errors(probabilities, labels)[0]
            table.add_row(str(seed), str(count), str(len(suspected)), *cells)
    Console(width=120).print(table)
    print("as many rows are looked at as were flipped, so precision and recall are the same number")


if __name__ == "__main__":
    main()
