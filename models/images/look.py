"""First look at a data set before training: contents, problems and remedies."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn import functional

from unfreeze.models.evaluation.plots import plot_images
from unfreeze.models.evaluation.results import Card, Findings
from unfreeze.models.images.data import ImageData, notes_of, plain_rows
from unfreeze.models.images.listing.splits import units_of
from unfreeze.models.images.networks.linear_head import out_of_fold
from unfreeze.models.images.pixels.cache import usable_size
from unfreeze.models.images.pixels.decode import encoded
from unfreeze.models.recipe.training_data import SPLITS
from unfreeze.models.settings import Stage, TrainImages, TtaSpec
from unfreeze.models.store.workspace import Workspace

STAGE = Stage(name="look", precompute=True, lr=1.0)
"""Recipe of a look: reads what the first stage of the default recipe reads."""
MOST_CARDS, MOST_CLASSES, OF_A_CLASS = 12, 8, 6
AT_ONCE = 1024
"""Batch size for making and comparing thumbnails."""
SIDE = 16
"""Side of the gray thumbnails, in pixels."""
ALIKE = 0.985
"""Minimum correlation of near duplicates; different shots of one subject reach 0.95."""
FLAT = 2.0
"""Minimum standard deviation of gray values; flatter thumbnails correlate by chance."""
QUANTILES = {"smallest": 0.0, "quarter": 0.25, "median": 0.5, "three quarters": 0.75, "largest": 1.0}


def looking_at(params: TrainImages) -> TrainImages:
    """Derive the spec of a training that only reads plain activations."""
    return params.model_copy(update={"recipe": [STAGE], "tta": TtaSpec(n_aug=0)})


def look(data: ImageData, workspace: Workspace) -> Findings:
    """Inspect prepared images, bound to the spec that `looking_at` returned.

    Returns
    -------
    Findings
        Lines, tables and a grid of samples; tables ``label-errors`` and ``near-duplicates`` are complete, cards show
        the most suspicious labels. If near copies are on both sides of the split, a frame ``groups`` (path, label,
        group) keeps them together.
    """
    found = Findings(notices=notes_of(data.index))
    found.lines.append(data.index.understood)
    _count(data, found)
    _measure_sizes(data, found)
    rejected = data.index.rejected.to_pylist()
    found.table("rejected", f"Files that cannot be used: {len(rejected):,}", rejected)
    plain = data.index.rows.take(plain_rows(data.index)).select(["path", "label", "spread"])
    found.table("plain", f"Images that are nearly one colour: {len(plain):,}", plain.to_pylist())
    _find_copies(data, found)
    files = data.precompute(data.learner(), 0, workspace)
    order = np.concatenate([data.rows[split] for split in ("train", "valid")])
    activations, targets = data.plain_activations(files)
    with workspace.progress("Fitting logistic regressions") as advance:
        predictions = out_of_fold(activations, targets, data.target, data.plain_groups(), advance)
    actual = data.target.actual(torch.from_numpy(targets))
    values = {name: metric(predictions, actual) for name, metric in data.target.metrics(data.metric_names()).items()}
    found.metrics |= {f"folds/{name}": value for name, value in values.items()}
    shown = ", ".join(f"{name} {value:.3f}" for name, value in values.items())
    found.lines.append(f"to beat: logistic regression on the pretrained body's activations, out of fold: {shown}")
    _show_label_errors(data, order, data.target.label_errors(predictions, actual), found)
    _draw_samples(data, found)
    return found


def _count(data: ImageData, found: Findings) -> None:
    rows = data.index.rows
    splits = np.asarray(rows["split"])
    occurrences = {split: data.index.occurrences(np.flatnonzero(splits == split)) for split in SPLITS}
    names = [str(each) for each in data.index.classes]
    counts = [{"class": name, **{split: each.count(name) for split, each in occurrences.items()}} for name in names]
    sums = [sum(each.count(name) for each in occurrences.values()) for name in names]
    found.table("classes", f"{len(names):,} classes", counts)
    found.lines.append(f"{len(rows):,} images of {len(names):,} classes, {min(sums):,} to {max(sums):,} each")
    found.add(data.target.imbalance(data.targets("train")))


def _measure_sizes(data: ImageData, found: Findings) -> None:
    width, height = (data.index.rows[name].to_numpy() for name in ("width", "height"))
    sides = {"width": width, "height": height, "shorter side": np.minimum(width, height), "aspect": width / height}
    rows = [
        {"of": name, **{label: round(float(np.quantile(values, at)), 2) for label, at in QUANTILES.items()}}
        for name, values in sides.items()
    ]
    found.table("sizes", "Sizes in pixels", rows)
    size = usable_size(data.index, data.preprocessing.size)
    found.lines.append(
        f"suggested size: {size} (the weights were trained at {data.preprocessing.size}; the images' shorter side is "
        f"{np.median(sides['shorter side']):,.0f} in the median)"
    )


def _find_copies(data: ImageData, found: Findings) -> None:
    rows = data.index.rows.select(["path", "label", "split", "content"]).to_pandas()
    copies = rows[rows["content"].duplicated(keep=False)].sort_values("content", kind="stable")
    found.table("duplicates", f"Files that are exact copies of others: {len(copies):,}", copies.drop(columns="content"))
    cache = data.cache(0)
    parts = [*range(0, len(rows), AT_ONCE), len(rows)]
    thumbs = torch.cat([thumbnails(cache.gather(np.arange(start, end))) for start, end in pairwise(parts)])
    pairs = near_duplicates(thumbs)
    content = rows["content"].to_numpy()
    other = pairs[content[pairs["one"]] != content[pairs["other"]]]
    columns: dict[str, object] = {}
    for name, like in (("path", "like"), ("label", "its label"), ("split", "its split")):
        columns |= {name: rows[name].to_numpy()[other["one"]], like: rows[name].to_numpy()[other["other"]]}
    table = pd.DataFrame({**columns, "correlation": other["correlation"].to_numpy().round(4)})
    found.table("near-duplicates", f"Pairs of images that show nearly the same: {len(table):,}", table)
    if across := int((table["split"] != table["its split"]).sum()):
        found.frame("groups", _groups(data, pairs))
        found.notices.append(
            f"pairs of nearly equal images on both sides of the split: {across:,}; validation is flattered by what "
            "was trained on; --data.group_pattern keeps together what a folder or a part of the name says, "
            "--data.group_column what the table of groups beside the page says"
        )
    if differing := int((table["label"] != table["its label"]).sum()):
        found.notices.append(f"pairs of nearly equal images with different labels: {differing:,}")


def _groups(data: ImageData, pairs: pd.DataFrame) -> pd.DataFrame:
    """Path, label and group of every image; near copies share a group, and the source's groups stay whole."""
    rows = data.index.rows
    content = rows["content"].to_pylist()
    ends = pairs[["one", "other"]].to_numpy().tolist()
    near = [(content[row], f"near {number}") for number, pair in enumerate(ends) for row in pair]
    units = units_of([*zip(content, rows["group"].to_pylist(), strict=True), *near])
    named: pd.DataFrame = rows.select(["path", "label"]).to_pandas()
    return named.assign(group=[units[each] for each in content])


def _show_label_errors(data: ImageData, order: np.ndarray, suspected: pd.DataFrame, found: Findings) -> None:
    rows = suspected.index.to_numpy()
    table = suspected.rename(columns={"probability_of_label": "probability of label"})
    table.insert(0, "path", data.index.rows["path"].take(order[rows]).to_pylist())
    found.table("label-errors", f"Images that seem to have a wrong label: {len(table):,}", table)
    pixels = data.cache(0).gather(order[rows[:MOST_CARDS]]).permute(0, 2, 3, 1).numpy()
    for image, row in zip(pixels, table.head(MOST_CARDS).astype(str).to_dict("records"), strict=True):
        facts = {str(name): value for name, value in row.items()}
        found.cards.append(Card(Path(facts["path"]).name, facts, encoded(image, "JPEG")))


def _draw_samples(data: ImageData, found: Findings) -> None:
    rng, chosen, captions = np.random.default_rng(0), list[int](), list[str]()
    labels = np.array(data.index.rows["label"].to_pylist())
    for name in list(dict.fromkeys(sorted(labels)))[:MOST_CLASSES]:
        rows = np.flatnonzero(labels == name)
        picked = np.sort(rng.permutation(rows)[:OF_A_CLASS])
        chosen += picked.tolist()
        captions += [name] * len(picked)
    pixels, title = data.cache(0).gather(np.array(chosen)).permute(0, 2, 3, 1).numpy(), "Samples of each class"
    found.figure("look/samples.png", title, lambda: plot_images(pixels, captions, title))


def thumbnails(pixels: torch.Tensor) -> torch.Tensor:
    """Make gray thumbnails (N, SIDE * SIDE) float32 of images (N, 3, S, S) uint8."""
    gray = (pixels.float() * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    return functional.adaptive_avg_pool2d(gray, SIDE).flatten(1)


def near_duplicates(thumbs: torch.Tensor) -> pd.DataFrame:
    """Find pairs of thumbnails (N, D) with a correlation of at least `ALIKE`, highest first; flat ones are skipped.

    Mirrored copies count. All N^2 / 2 pairs are compared: 2 s for 20,000 images on one core.

    Returns
    -------
    pandas.DataFrame
        ``one`` and ``other`` (row numbers, the first below the second) and ``correlation`` in float64.
    """
    varied = torch.nonzero(thumbs.std(dim=1) >= FLAT).flatten()
    unit = _unit(thumbs[varied])
    mirrored = _unit(thumbs[varied].view(-1, SIDE, SIDE).flip(2).flatten(1))
    found = []
    for start in range(0, len(unit), AT_ONCE):
        part = unit[start : start + AT_ONCE]
        alike = torch.maximum(part @ unit.T, part @ mirrored.T).triu(start + 1)
        rows, columns = torch.nonzero(alike >= ALIKE, as_tuple=True)
        found.append(
            torch.stack([varied[rows + start].double(), varied[columns].double(), alike[rows, columns].double()])
        )
    pairs = pd.DataFrame(torch.cat(found, 1).T.numpy() if found else None, columns=["one", "other", "correlation"])
    pairs = pairs.astype({"one": np.int64, "other": np.int64, "correlation": np.float64})
    return pairs.sort_values("correlation", ascending=False, kind="stable", ignore_index=True)


def _unit(thumbs: torch.Tensor) -> torch.Tensor:
    centred = thumbs - thumbs.mean(dim=1, keepdim=True)
    return functional.normalize(centred, dim=1, eps=1e-6)
