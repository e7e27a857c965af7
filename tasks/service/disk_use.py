"""What the data folder takes, by kind, and what of it can be removed without losing anything."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from unfreeze.models.store.cache_limit import Cached, cached_files, in_use, remove, remove_tree, unfinished_files
from unfreeze.tasks.machine.environment import home
from unfreeze.tasks.tracking.stored_checkpoints import StoredCheckpoints, drop_checkpoints, stored_checkpoints


@dataclass(frozen=True)
class Share:
    """One kind of files: how many, their bytes, how many bytes can be freed, why, and what frees them."""

    kind: str
    files: int
    size: int
    freeable: int
    note: str
    free: Callable[[], None] | None = None


def disk_use() -> list[Share]:
    """Every kind of files, those first of which something can be freed."""
    folder = home()
    if not folder.exists():
        return []
    cache = folder / "cache"
    shares = [*_caches(cache), *_unfinished(cache)]
    stored = stored_checkpoints() if (folder / "mlflow.db").exists() else []
    shares += _checkpoints(stored)
    counted = sum(share.size for share in shares if share.kind.startswith("checkpoints"))
    shares += [
        _kept(
            folder / "mlflow-artifacts", "models and other artifacts", "removed in MLflow, then `mlflow gc`", counted
        ),
        _kept(folder / "datasets", "downloaded data sets", "what a training reads"),
        _kept(folder / "prefect", "Prefect's database", "the history of flow runs"),
        _kept(folder / "logs", "logs", "of the service"),
    ]
    return sorted((share for share in shares if share.size), key=lambda share: (-share.freeable, -share.size))


def _caches(cache: Path) -> Iterable[Share]:
    used, kinds = in_use(cache), dict[str, list[Cached]]()
    for each in cached_files(cache):
        kinds.setdefault(each.path.relative_to(cache).parts[0], []).append(each)
    for kind, files in kinds.items():
        free = [each for each in files if each.path.relative_to(cache).as_posix() not in used]
        note = "made again when it is needed" if free else "in use by a running process"
        yield Share(f"cache: {kind}", len(files), _bytes(files), _bytes(free), note, _remover(cache, free))


def _unfinished(cache: Path) -> Iterable[Share]:
    paths = unfinished_files(cache)
    size = sum(_size(path) for path in paths)

    def free() -> None:
        for path in paths:
            remove_tree(path)

    yield Share("unfinished files", len(paths), size, size, "left by processes that were killed", free)


def _checkpoints(stored: list[StoredCheckpoints]) -> Iterable[Share]:
    ended = [each for each in stored if each.is_over]
    waiting = [each for each in stored if not each.is_over]

    def free() -> None:
        for each in ended:
            drop_checkpoints(each.run_id, each.names)

    size = sum(each.size for each in ended)
    files = sum(len(each.names) for each in ended)
    yield Share("checkpoints of finished runs", files, size, size, "nothing continues from them", free)
    size, files = sum(each.size for each in waiting), sum(len(each.names) for each in waiting)
    yield Share("checkpoints", files, size, 0, "to resume a run, or to register a sweep's best trial")


def _kept(folder: Path, kind: str, note: str, counted: int = 0) -> Share:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return Share(kind, len(files), max(0, sum(path.stat().st_size for path in files) - counted), 0, note)


def _remover(cache: Path, files: list[Cached]) -> Callable[[], None]:
    def free() -> None:
        for each in files:
            remove(cache, each.path)

    return free


def _bytes(files: Iterable[Cached]) -> int:
    return sum(each.size for each in files)


def _size(path: Path) -> int:
    parts = path.rglob("*") if path.is_dir() else [path]
    return sum(each.stat().st_size for each in parts if each.is_file())
