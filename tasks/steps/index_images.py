"""Which images there are: list and hash them, verify each, split them."""

import json
import os
from pathlib import Path

from prefect import task

from unfreeze.models.errors import UserError
from unfreeze.models.images.index import Index, build_index, hash_files
from unfreeze.models.images.sources import ListedFile, Listing, resolve_source
from unfreeze.models.specs import DataSpec
from unfreeze.tasks import tracking
from unfreeze.tasks.machine.cache import build, cache_path, key_of
from unfreeze.tasks.machine.environment import home
from unfreeze.tasks.prefect_run.progress import log_info, log_notice, progress
from unfreeze.tasks.steps.derived import derived_task

THREADS = max(2, os.cpu_count() or 2)
"""Threads that read and decode; PIL leaves the interpreter free meanwhile."""
INDEX_VERSION = 2
"""Raise it when the same files would give another index; it is part of the key."""


@task(name="list-images", task_run_name="list images of {data.source}")
def list_images(data: DataSpec) -> str:
    """List and hash the source's files; returns the path of the listing.

    It runs in every flow, because only reading the files can tell whether they changed.
    """
    listing = resolve_source(data, home() / "datasets")
    hashes = hash_files([file.path for file in listing.files], THREADS)
    files = [
        [str(file.path), file.label, file.split, content] for file, content in zip(listing.files, hashes, strict=True)
    ]
    path = cache_path("listings", key_of(listing.name, files), ".json")
    build([path], lambda temporary: _write(temporary[0], {"name": listing.name, "files": files}))
    log_info(f"{listing.name}: {len(files):,} files")
    if listing.note is not None:
        log_notice(f"{listing.name}: {listing.note}")
    return str(path)


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))


def index_targets(listing: str, data: DataSpec) -> list[Path]:
    """Where the index of a listing is kept; only what changes the index is in its key."""
    settings = data.model_dump(include={"valid_fraction", "split_seed", "split_like", "max_megapixels"})
    return [cache_path("indexes", key_of(Path(listing).stem, settings, INDEX_VERSION))]


@derived_task(index_targets, name="index-images", run_name="index images")
def index_images(listing: str, data: DataSpec) -> str:
    """Decode every image once to verify it, exclude what cannot be used, split; returns the index's path."""
    paths = index_targets(listing, data)

    def build_one(temporary: list[Path]) -> None:
        listed = json.loads(Path(listing).read_text())
        files = tuple(ListedFile(Path(path), label, split) for path, label, split, _ in listed["files"])
        hashes = [content for *_, content in listed["files"]]
        earlier = index_of(data.split_like).sides() if data.split_like is not None else {}
        with progress("Verifying images") as advance:
            build_index(Listing(listed["name"], files), hashes, data, advance, earlier=earlier).save(temporary[0])

    build(paths, build_one)
    return str(paths[0])


def index_of(run_id: str) -> Index:
    """The index that an earlier run was trained with.

    Raises
    ------
    UserError
        If the run is unknown or has none.
    """
    tracking.get_run(run_id)
    names = tracking.artifacts(run_id, "data")
    path = next((tracking.fetch(run_id, name) for name in names if name.endswith(".arrow")), None)
    if path is None:
        raise UserError(f"run {run_id} has no index of images: it did not get as far, or it is not of images")
    return Index.load(path)
