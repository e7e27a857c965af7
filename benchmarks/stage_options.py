"""What each option of the full stage brings on small sets of images, against the default recipe with the same seeds.

The head's stages are trained once per seed and shared. Options are judged on the validation rows, by the loss of the
network as it was trained, because defaults are chosen by them; test losses of the same network stand beside. Ratios are
geometric means over seeds: below 1 is better than the default.

With an argument, only sets whose name holds it; a second one is the number of seeds (3).
"""

import math
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks._image_sets import DEV, written
from benchmarks._prepared import Prepared, prepared
from unfreeze.models.recipe.run import Train, run_recipe
from unfreeze.models.recipe.shared_stages import SharedStages
from unfreeze.models.recipe.training_data import Candidate
from unfreeze.models.settings import TrainImages
from unfreeze.models.settings.overrides import build_spec

STAGE = "recipe.full."
OPTIONS: dict[str, dict[str, object]] = {
    "default": {},
    "lr 0.0003": {f"{STAGE}lr": 3e-4},
    "lr 0.001": {f"{STAGE}lr": 1e-3},
    "lr 0.004": {f"{STAGE}lr": 4e-3},
    "ratio 10": {f"{STAGE}ratio": 10},
    "ratio 1": {f"{STAGE}ratio": 1},
    "half the steps": {f"{STAGE}cycle_steps": 75, f"{STAGE}cycle_len": 3},
    "batch norms trained": {f"{STAGE}freeze_batchnorm": False},
    "late half only": {f"{STAGE}train": "late"},
    "layer decay 0.8": {f"{STAGE}layer_decay": 0.8},
    "ema 0.99": {"optimizer.ema": 0.99},
    "no label smoothing": {"optimizer.label_smoothing": 0.0},
    "label smoothing 0.1": {"optimizer.label_smoothing": 0.1},
    "mixup": {"augment.mix": "mixup"},
    "cutmix, alpha 1": {"augment.mix": "cutmix", "augment.mix_alpha": 1.0},
}


def losses(photos: Prepared, params: TrainImages, shared: SharedStages) -> tuple[float, float]:
    """Validation and test loss of the network after the last stage."""
    data = photos.bind(**{name: getattr(params, name) for name in ("augment", "optimizer", "recipe", "seed")})
    for step in run_recipe(data, photos.workspace, done_by=shared.handles):
        if not isinstance(step, Train):
            break
        for _ in step.run():
            pass
        learner, position = step.state.learner, step.position
    trained = Candidate("full", [learner.state()], position)
    valid, test = (
        data.target.loss_of(data.predictions(learner, trained, {}, split), data.actual(split))
        for split in ("valid", "test")
    )
    return valid, test


def main() -> None:
    """Measure and print every set."""
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    seeds = range(int(sys.argv[2]) if len(sys.argv) > 2 else 3)
    table = Table("set", "option", "validation loss", "ratio", "test loss", "ratio")
    with tempfile.TemporaryDirectory() as folder:
        for name, source, settings in written({name: DEV[name] for name in DEV if wanted in name}, Path(folder)):
            settings = {**settings, f"{STAGE}fewest_errors": None}
            given = {"data": {"source": source}}
            found: dict[str, list[tuple[float, float]]] = {}
            with prepared(build_spec(TrainImages, given, settings)) as photos:
                for option, changes in OPTIONS.items():
                    for seed in seeds:
                        params = build_spec(TrainImages, given, {**settings, **changes, "seed": seed})
                        kept = params.model_dump(include={"model", "augment", "optimizer", "seed"})
                        shared = SharedStages(1, kept)
                        found.setdefault(option, []).append(losses(photos, params, shared))
                    print(name, option, [[round(loss, 4) for loss in pair] for pair in found[option]], flush=True)
            for option, pairs in found.items():
                columns = list(zip(*pairs, strict=True))
                base = list(zip(*found["default"], strict=True))
                cells = []
                for own, default in zip(columns, base, strict=True):
                    cells += [f"{geometric(own):.4f}", f"{geometric(own) / geometric(default):.3f}"]
                table.add_row(name, option, *cells)
    Console(width=130).print(table)


def geometric(values: tuple[float, ...]) -> float:
    """Geometric mean."""
    return math.exp(sum(math.log(max(value, 1e-7)) for value in values) / len(values))


if __name__ == "__main__":
    main()
