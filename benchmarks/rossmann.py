"""Rossmann store sales, the last 48 days: our network, trees, the mean by group, and fastai's tabular learner.

Medians of three seeds with deployments/configs/rossmann.yaml, whose features were chosen by looking at these very
validation rows, and whose network and training by the 48 days before them; trees have their defaults. fastai (for its
install line see benchmarks.datepart) gets the same columns as the config makes them, layers [1000, 500] with dropout
.001 and .01, one cycle of 5 epochs at 1e-3, batches of 128 and weight decay 0.2. Seconds are of the training alone: the
networks validate after every epoch, and data are in memory.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import cast

import numpy as np
import torch
import yaml
from rich.console import Console
from rich.table import Table

from benchmarks._prepared import SHARED, median
from unfreeze.models.evaluation.metrics import rmspe
from unfreeze.models.recipe.modality import modality
from unfreeze.models.settings.overrides import build_spec
from unfreeze.models.settings.tables import TrainTables
from unfreeze.models.store.workspace import Workspace
from unfreeze.models.tables.baselines import group_mean
from unfreeze.models.tables.data import TableData
from unfreeze.models.tables.preparing.prepare import with_date_parts
from unfreeze.models.tables.trees import Trees
from unfreeze.models.training.loop import fit

ROSSMANN = SHARED / "data" / "rossmann"
CONFIG = Path(__file__).parents[1] / "deployments" / "configs" / "rossmann.yaml"
SEEDS = range(3)
FASTAI_BATCH, FASTAI_EPOCHS, FASTAI_LR, FASTAI_DECAY = 128, 5, 1e-3, 0.2

Result = tuple[np.ndarray, float]
"""Predictions (N, 1) in the target's own scale, and seconds."""


class Bound:
    """The table prepared in a folder, without servers."""

    def __init__(self, params: TrainTables, folder: Path) -> None:
        self.params = params
        self._handle = modality("tables").prepare(params, Workspace(folder))
        data = self.bind(0)
        self.train, self.valid, self.encoder = data.rows["train"], data.rows["valid"], data.encoder
        self.features = with_date_parts(data.frame, params.data)
        train, targets = data.encoded("train")
        valid, wanted = data.encoded("valid")
        self.baseline_inputs = (self.encoder, train, targets, valid)
        self.actual = data.target.actual(torch.from_numpy(wanted))

    def bind(self, seed: int) -> TableData:
        """The data with another seed."""
        return TableData(self.params.model_copy(update={"seed": seed}), self._handle)


def train_ours(table: Bound, seed: int) -> Result:
    """The config's stages."""
    data = table.bind(seed)
    learner, seconds = data.learner(), 0.0
    for position, stage in enumerate(data.params.recipe):
        train, valid = (data.batches(position, split, {}) for split in ("train", "valid"))
        learner.prepare(stage, position, cast(float, stage.lr))
        began = time.perf_counter()
        for _ in fit(learner, stage, train, valid):
            pass
        seconds += time.perf_counter() - began
    return learner.target.predictions(learner.predict(valid)[0]), seconds


def train_trees(table: Bound, seed: int) -> Result:
    """The trees of `unfreeze train-table`."""
    began = time.perf_counter()
    encoder, train, targets, valid = table.baseline_inputs
    trees = Trees.fit(encoder, train, targets, seed)
    return encoder.predictions(trees.predict(valid)), time.perf_counter() - began


def average_by_group(table: Bound, seed: int) -> Result:
    """The mean of the target by the columns that predict it best."""
    began = time.perf_counter()
    return group_mean(*table.baseline_inputs, seed).predictions, time.perf_counter() - began


def train_fastai(table: Bound, seed: int) -> Result:
    """The tabular learner of fastai with the course's settings on the columns that our network gets.

    Flags of missing numbers are made by its own FillMissing.
    """
    from fastai.tabular import all as fastai  # not at the top: it is not a dependency of ours

    encoder, target = table.encoder, table.encoder.target_names[0]
    frame = table.features.assign(**{target: np.log1p(table.features[target]).astype(np.float32)})
    categorical = [name for name in encoder.categorical if name not in encoder.flags]
    # What our network gets both ways is two columns there.
    twice = {name: f"{name} (as number)" for name in encoder.continuous if name in categorical}
    frame = frame.assign(**{copy: frame[name].astype(np.float64) for name, copy in twice.items()})
    continuous = [twice.get(name, name) for name in encoder.continuous]
    torch.manual_seed(seed)
    fastai.set_seed(seed)
    rows = fastai.TabularPandas(
        frame[[*categorical, *continuous, target]],
        procs=[fastai.Categorify, fastai.FillMissing, fastai.Normalize],
        cat_names=categorical,
        cont_names=continuous,
        y_names=target,
        y_block=fastai.RegressionBlock(),
        splits=(table.train.tolist(), table.valid.tolist()),
    )
    loaders = rows.dataloaders(bs=FASTAI_BATCH)
    config = fastai.tabular_config(
        ps=[0.001, 0.01], embed_p=0.04, y_range=(0, 1.2 * float(frame[target].iloc[table.train].max()))
    )
    learner = fastai.tabular_learner(loaders, layers=[1000, 500], config=config, n_out=1)
    with learner.no_bar(), learner.no_logging():
        began = time.perf_counter()
        learner.fit_one_cycle(FASTAI_EPOCHS, FASTAI_LR, wd=FASTAI_DECAY)
        seconds = time.perf_counter() - began
        outputs, _ = learner.get_preds(dl=loaders.valid)
    return np.expm1(outputs.double().numpy().reshape(-1, 1)), seconds


def main() -> None:
    """Train every model with every seed and print the table."""
    if not (ROSSMANN / "train.csv").exists():
        print(f"{ROSSMANN} is not there: nothing to measure")
        sys.exit(1)
    files = {"data.source": str(ROSSMANN / "train.csv"), "data.join": [str(ROSSMANN / "store.csv")]}
    params = build_spec(TrainTables, yaml.safe_load(CONFIG.read_text()), files)
    ways = {
        "our network": train_ours,
        "gradient-boosted trees (LightGBM)": train_trees,
        "mean by group": average_by_group,
        "fastai's tabular learner": train_fastai,
    }
    results: dict[str, list[Result]] = {}
    with tempfile.TemporaryDirectory() as folder:
        table = Bound(params, Path(folder))
        print(
            f"{len(table.train):,} training and {len(table.valid):,} validation rows, {torch.get_num_threads()} threads"
        )
        for name, train in ways.items():
            try:
                results[name] = [train(table, seed) for seed in SEEDS]
            except ImportError as error:
                print(f"fastai cannot be imported ({error}); benchmarks.datepart prints how to install it")
                continue
            print(name, [round(rmspe(each, table.actual), 4) for each, _ in results[name]], flush=True)
        ours, trees, mean, theirs = ways
        results["network and trees averaged"] = [
            (np.expm1((np.log1p(network) + np.log1p(tree)) / 2), one + other)
            for (network, one), (tree, other) in zip(results[ours], results[trees], strict=True)
        ]
        shown = Table("model", "RMSPE", "of each seed", "seconds", title="Medians of three seeds, last 48 days")
        for name in (ours, trees, mean, "network and trees averaged", theirs):
            if name not in results:
                shown.add_row(name, "not importable", "", "")
                continue
            errors = [rmspe(each, table.actual) for each, _ in results[name]]
            seconds = median([each for _, each in results[name]])
            shown.add_row(name, f"{median(errors):.4f}", ", ".join(f"{e:.4f}" for e in errors), f"{seconds:.1f}")
    Console(width=110).print(shown)
    if theirs in results:
        slow, whole = (median([each for _, each in results[name]]) for name in (theirs, ours))
        print(f"fastai's seconds are {slow / whole:.1f} times ours")


if __name__ == "__main__":
    main()
