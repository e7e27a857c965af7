"""The content-addressed cache: whatever can be derived again is kept under a key of what it was derived from."""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from unfreeze.tasks.machine.environment import home


def key_of(*parts: Any) -> str:
    """A key of JSON-able parts: contents' hashes, parameters and version constants; never a path or a date."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def cache_path(kind: str, key: str, suffix: str = ".arrow") -> Path:
    """Where the derived file of `kind` with `key` is, or will be."""
    return home() / "cache" / kind / f"{key}{suffix}"


def build(paths: Sequence[Path], builder: Callable[[list[Path]], None]) -> list[Path]:
    """Make sure that derived files exist, and build those that do not.

    Parameters
    ----------
    paths
        From `cache_path`.
    builder
        Called with temporary names for the missing ones, in the order of ``missing(paths)``, and writes them. Each is
        then renamed into place, so that a half-written file never has a cache's name.

    Returns
    -------
    list of Path
        `paths`. Processes that want the same file wait for one of them to build it.
    """
    locks = [FileLock(f"{path}.lock") for path in sorted(paths)]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        for lock in locks:  # sorted, so that two builders never wait for each other
            lock.acquire()
        wanted = missing(paths)
        temporary = [path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial") for path in wanted]
        try:
            if wanted:
                builder(temporary)
            for source, path in zip(temporary, wanted, strict=True):
                os.replace(source, path)
        finally:
            for source in temporary:
                if source.is_dir():
                    shutil.rmtree(source)
                source.unlink(missing_ok=True)
    finally:
        for lock in locks:
            lock.release()
    return list(paths)


def missing(paths: Sequence[Path]) -> list[Path]:
    """Those of `paths` that are not there yet."""
    return [path for path in paths if not path.exists()]
