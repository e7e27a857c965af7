"""Image training data: reports, candidates, evaluation, refit and saving."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from unfreeze.models.evaluation.drift import LEGEND, SHIFTS, image_drift, shown_shift
from unfreeze.models.evaluation.plots import plot_images
from unfreeze.models.evaluation.results import Findings
from unfreeze.models.evaluation.verdict import SECTION_NAMES
from unfreeze.models.images.activations import View, precompute
from unfreeze.models.images.backbone_choice import described, read_ranking, with_backbone
from unfreeze.models.images.bound import BoundImages
from unfreeze.models.images.evaluation import evaluate, predict_views
from unfreeze.models.images.listing.path_tables import shortened
from unfreeze.models.images.networks.linear_head import FEW_ROWS, cross_validate
from unfreeze.models.images.pixels.augmentation import apply_views, draw_views
from unfreeze.models.images.pixels.index import CONTRADICTION, COPY, Index
from unfreeze.models.images.serving.predictor import example_image, save_classifier
from unfreeze.models.reading.labels import count_reasons, kind_of_reason
from unfreeze.models.recipe.refit import trained_again
from unfreeze.models.recipe.training_data import Activations, ActivationsOf, Candidate, Prepared
from unfreeze.models.settings import Stage, TrainImages, TtaSpec
from unfreeze.models.settings.names import BACKBONE
from unfreeze.models.store.sealed_files import JUDGED
from unfreeze.models.store.workspace import Workspace
from unfreeze.models.training import ranks
from unfreeze.models.training.learner import Learner
from unfreeze.models.training.network import State
from unfreeze.models.training.schedules import plan

MOST_ROWS_SHOWN = 500
PREVIEWED = 4
"""Images in the augmentation preview, each with three random views."""
NEARLY_ONE_COLOUR = 4.0
"""Standard deviation, in levels of 256, below which an image is nearly blank."""
_MOST_NAMED = 3
BOTH_MARGIN = 2.0
"""Margin in standard errors; with one, a photo run kept a network whose test loss was a third above the mean's."""


def wanted_activations(stage: Stage, n_aug: int, splits: Sequence[str] = ("valid",)) -> list[View]:
    """List the precomputed views for training a stage and evaluating it with TTA; empty if the body is trainable.

    A stage with fresh augmentation (``views=None``) trains on images and precomputes nothing.
    """
    if not stage.precomputes:
        return []
    train = [("train", view) for view in range(0 if stage.precompute else 1, (stage.views or 0) + 1)]
    return [*train, *((split, view) for split in splits for view in range(n_aug + 1))]


class ImageData(BoundImages):
    """`BoundImages` for training; `prepared` has a ranking in ``backbones`` if the spec leaves the backbone open."""

    evaluates_head_alone = True

    def __init__(self, params: TrainImages, prepared: Prepared) -> None:
        self.ranking = read_ranking(prepared.files.get("backbones"))
        super().__init__(with_backbone(params, self.ranking), prepared)

    def precompute(self, learner: Learner, position: int, workspace: Workspace) -> dict[View, Path]:
        """Compute the missing views that stage `position` reads; see `activations.precompute`."""
        views = wanted_activations(self.params.recipe[position], self.params.tta.n_aug, self._judged_splits())
        return precompute(self, learner, position, views, workspace) if views else {}

    def _judged_splits(self) -> list[str]:
        return [split for split in ("valid", "test") if len(self.rows[split])]

    # --- reports

    def describe(self) -> Findings:
        """Report rejected files, a grid of augmented images and the model's summary."""
        found, params = Findings(), self.params
        rejected = self.index.rejected.to_pylist()
        if rejected:
            found.frame("data/rejected.feather", self.index.rejected.to_pandas())
            note = f"{len(rejected):,} files were rejected"
            if len(rejected) > MOST_ROWS_SHOWN:
                note += f"; the first {MOST_ROWS_SHOWN} are shown, all are in data/rejected.feather of the MLflow run"
            found.table("rejected", note, rejected[:MOST_ROWS_SHOWN])
        found.notices += notes_of(self.index)
        found.add(self.target.imbalance(self.targets("train")))
        if contradicting := [row for row in rejected if row["reason"].startswith(CONTRADICTION)]:
            row = contradicting[0]
            found.notices.append(
                f"warning: {len(contradicting):,} files are rejected because the same image has another label "
                f"elsewhere, such as {row['path']} (labelled {row['label']!r}): "
                f"{row['reason'].removeprefix(CONTRADICTION).strip()}; keep the right ones, or set data.labels to "
                "multiple if images in class folders have several labels"
            )
        for split in ("valid", "test"):
            copies = [row for row in rejected if row["split"] == split and row["reason"].startswith(COPY)]
            if copies:
                found.notices.append(
                    f"warning: {len(copies):,} {SECTION_NAMES[split]} images are left out because they are byte for "
                    f"byte those of another split, such as {copies[0]['path']}: {copies[0]['reason']}"
                )
        sizes = self.prepared.splits
        test = f", {sizes['test']:,} test" if sizes["test"] else ""
        found.lines.append(self.index.understood)
        found.lines.append(
            f"{sizes['train']:,} training and {sizes['valid']:,} validation{test} images of {self._kinds}"
        )
        if self.ranking:
            found.lines += self.decided()
            found.table("backbones", "Backbones, the lowest log loss first", described(self.ranking)[1])
        found.lines += plan(params, sizes["train"])
        title = f"Augmentation: {params.augment.preset}"
        found.figure("data/augmentation.png", title, lambda: plot_images(*self._augmented(), title))
        trained = self.sample("train")
        for split in self._judged_splits():
            shift = shown_shift(image_drift(trained, self.sample(split)))
            title = f"{SECTION_NAMES[split].capitalize()} images against training images ({LEGEND})"
            found.table(SHIFTS[split], title, shift)
        found.text("model_summary.txt", f"{params.model.backbone}\n\n{self.network()}\n")
        return found

    def decided(self) -> list[str]:
        """Describe the ranking of backbones, if the choice was left open."""
        return described(self.ranking)[0] if self.ranking else []

    def tags(self) -> dict[str, str]:
        """Tag with the chosen backbone."""
        return {BACKBONE: self.params.model.backbone} if self.ranking else {}

    @property
    def _kinds(self) -> str:
        """Describe the labels: ``3 classes``."""
        count = len(self.index.classes)
        if not self.index.multiple:
            return f"{count} classes"
        return f"{count} labels, {self.index.targets().sum() / len(self.index):.2f} an image"

    def _augmented(self) -> tuple[np.ndarray, list[str]]:
        """Training images, each followed by random views, (N, S, S, 3) uint8, and captions."""
        rows = self.rows["train"][:PREVIEWED].repeat(4)
        images = self.cache(0).gather(rows).float().div_(255)
        generator = torch.Generator().manual_seed(self.params.seed)
        augmented = apply_views(images, draw_views(len(rows), self.params.augment, generator))
        augmented[::4] = images[::4]
        captions = ["original" if number % 4 == 0 else "augmented" for number in range(len(rows))]
        return augmented.mul(255).byte().permute(0, 2, 3, 1).numpy(), captions

    def reference(self) -> pd.DataFrame:
        """Image statistics and labels of a sample of the training images."""
        sample = self.sample("train")
        return sample.statistics.assign(label=list(sample.labels))

    def candidates(
        self, learner: Learner, position: int, activations_of: ActivationsOf, snapshots: Sequence[State]
    ) -> Iterator[Candidate]:
        """Yield the trained network and the models that compete with it.

        These are the last weights alone (with a snapshot ensemble), the head from before the body was unfrozen, and
        logistic regression on the precomputed activations of all views, unless that is the head already. If it is, the
        mean of its predictions and the network's is a candidate too; otherwise the mean of the weights before and after
        unfreezing (WiSE-FT: Wortsman et al., "Robust fine-tuning of zero-shot models", 2022, with their default of
        1/2).
        """
        yield from super().candidates(learner, position, activations_of, snapshots)
        final, recipe = learner.state(), self.params.recipe
        if snapshots:
            yield Candidate("the last weights alone", [final], position, ablated="snapshots")
        frozen = range(sum(1 for _ in takewhile(lambda stage: stage.train == "head", recipe)))
        if not frozen:
            return
        initial, device = self.network().state_dict(), next(iter(final.values())).device

        def with_head(head: State) -> State:
            body = {name: tensor for name, tensor in initial.items() if name.startswith("body.")}
            whole = {**body, **{f"head.{name}": tensor for name, tensor in head.items()}}
            return {name: tensor.to(device) for name, tensor in whole.items()}

        regressed = recipe[frozen[-1]].regression
        if learner.head_alone is not None and position > frozen[-1]:
            alone = with_head(learner.head_alone)
            name = "logistic regression" if regressed else "head"
            ends = [frozen[-1]] if regressed else []
            yield Candidate(name, [alone], frozen[-1], ablated="fine-tuning the body", stages=ends)
            if regressed:
                both, ends = f"{recipe[position].name} and {name}", [position, *ends]
                yield Candidate(both, [final, alone], position, margin=BOTH_MARGIN, stages=ends)
            else:
                yield Candidate("mean of head and all weights", [_mean(alone, final)], position)
        computed = [number for number in frozen if recipe[number].precomputes]
        if computed and not regressed:
            views: dict[tuple[str, int], Path] = {}
            for number in computed:
                if self.sizes[number] == self.sizes[computed[-1]]:
                    views |= {key: path for key, path in activations_of(number).items() if key[0] == "train"}
            state = with_head(self.regressed_head(views))
            yield Candidate("logistic regression", [state], computed[-1], {"head": "linear"}, margin=1.0)

    def predictions(self, learner: Learner, candidate: Candidate, activations: Activations, split: str) -> np.ndarray:
        """Predict probabilities (N, C) float64 of the plain view."""
        views = self.evaluation_views(candidate.position, split, activations)
        none = TtaSpec(n_aug=0)
        members = self.of_members(learner, candidate, lambda: predict_views(learner, views, none)[0])
        return np.asarray(np.mean(members, axis=0))

    def evaluate(
        self, learner: Learner, candidate: Candidate, activations: Activations, section: str
    ) -> tuple[Findings, Candidate]:
        """See `unfreeze.models.images.evaluation.evaluate`."""
        return evaluate(self, learner, candidate, activations, section)

    def cross_validation(self, activations_of: ActivationsOf, workspace: Workspace) -> Findings:
        """Cross-validate logistic regression, if a stage reads precomputed activations of the plain training images."""
        plain = [place for place, stage in enumerate(self.params.recipe) if stage.precompute]
        if len(self.rows["valid"]) >= FEW_ROWS or not plain:
            return Findings()
        metrics = self.target.metrics(self.metric_names())
        activations, targets = self.plain_activations(activations_of(plain[0]))
        if ranks.rank():
            return Findings()
        with workspace.progress("Cross-validating logistic regression") as advance:
            return cross_validate(activations, targets, self.target, metrics, self.plain_groups(), advance)

    # --- the model

    def parts_to_refit(self, candidate: Candidate) -> list[tuple[int, int]]:
        """Select the candidate's networks to refit, each with its final stage.

        The regression by default, and the network too if `TrainImages.refit` is true.
        """
        refit, recipe = self.params.refit, self.params.recipe
        ends = ((number, end) for number, end in enumerate(candidate.stages) if end is not None)
        return [(number, end) for number, end in ends if refit or (refit is None and recipe[end].regression)]

    def refits(self, candidate: Candidate) -> bool:
        """Whether there are `parts_to_refit`."""
        return bool(self.parts_to_refit(candidate))

    def refitted(
        self, candidate: Candidate, results: Sequence[Mapping[str, Any]], workspace: Workspace
    ) -> tuple[Candidate, str]:
        """Refit the candidate's `parts_to_refit`."""
        parts, states, recipe = self.parts_to_refit(candidate), list(candidate.states), self.params.recipe
        stages = islice(trained_again(self.with_all_rows(), results, workspace), 1 + max(end for _, end in parts))
        for position, state in enumerate(stages):
            for number, end in parts:
                if end == position:
                    states[number] = state
        names = ["logistic regression" if recipe[end].regression else recipe[end].name for _, end in parts]
        what = "all of it" if len(parts) == len(states) else " and ".join(names)
        return replace(candidate, states=states, judged=candidate), what

    def save(self, folder: Path, candidate: Candidate) -> None:
        """Write ``model.safetensors`` and ``model.json``, and the model scored on validation rows if it differs."""
        if candidate.judged is not None:
            self.save(folder / JUDGED, candidate.judged)
        model = self.params.model.model_copy(update={"head": candidate.parts.get("head", self.params.model.head)})
        params = self.params.model_copy(update={"model": model})
        save_classifier(
            folder,
            candidate.states,
            params,
            self.preprocessing,
            self.target,
            self.sizes[candidate.position],
            bool(candidate.with_tta),
            self.index.ranges,
            candidate.calibration,
        )

    def example(self) -> pd.DataFrame:
        """One encoded image; synthetic unless real data may be stored."""
        image = example_image(self.sizes[-1])
        if self.params.tracking.keep_examples:
            image = Path(self.index.rows["path"][int(self.rows["valid"][0])].as_py()).read_bytes()
        return pd.DataFrame({"image": [image]})

    def summary(self, candidate: Candidate, metrics: Mapping[str, float]) -> str:
        """Summarise classes, source, the selected model and its headline validation metric."""
        defined = [name for name in self.target.headline if f"valid/{name}" in metrics]
        shown = ", ".join(f"{name} {metrics[f'valid/{name}']:.4f}" for name in defined)
        return f"{self._kinds} of {self.params.data.source}; {candidate.title}, validation rows: {shown}"


def _mean(one: State, other: State) -> State:
    """Average two networks' weights; counters are taken from the first."""
    return {name: (one[name] + other[name]) / 2 if one[name].is_floating_point() else one[name] for name in one}


# --- notes on the files


def notes_of(index: Index) -> list[str]:
    """Describe unusable files, grey levels, blank or multi-frame images, and groups, one line each."""
    plain = _named(index, plain_rows(index), "images are nearly one colour")
    stacked = np.flatnonzero(index.rows["frames"].to_numpy() > 1)
    several = _named(index, stacked, "files hold several images, of which only the first is used")
    lines = [_unusable(index), *_ranges(index), plain, several, *_groups(index)]
    return [line for line in lines if line]


def plain_rows(index: Index) -> np.ndarray:
    """Positions of the nearly blank images, int64."""
    return np.flatnonzero(index.rows["spread"].to_numpy() < NEARLY_ONE_COLOUR)


def _unusable(index: Index) -> str:
    reasons = index.rejected["reason"].to_pylist()
    if not reasons:
        return ""
    copies = "a copy of an image in another split"
    kinds = [copies if reason.startswith(COPY) else kind_of_reason(reason) for reason in reasons]
    return f"{len(kinds):,} of {len(index) + len(kinds):,} files cannot be used: {count_reasons(kinds)}"


def _ranges(index: Index) -> list[str]:
    count = int(index.rows["deep"].to_numpy().sum())
    return [
        f"{count:,} images have more than 8 bits a sample: {kind} values of {low:g} to {high:g} become black to white, "
        "in predictions as well (--data.pixel_range sets others)"
        for kind, (low, high) in index.ranges.items()
    ]


def _named(index: Index, rows: np.ndarray, what: str) -> str:
    # With the folder, because file names often repeat in every class.
    paths = ["/".join(Path(path).parts[-2:]) for path in index.rows["path"].take(rows).to_pylist()]
    return f"{len(paths):,} {what}: {shortened(paths, _MOST_NAMED)}" if paths else ""


def _groups(index: Index) -> list[str]:
    sides = defaultdict[str, set[str]](set)
    for group, split in zip(index.rows["group"].to_pylist(), index.rows["split"].to_pylist(), strict=True):
        if group:
            sides[group].add(split)
    across = [group for group, splits in sides.items() if len(splits) > 1]
    lines = []
    if across:
        lines.append(
            f"{len(across):,} of {len(sides):,} groups are on several sides of the source's own split, so its results "
            f"are flattered: {shortened(across, _MOST_NAMED)}"
        )
    if sides:
        seen = {split: set(index.occurrences(index.rows_of(split))) for split in ("train", "valid")}
        for split, verb in (("train", "train"), ("valid", "validate")):
            if absent := [name for name in index.classes if name not in seen[split]]:
                lines.append(f"the groups leave no image to {verb} {shortened(map(repr, absent))}")
    return lines
