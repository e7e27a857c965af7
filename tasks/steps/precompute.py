"""Activations of the frozen body, once for each view of each image."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from unfreeze.models.images.activations import ACTIVATIONS_VERSION
from unfreeze.models.images.backbones import Body
from unfreeze.models.images.recipe import ImageRecipe, View, wanted_activations
from unfreeze.models.images.weights import digest
from unfreeze.models.specs import TrainImages
from unfreeze.tasks.machine.cache import build, cache_path, key_of, missing
from unfreeze.tasks.prefect_run.progress import progress
from unfreeze.tasks.steps.derived import derived_task
from unfreeze.tasks.steps.stage import bind, checkpoint_of, learner_at, named_after_stage


def activation_files(
    recipe: ImageRecipe, body_digest: str, caches: Mapping[str, str], position: int
) -> dict[View, Path]:
    """Where each view that stage `position` wants is kept.

    The key holds the body's weights and buffers by content, the images, the rows, the preprocessing, the number
    format, and for augmented views the augmentation: not the seed, so that runs with other seeds share them.
    """
    params = recipe.params
    images = Path(caches[str(recipe.sizes[position])]).stem
    preprocessing = [recipe.preprocessing.mean, recipe.preprocessing.std]
    numbers = [recipe.device.type, str(recipe.precision.inference)]
    fixed = [body_digest, params.model.backbone, images, preprocessing, numbers, ACTIVATIONS_VERSION]
    files = {}
    for split, view in wanted_activations(params.recipe[position], params.tta.n_aug):
        augmentation = [view, params.augment.model_dump()] if view else [0]
        rows = recipe.rows[split].tolist()
        files[split, view] = cache_path("activations", key_of(fixed, rows, augmentation))
    return files


def fill_activations(
    recipe: ImageRecipe, body: Body, caches: Mapping[str, str], position: int
) -> tuple[dict[View, Path], int]:
    """Write the views that stage `position` wants and that are missing; returns all, and how many were missing."""
    files = activation_files(recipe, digest(body), caches, position)
    views = {path: view for view, path in files.items()}
    built = 0

    def build_missing(temporary: list[Path]) -> None:
        nonlocal built
        built = len(temporary)
        wanted = [views[path] for path in missing(list(views))]
        total = sum(len(recipe.rows[split]) for split, _ in wanted)
        done = 0
        with progress("Precomputing activations") as advance:
            for view, path in zip(wanted, temporary, strict=True):
                before = done

                def report(rows: int, _: int, before: int = before) -> None:
                    advance(before + rows, total)

                recipe.precompute(body, position, view, path, report)
                done += len(recipe.rows[view[0]])

    if missing(list(views)):
        build(list(views), build_missing)
    return files, built


def _targets(params: TrainImages, index_path: str, caches: dict[str, str], run_id: str, position: int) -> list[Path]:
    recipe = bind(params, index_path, caches)
    body = learner_at(recipe, position, 1.0, checkpoint_of(run_id)).network.body
    return list(activation_files(recipe, digest(body), caches, position).values())


@derived_task(_targets, name="precompute", run_name=named_after_stage("precompute activations for"))
def precompute_activations(
    params: TrainImages, index_path: str, caches: dict[str, str], run_id: str, position: int
) -> dict[str, str]:
    """Write the views that stage `position` wants and that are missing; returns ``split/view`` -> path."""
    recipe = bind(params, index_path, caches)
    body = learner_at(recipe, position, 1.0, checkpoint_of(run_id)).network.body
    files, _ = fill_activations(recipe, cast(Body, body), caches, position)
    return {f"{split}/{view}": str(path) for (split, view), path in files.items()}


def as_views(files: Mapping[str, str]) -> dict[View, Path]:
    """The result of `precompute_activations` by split and number."""
    named = {tuple(name.split("/")): Path(path) for name, path in files.items()}
    return {(split, int(view)): path for (split, view), path in named.items()}
