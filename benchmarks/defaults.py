"""Default settings on small sets of images, against what an expert does in a minute: both judged on test rows.

The expert fits scikit-learn's logistic regression to our cached activations of the plain training images, standardised,
with its penalty chosen by cross-validation. Ours are all eight steps; which of its models a training keeps is chosen on
the validation rows. A quarter of every set tests. The defaults were looked at on the first three sets and the digits
only; the textures were run once they were settled.

With an argument, only sets whose name holds it; a second one is the number of seeds (5).
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegressionCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks._image_sets import image_sets
from benchmarks._prepared import PHOTOS, Prepared, median, prepared
from unfreeze.models.images.data import ImageData
from unfreeze.models.images.row_shards import ShardedRows
from unfreeze.models.overrides import build_spec
from unfreeze.models.specs import TrainImages
from unfreeze.models.targets import SingleLabel
from unfreeze.models.training.metrics import accuracy

Score = tuple[float, float]
"""Accuracy and log loss."""


def expert(photos: Prepared, data: ImageData, learner_stage: int = 0) -> dict[str, Score]:
    """Logistic regression on the activations of the plain images, plain and averaged over the views of TTA."""
    files = photos.precompute()[learner_stage]

    def activations(split: str, view: int) -> np.ndarray:
        file = ShardedRows(files[split, view])
        return np.asarray(file.gather(np.arange(len(data.rows[split]))))

    regression = LogisticRegressionCV(
        Cs=[1e-4, 1e-3, 1e-2, 1e-1, 1.0], cv=3, scoring="neg_log_loss", max_iter=300, use_legacy_attributes=False,
        l1_ratios=(0,),
    )  # fmt: skip
    fitted = make_pipeline(StandardScaler(), regression).fit(activations("train", 0), data.targets("train"))
    views = [fitted.predict_proba(activations("test", view)) for view in range(data.params.tta.n_aug + 1)]
    actual = data.targets("test")
    return {"plain": score(views[0], actual), "TTA": score(np.mean(views, axis=0), actual)}


def score(probabilities: np.ndarray, actual: np.ndarray) -> Score:
    """Accuracy and log loss."""
    return accuracy(probabilities, actual), SingleLabel().loss_of(probabilities, actual)


def main() -> None:
    """Measure and print every set."""
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    seeds = range(int(sys.argv[2]) if len(sys.argv) > 2 else 5)
    table = Table(
        "set", "model", "accuracy", "log loss", "with TTA", "log loss", "s", title="Medians over seeds, test rows"
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, (source, settings) in image_sets(Path(folder)).items():
            if wanted not in name:
                continue
            params = build_spec(TrainImages, {"data": {"source": source, "test_fraction": 0.25}}, settings)
            with prepared(params) as photos:
                photos.precompute()
                known = expert(photos, photos.bind())
                table.add_row(name, "expert", *(f"{value:.4f}" for key in ("plain", "TTA") for value in known[key]), "")
                ours, kept = [], []
                for seed in seeds:
                    began = time.perf_counter()
                    metrics, model = photos.run(photos.bind(seed=seed))
                    names = ("accuracy_plain", "loss_plain", "accuracy_tta", "loss_tta")
                    ours.append([*(metrics[f"test/{each}"] for each in names), time.perf_counter() - began])
                    kept.append(model)
                middle = [median(list(column)) for column in zip(*ours, strict=True)]
                chosen = ", ".join(f"{each} {kept.count(each)}" for each in sorted(set(kept)))
                table.add_row("", f"ours ({chosen})", *(f"{value:.4f}" for value in middle[:4]), f"{middle[4]:.0f}")
                print(name, "expert", known, "ours", np.round(ours, 4).tolist(), chosen, flush=True)
    Console(width=150).print(table)
    if wanted and wanted in "cats_dogs, cold" and PHOTOS.exists():
        cold(seeds)


def cold(seeds: range) -> None:
    """All eight steps on all photos: the first seed with nothing prepared, the others with its caches."""
    began = time.perf_counter()
    params = build_spec(TrainImages, {"data": {"source": str(PHOTOS)}})
    with prepared(params) as photos:
        for seed in seeds:
            metrics, model = photos.run(photos.bind(seed=seed))
            found = {name: round(value, 4) for name, value in metrics.items() if name.startswith("valid/")}
            how = "cold" if seed == seeds[0] else "with caches"
            print(f"cats_dogs, all eight steps {how}: {time.perf_counter() - began:.0f} s, kept: {model}, {found}")
            began = time.perf_counter()


if __name__ == "__main__":
    main()
