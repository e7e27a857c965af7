"""Provenance of a run: commit, uncommitted changes, installed packages, hardware."""

import hashlib
import os
import platform
import re
import subprocess
from contextlib import suppress
from importlib.metadata import distributions, version
from pathlib import Path
from typing import NamedTuple

import psutil
import torch

import unfreeze.models

LONGEST_DIFF = 1_000_000
"""Maximum characters of uncommitted changes; more are generated files rather than a patch."""
SECONDS = 30
"""Timeout of git in seconds: a repository on a slow disk must not delay a training."""


class Provenance(NamedTuple):
    """Code, packages and machine of a run.

    Attributes
    ----------
    facts
        Readable values by name: ``commit``, ``uncommitted changes``, ``packages``, ``Python``, ``processor``, ...
    commit
        Of the code; empty outside a repository, as in an installed package.
    diff
        Its uncommitted changes to tracked files, as a patch.
    packages
        ``NAME==VERSION`` of all installed packages, one per line.
    """

    facts: dict[str, str]
    commit: str
    diff: str
    packages: str


def provenance() -> Provenance:
    """Inspect code and machine; unknown facts are left out."""
    # Resolved, because a clone's package folder holds links to the repository's folders.
    folder = Path(unfreeze.models.__file__).resolve().parent
    # Untracked if installed inside another project's repository.
    is_tracked = bool(_git(folder, "ls-files", "--error-unmatch", "__init__.py"))
    commit = _git(folder, "rev-parse", "HEAD").strip() if is_tracked else ""
    diff = _git(folder, "diff", "--no-ext-diff", "HEAD") if is_tracked else ""
    changed = (
        f"{sum(line.startswith('diff --git') for line in diff.splitlines())} files, digest {_digest(diff)}"
        if diff
        else "none"
    )
    installed = sorted({f"{each.name}=={each.version}" for each in distributions() if each.name}, key=str.lower)
    packages = "".join(f"{line}\n" for line in installed)
    memory = psutil.virtual_memory().total / 2**30
    facts = {
        "unfreeze": version("unfreeze"),
        "commit": commit,
        "uncommitted changes": commit and (f"{changed} files, digest {_digest(diff)}" if diff else "none"),
        "packages": f"{len(installed)}, digest {_digest(packages)}",
        "Python": platform.python_version(),
        "PyTorch": str(torch.__version__),
        "system": platform.platform(terse=True),
        "processor": f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB of memory",
        "GPU": ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())),
    }
    return Provenance({name: fact for name, fact in facts.items() if fact}, commit, diff[:LONGEST_DIFF], packages)


def _processor() -> str:
    with suppress(OSError):
        if found := re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text()):
            return found[1].strip()
    return platform.processor() or platform.machine()


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace") if done.returncode == 0 else ""


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=6).hexdigest()
