"""Learning-rate finders against a grid search: regret of five rules and of a rate-free optimizer on small data sets.

Heads on activations of photos, digits and generated textures, and networks on public and generated tables, each trained
for its first two cycles at nine lrs half a decade apart. The regret of a suggestion is how much higher the validation
loss is at it (interpolated over log lr) than at the best lr of the grid, as a share of what training can gain: the loss
of the best constant prediction less the lowest loss. It is cut off at 1. The spread is the standard deviation of
log10(suggestion) over seeds and over 40, 100 and 200 steps, in decades. The finder's prior was settled on the first
sets of cats and dogs, the digits and the first two tables; the others were run later.

With arguments, the number of seeds (5), and of which sets: ``python -m benchmarks.finder 5 digits glyphs`` takes those
whose names have one of these words. Every set and seed is a process of its own, as many at once as there are cores.
"""

import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn import datasets
from sklearn.preprocessing import scale
from torch import nn

from benchmarks._image_sets import DEV, written
from benchmarks._prepared import prepared
from unfreeze.models.images.networks.classifier import build_head
from unfreeze.models.settings import FinderSpec, OptimizerSpec, Stage, TrainImages
from unfreeze.models.settings.overrides import build_spec
from unfreeze.models.store.row_store import StoredRows
from unfreeze.models.targets.losses import cross_entropy
from unfreeze.models.training.batches import WHOLE
from unfreeze.models.training.finder import find_lr, try_lrs
from unfreeze.models.training.learner import LR_PRIORS, OPTIMIZERS, Learner
from unfreeze.models.training.loop import DivergedError, fit
from unfreeze.models.training.network import Network
from unfreeze.models.training.precision import Precision
from unfreeze.models.training.schedules import batch_size_for, steps_per_epoch

CPU = torch.device("cpu")
FLOAT = Precision("cpu", torch.float32, torch.float32)
GRID = 10.0 ** np.arange(-4.5, -0.4, 0.5)
FIXED = 3e-3
Measured = tuple[dict[str, list[float]], dict[str, list[float]]]
"""Rule -> regrets, and rule -> log10 of every suggestion."""


class Set(NamedTuple):
    """Rows to train and to judge on; `is_image` where they are activations."""

    name: str
    train: tuple[np.ndarray, np.ndarray]
    valid: tuple[np.ndarray, np.ndarray]
    is_image: bool


class Rows:
    """Rows in memory as `unfreeze.models.training.batches.Batches`."""

    precomputed, forward_size, epoch = True, 1024, 0

    def __init__(self, inputs: np.ndarray, targets: np.ndarray, batch_size: int) -> None:
        self.inputs, self.targets = torch.from_numpy(inputs).float(), torch.from_numpy(targets).long()
        self.batch_size = batch_size

    def __len__(self) -> int:
        return len(self.inputs)

    def gather(
        self, rows: torch.Tensor, generator: torch.Generator | None, share: slice = WHOLE
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows as they are."""
        return self.inputs[rows[share]], self.targets[rows[share]]


def image_data(words: list[str]) -> Iterator[Set]:
    """Activations of the plain images."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = {name: images for name, images in DEV.items() if is_wanted(name, words)}
        for name, source, settings in written(wanted, Path(folder)):
            params = build_spec(TrainImages, {"data": {"source": source}, "tta": {"n_aug": 0}}, settings)
            with prepared(params) as photos:
                data, files = photos.bind(), photos.precompute()[0]
                parts = [
                    (StoredRows(files[split, 0]).gather(np.arange(len(data.rows[split]))).numpy(), data.targets(split))
                    for split in ("train", "valid")
                ]
            yield Set(name, parts[0], parts[1], True)


def is_wanted(name: str, words: list[str]) -> bool:
    """Whether a set's name has one of the words, if there are any."""
    return not words or any(word in name for word in words)


def table_data(words: list[str]) -> Iterator[Set]:
    """Standardised numbers of tables, a fifth of whose rows judge."""
    sources = {
        "breast cancer": datasets.load_breast_cancer(return_X_y=True),
        "wine": datasets.load_wine(return_X_y=True),
        "digits as a table": datasets.load_digits(return_X_y=True),
        "generated, 4 classes": datasets.make_classification(3000, 20, n_informative=8, n_classes=4, random_state=0),
        "generated, noisy": datasets.make_classification(1500, 40, n_informative=5, flip_y=0.2, random_state=1),
    }
    for name, (inputs, targets) in sources.items():
        if not is_wanted(name, words):
            continue
        order = np.random.default_rng(0).permutation(len(targets))
        inputs, targets = scale(inputs)[order], targets[order]
        cut = len(order) * 4 // 5
        yield Set(name, (inputs[:cut], targets[:cut]), (inputs[cut:], targets[cut:]), False)


def rate_free(groups: list[dict[str, object]], settings: OptimizerSpec) -> torch.optim.Optimizer:
    """Prodigy (Mishchenko and Defazio, 2023), which estimates the rate while it trains."""
    from prodigyopt import Prodigy

    return Prodigy(groups, lr=1.0, weight_decay=0.01)  # type: ignore[no-any-return]


def learner_of(data: Set, seed: int, batch_size: int, optimizer: str) -> Learner:
    """A new head, or a network of two hidden layers, on nothing: the rows are what a head takes."""
    width, classes = data.train[0].shape[1], int(data.train[1].max()) + 1
    torch.manual_seed(seed)
    head: nn.Module = build_head(width, classes)
    if not data.is_image:
        hidden = [nn.Linear(width, 500), nn.ReLU(), nn.BatchNorm1d(500), nn.Linear(500, 250), nn.ReLU()]
        head = nn.Sequential(*hidden, nn.BatchNorm1d(250), nn.Linear(250, classes))
    settings = OptimizerSpec(name=optimizer, batch_size=batch_size)
    loss = cross_entropy(settings, data.train[1], classes, CPU)
    return Learner(Network(nn.Linear(1, 1), head, [["weight"], ["bias"]], 1), settings, loss, CPU, FLOAT, seed, {})


def final_loss(data: Set, stage: Stage, seed: int, lr: float, optimizer: str = "adamw") -> float:
    """Validation loss at the end of the stage; infinite if it diverges."""
    batch_size = batch_size_for(len(data.train[1]), *((8, 64) if data.is_image else (32, 256)))
    learner = learner_of(data, seed, batch_size, optimizer)
    learner.prepare(stage, 0, lr)
    valid = Rows(*data.valid, batch_size)
    try:
        for _ in fit(learner, stage, Rows(*data.train, batch_size), valid):
            pass
    except DivergedError:
        return float("inf")
    return learner.validate(valid)["loss"]


def measure(data: Set, seed: int) -> Measured:
    """The rules on a set, for one seed and every number of steps."""
    torch.set_num_threads(1)
    rows = len(data.train[1])
    batch_size = batch_size_for(rows, *((8, 64) if data.is_image else (32, 256)))
    steps = steps_per_epoch(rows, batch_size)
    stage = Stage(name="head", find_lr=True, cycles=2, cycle_len=-(-50 // steps))
    shares = np.bincount(data.train[1]) / rows
    constant = float(-np.log(shares[data.valid[1]]).mean())
    regrets: dict[str, list[float]] = defaultdict(list)
    picks: dict[str, list[float]] = defaultdict(list)
    losses = np.array([final_loss(data, stage, seed, float(lr)) for lr in GRID])
    best, finite = losses.min(), np.minimum(losses, 100.0)

    def regret(loss: float) -> float:
        return float(np.clip((loss - best) / (constant - best), 0, 1))

    for budget in (40, 100, 200):
        learner = learner_of(data, seed, batch_size, "adamw")
        learner.prepare(stage, 0, 1.0)
        settings = FinderSpec(steps=budget)
        rows_in_memory = Rows(*data.train, batch_size)
        read = find_lr(learner, rows_in_memory, settings, 2 * 50, LR_PRIORS["adamw"])
        curve = replace(read, trials=try_lrs(learner, rows_in_memory, stage, read.read()[0]))
        for name, lr in {**curve.suggestions(), "curves and prior": read.read()[0], "fixed 0.003": FIXED}.items():
            picks[name].append(float(np.log10(lr)))
            regrets[name].append(regret(float(np.interp(np.log10(lr), np.log10(GRID), finite))))
    if has_prodigy():
        OPTIMIZERS["prodigy"] = rate_free
        regrets["Prodigy, no rate"].append(regret(final_loss(data, stage, seed, 1.0, "prodigy")))
    return dict(regrets), dict(picks)


def has_prodigy() -> bool:
    """Whether the rate-free optimizer is installed."""
    return find_spec("prodigyopt") is not None


def measure_all(seeds: int, words: list[str]) -> dict[str, list[Measured]]:
    """Name of a set -> what `measure` returns of every seed; each set is printed when its seeds are through."""
    found = defaultdict(list)
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        running = {
            pool.submit(measure, data, seed): data
            for data in [*table_data(words), *image_data(words)]
            for seed in range(seeds)
        }
        for done in as_completed(running):
            data = running[done]
            found[data.name].append(done.result())
            if len(found[data.name]) == seeds:
                shown = {rule: round(value, 3) for rule, value in mean_regrets(found[data.name]).items()}
                print(f"{data.name}, {len(data.train[1])} rows: {shown}", flush=True)
    return found


def mean_regrets(seeds: list[Measured]) -> dict[str, float]:
    """Rule -> its regret, over all seeds and numbers of steps."""
    return {rule: float(np.mean([regrets[rule] for regrets, _ in seeds])) for rule in seeds[0][0]}


def main() -> None:
    """Measure and print."""
    seeds, words = int(sys.argv[1]) if len(sys.argv) > 1 else 5, sys.argv[2:]
    if not has_prodigy():
        print("prodigyopt is not installed: no rate-free optimizer")
    found = measure_all(seeds, words)
    means = {name: mean_regrets(each) for name, each in found.items()}
    table = Table("rule", "mean regret", "worst set", "spread (decades)", title=f"{len(found)} sets, {seeds} seeds")
    for rule in next(iter(means.values())):
        regrets = [each[rule] for each in means.values()]
        spreads = [float(np.std([picks[rule] for _, picks in each])) for each in found.values() if rule in each[0][1]]
        spread = f"{np.mean(spreads):.2f} (at most {max(spreads):.2f})" if spreads else ""
        table.add_row(rule, f"{np.mean(regrets):.3f}", f"{max(regrets):.3f}", spread)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
