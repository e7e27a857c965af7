"""Disks of a few megabytes, in memory: what happens when one is full can be seen on them in seconds."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Disk:
    """A file system in memory at a folder; a `small_disk` makes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def resize(self, kilobytes: int) -> None:
        """Make it larger or smaller; what is on it stays."""
        _run("mount", "-o", f"remount,size={kilobytes}k", str(self.folder))

    def lock(self, read_only: bool = True) -> None:
        """Refuse all writing, or take it again."""
        _run("mount", "-o", f"remount,{'ro' if read_only else 'rw'}", str(self.folder))

    @property
    def used(self) -> int:
        """Kilobytes that are taken."""
        return shutil.disk_usage(self.folder).used // 1024


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Disk]:
    """A disk of that size at an empty folder; it is gone after the block, with all that is on it."""
    folder.mkdir(parents=True, exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder))
    try:
        yield Disk(folder)
    finally:
        _run("umount", "--lazy", str(folder))  # a process that is just ending may still hold a file


def why_no_disks() -> str | None:
    """Why this user cannot make disks; None if it can."""
    if os.geteuid() != 0:
        return "only root can mount a file system"
    with tempfile.TemporaryDirectory() as folder:
        try:
            with small_disk(Path(folder) / "disk", 64):
                return None
        except (OSError, subprocess.CalledProcessError) as error:
            return f"no file system can be mounted here: {getattr(error, 'stderr', error)}"


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
