"""Precomputed activations of a frozen body, stored by image content."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import cast

import numpy as np
import torch

from unfreeze.models.errors import UserError
from unfreeze.models.images.batches import CPU_FORWARD_SIZE, ImageBatches
from unfreeze.models.images.bound import BoundImages
from unfreeze.models.images.networks.backbones import Body
from unfreeze.models.store.row_store import RowStore, missing_lots
from unfreeze.models.store.workspace import Workspace, key_of
from unfreeze.models.training.learner import Learner
from unfreeze.models.training.network import weights_digest
from unfreeze.models.training.precision import Precision
from unfreeze.models.training.ranks import count, rank, wait_for_all

ACTIVATIONS_VERSION = 4
"""Increment when the same inputs would give other activations; part of the cache key."""
FORWARD_SIZE = 64
"""Images per forward pass on an accelerator; on a CPU it is `CPU_FORWARD_SIZE`."""

View = tuple[str, int]
"""Split and view number: 0 is the plain view, others are random but fixed."""


def precompute(
    data: BoundImages, learner: Learner, position: int, views: Sequence[View], workspace: Workspace
) -> dict[View, Path]:
    """Compute missing activations of views; returns the lists of their rows in the split's order.

    Rows are float16 of width D (5 KB for efficientnet-lite0), keyed by the body's weights, the preprocessing and the
    image's content. Runs with other seeds and splits share them, and an added image costs one forward pass. A kill
    loses at most 512 rows.

    On a CPU rows are reproducible bit for bit: every forward pass has the same size (the last one is padded), because
    libraries choose algorithms by batch size. On accelerators rows agree to within rounding. Memory: the images of one
    forward pass, 512 rows, and the hashes of all images.
    """
    weights, features = weights_digest(learner.network.body), cast(Body, learner.network.body).features
    contents = {split: data.contents(split) for split, _ in views}
    named = {f"{split}/{view}": (split, view) for split, view in views}
    frozen = cache(partial(data.frozen_body, learner, position))
    store_of = partial(_store, data, weights, features, position, workspace)
    stage = data.params.recipe[position].name

    def compute(names: Iterable[str], first: int = 0, step: int = 1) -> Iterator[str]:
        """Store every view's missing rows of each `step`-th image from `first`; yields the names of complete views."""
        total, done = sum(len(contents[named[name][0]][first::step]) for name in names), 0

        def rows(
            images: ImageBatches, positions: np.ndarray, names: Sequence[str]
        ) -> Iterator[Mapping[str, np.ndarray]]:
            nonlocal done
            chosen = torch.from_numpy(first + step * positions)
            for made in forward(frozen(), images, chosen, data.precision):
                yield {names[0]: _as_halves(made, stage)}
                done += len(made)
                advance(done, total)

        with workspace.progress("Precomputing activations") as advance:
            for name in names:  # one view at a time bounds the memory for row positions
                split, view = named[name]
                mine = contents[split][first::step]
                lots = missing_lots({name: store_of((split, view))}, mine)
                done += len(mine) - sum(len(lot.positions) for lot in lots)
                images = data.images(position, split, view)
                for lot in lots:
                    lot.write(partial(rows, images))
                yield name

    def build(wanted: dict[str, Path]) -> Iterator[str]:
        for name in compute(wanted):
            split, view = named[name]
            store_of((split, view)).write_list(wanted[name], contents[split])
            yield name

    task = f"precompute activations for {stage}"
    if count() > 1:
        workspace.step(f"{task} on {count()} devices", lambda: [*compute(named, rank(), count())])
        wait_for_all()
    files = {name: store_of(view).list_of(contents[view[0]]) for name, view in named.items()}
    paths = workspace.derive(task, files, build)
    return {view: paths[name] for name, view in named.items()}


@torch.no_grad()
def forward(body: Body, images: ImageBatches, rows: torch.Tensor, precision: Precision) -> Iterator[np.ndarray]:
    """Yield a body's pooled activations, (n, D) float32 per forward pass.

    Parameters
    ----------
    body
        Put into evaluation mode here, so activations equal those of the frozen network.
    images
        Images, with the fixed view to apply.
    rows
        Rows to compute, (N,) int64. Every pass has the same size; the last is padded with copies of its first row.
    precision
        Precision; its inference setting is used.
    """
    body.to(images.device).to(memory_format=torch.channels_last).eval()
    size = CPU_FORWARD_SIZE if images.device.type == "cpu" else FORWARD_SIZE
    for part in rows.split(size):
        inputs, _ = images.gather(torch.cat([part, part[:1].expand(size - len(part))]), None)
        with precision.autocast(training=False):
            activations = body(inputs)
        yield activations[: len(part)].float().cpu().numpy()


def _as_halves(activations: np.ndarray, stage: str) -> np.ndarray:
    """Convert to float16; the rounding (2^-11) is far below the effect of augmentation."""
    if np.abs(activations).max(initial=0) > np.finfo(np.float16).max:
        raise UserError(
            f"activations of stage {stage!r} reach {np.abs(activations).max():.3g}, which the cache's number format "
            f"(float16) does not hold; train it without the cache: --recipe.{stage}.precompute false"
        )
    return activations.astype(np.float16)


def _store(data: BoundImages, weights: str, features: int, position: int, workspace: Workspace, view: View) -> RowStore:
    """Row store of a view's activations, shared by all splits."""
    params, images, number = data.params, data.cache(position), view[1]
    numbers = [data.device.type, str(data.precision.inference)]
    preprocessing = [data.preprocessing.mean, data.preprocessing.std]
    of_read_images = {"mix", "mix_alpha"}
    augmented = [number, params.augment.model_dump(exclude=of_read_images)] if number else [0]
    made = [weights, params.model.backbone, images.key, preprocessing, numbers, augmented, ACTIVATIONS_VERSION]
    metadata = {"split": view[0], "view": str(number), "size": str(images.size)}
    return RowStore(workspace, "activations", key_of(made), features, np.float16, metadata)
