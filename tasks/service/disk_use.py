"""Disk use of the data folder by kind, and the files that can be removed without loss."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from unfreeze.models.store.cache_limit import Cached, cached_files, is_in_use, remove, remove_tree, unfinished_files
from unfreeze.tasks.machine.environment import home


@dataclass(frozen=True)
class Share:
    """One kind of files: count, bytes, bytes that can be freed, the reason, and the function that frees them."""

    kind: str
    files: int
    size: int
    freeable: int
    note: str
    free: Callable[[], None] | None = None


def disk_use() -> list[Share]:
    """All kinds of files, those with freeable bytes first."""
    folder = home()
    if not folder.exists():
        return []
    sizes = [_files(path) for path in (folder / "mlflow-artifacts").glob("*/*/artifacts/checkpoints")]
    files, counted = (sum(each[number] for each in sizes) for number in (0, 1))
    note = "to resume a run, or to register a sweep's best trial"
    shares = [*_caches(folder / "cache"), Share("checkpoints", files, counted, 0, note)]
    for name, kind, note in (
        ("mlflow-artifacts", "models and other artifacts", "removed in MLflow, then `mlflow gc`"),
        ("runs", "runs under way or stopped", "to resume them, and what MLflow does not have yet"),
        ("datasets", "downloaded data sets", "what a training reads"),
        ("prefect", "Prefect's database", "the history of flow runs"),
        ("logs", "logs", "of the service"),
    ):
        files, size = _files(folder / name)
        shares.append(Share(kind, files, max(0, size - (counted if name == "mlflow-artifacts" else 0)), 0, note))
    return sorted((share for share in shares if share.size), key=lambda share: (-share.freeable, -share.size))


def _caches(cache: Path) -> Iterator[Share]:
    kinds = dict[str, list[Cached]]()
    for each in cached_files(cache):
        kinds.setdefault(each.path.relative_to(cache).parts[0], []).append(each)
    for kind, files in kinds.items():
        free = [each for each in files if not is_in_use(cache, each.path)]
        size, freeable = (sum(each.size for each in some) for some in (files, free))
        note = "made again when it is needed" if free else "in use by a running process"

        def free_cache(free: list[Cached] = free) -> None:
            for each in free:
                remove(cache, each.path)

        yield Share(f"cache: {kind}", len(files), size, freeable, note, free_cache)
    paths = unfinished_files(cache)
    size = sum(_files(path)[1] for path in paths)

    def free_unfinished() -> None:
        for path in paths:
            remove_tree(path)

    yield Share("unfinished files", len(paths), size, size, "left by processes that were killed", free_unfinished)


def _files(path: Path) -> tuple[int, int]:
    """Number of files in a folder (1 for a file), and their bytes."""
    sizes = [each.stat().st_size for each in ([path] if path.is_file() else path.rglob("*")) if each.is_file()]
    return len(sizes), sum(sizes)
