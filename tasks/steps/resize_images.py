"""Every image at every size of the recipe, decoded once."""

from pathlib import Path

from unfreeze.models.images.backbones import preprocessing_of
from unfreeze.models.images.cache import CACHE_VERSION, build_image_caches
from unfreeze.models.images.index import Index
from unfreeze.models.images.recipe import image_sizes
from unfreeze.models.specs import TrainImages
from unfreeze.tasks.machine.cache import build, cache_path, key_of, missing
from unfreeze.tasks.prefect_run.progress import progress
from unfreeze.tasks.steps.derived import derived_task
from unfreeze.tasks.steps.index_images import THREADS


def image_caches(index_path: str, params: TrainImages) -> dict[int, Path]:
    """Side in pixels -> where the images of that size are kept."""
    index = Index.load(Path(index_path))
    preprocessing = preprocessing_of(params.model)
    content = index.rows["content"].to_pylist()
    settings = (params.data.fit, preprocessing.interpolation, CACHE_VERSION)
    sizes = sorted(set(image_sizes(params, index, preprocessing)))
    return {size: cache_path("images", key_of(content, size, settings)) for size in sizes}


def _targets(index_path: str, params: TrainImages) -> list[Path]:
    return list(image_caches(index_path, params).values())


@derived_task(_targets, name="resize-images", run_name="resize images")
def resize_images(index_path: str, params: TrainImages) -> dict[str, str]:
    """Write the image caches that are missing; returns side in pixels -> path."""
    caches = image_caches(index_path, params)
    sizes = {path: size for size, path in caches.items()}

    def build_missing(temporary: list[Path]) -> None:
        targets = {sizes[path]: partial for path, partial in zip(missing(list(sizes)), temporary, strict=True)}
        with progress("Resizing images") as advance:
            build_image_caches(
                Index.load(Path(index_path)),
                targets,
                params.data.fit,
                preprocessing_of(params.model).interpolation,
                params.data.max_megapixels,
                THREADS,
                advance,
            )

    build(list(sizes), build_missing)
    return {str(size): str(path) for size, path in caches.items()}
