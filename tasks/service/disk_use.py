"""Disk use of the data folder by kind, and the files that can be removed without loss."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from unfreeze.models.store.cache_limit import Cached, cached_files, is_in_use, remove, remove_tree, unfinished_files
from unfreeze.tasks.machine.environment import home


@dataclass(frozen=True)
class Share:
    """One kind of files: count, bytes, the reason why they are there or may go, and bytes and files that may go."""

    kind: str
    files: int
    size: int
    note: str
    freeable: int = 0
    cached: list[Cached] = field(default_factory=list)
    unfinished: list[Path] = field(default_factory=list)

    def free(self) -> None:
        """Remove the files that may go."""
        for each in self.cached:
            remove(home() / "cache", each.path)
        for path in self.unfinished:
            remove_tree(path)


def disk_use() -> list[Share]:
    """All kinds of files, those with freeable bytes first."""
    folder = home()
    if not folder.exists():
        return []
    checkpoints, size = _files((folder / "mlflow-artifacts").glob("*/*/artifacts/checkpoints"))
    shares = [
        *_caches(folder / "cache"),
        Share("checkpoints", checkpoints, size, "to resume a run, or to register a sweep's best trial"),
    ]
    for name, kind, note in (
        ("mlflow-artifacts", "models and other artifacts", "removed in MLflow, then `mlflow gc`"),
        ("runs", "runs under way or stopped", "to resume them, and what MLflow does not have yet"),
        ("datasets", "downloaded data sets, copies of sources at URLs", "what a training reads"),
        ("predictions", "predictions written to URLs", "to continue them, and to know them again"),
        ("prefect", "Prefect's database", "the history of flow runs"),
        ("logs", "logs", "of the service"),
    ):
        files, whole = _files([folder / name])
        shares.append(Share(kind, files, max(0, whole - size) if name == "mlflow-artifacts" else whole, note))
    return sorted((share for share in shares if share.size), key=lambda share: (-share.freeable, -share.size))


def _caches(cache: Path) -> Iterator[Share]:
    kinds = dict[str, list[Cached]]()
    for each in cached_files(cache):
        kinds.setdefault(each.path.relative_to(cache).parts[0], []).append(each)
    for kind, files in kinds.items():
        free = [each for each in files if not is_in_use(cache, each.path)]
        size, freeable = (sum(each.size for each in some) for some in (files, free))
        note = "made again when it is needed" if free else "in use by a running process"
        yield Share(f"cache: {kind}", len(files), size, note, freeable, free)
    paths = unfinished_files(cache)
    size = _files(paths)[1]
    yield Share("unfinished files", len(paths), size, "left by processes that were killed", size, unfinished=paths)


def _files(paths: Iterable[Path]) -> tuple[int, int]:
    """Number of files in folders (1 for a file), and their bytes."""
    found = [each for path in paths for each in ([path] if path.is_file() else path.rglob("*")) if each.is_file()]
    return len(found), sum(each.stat().st_size for each in found)
