"""Accuracy on the cat and dog photos: five seeds, two backbones, precomputed views against fresh augmentation.

Prints one row per setting; with an argument, only those whose name holds it. The recipe is that of
deployments/configs/head_only.yaml (steps 1 to 4 and TTA).
"""

import sys
import time
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from benchmarks._prepared import MOBILENET, PHOTOS, SEEDS, median, prepared
from unfreeze.models.images.evaluation import error_reduction
from unfreeze.models.settings import TrainImages
from unfreeze.models.settings.overrides import build_spec

HEAD_ONLY = Path(__file__).parents[1] / "deployments" / "configs" / "head_only.yaml"


def main() -> None:
    """Measure every setting and print the table."""
    if not PHOTOS.exists():
        sys.exit(f"{PHOTOS} is not there: nothing to measure")
    table = Table(
        "setting", "plain", "TTA", "errors removed by TTA", "seconds", title="Medians of five seeds, 220 rows"
    )
    settings = {
        "efficientnet-lite0, 3 precomputed views": {},
        "efficientnet-lite0, fresh augmentation every epoch": {"recipe.1.views": "none"},
        "mobilenet_v2, 3 precomputed views": {"model.backbone": "mobilenet_v2", "model.weights": str(MOBILENET)},
    }
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    for name, overrides in settings.items():
        if wanted not in name:
            continue
        params = build_spec(
            TrainImages, yaml.safe_load(HEAD_ONLY.read_text()), {"data.source": str(PHOTOS), **overrides}
        )
        with prepared(params) as photos:
            began = time.perf_counter()
            photos.precompute()
            results = [photos.train(photos.bind(seed=seed)) for seed in SEEDS]
            seconds = time.perf_counter() - began
        plain, tta = median([each[0] for each in results]), median([each[1] for each in results])
        removed = median([error_reduction(*each) for each in results])
        table.add_row(name, f"{plain:.4f}", f"{tta:.4f}", f"{removed:+.0%}", f"{seconds:.0f}")
        print(name, [(round(each[0], 4), round(each[1], 4)) for each in results], flush=True)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
