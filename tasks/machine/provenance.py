"""Provenance of a run: commit, uncommitted changes, installed packages, hardware."""

import hashlib
import os
import platform
import subprocess
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
    commit, diff = _code()
    installed = sorted({f"{each.name}=={each.version}" for each in distributions() if each.name}, key=str.lower)
    packages = "".join(f"{line}\n" for line in installed)
    facts = {"unfreeze": version("unfreeze"), "commit": commit}
    if commit:
        changed = sum(line.startswith("diff --git") for line in diff.splitlines())
        facts["uncommitted changes"] = f"{changed} files, digest {_digest(diff)}" if diff else "none"
    facts |= {"packages": f"{len(installed)}, digest {_digest(packages)}", **_hardware()}
    return Provenance({name: fact for name, fact in facts.items() if fact}, commit, diff[:LONGEST_DIFF], packages)


def _hardware() -> dict[str, str]:
    memory = psutil.virtual_memory().total / 2**30
    facts = {
        "Python": platform.python_version(),
        "PyTorch": str(torch.__version__),
        "system": platform.platform(terse=True),
        "processor": f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB of memory",
    }
    if torch.cuda.is_available():
        facts["GPU"] = ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
    return facts


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, "") or platform.processor() or platform.machine()


def _code() -> tuple[str, str]:
    """Commit and diff of the repository that tracks this package; empty if none does."""
    # Resolved, because a clone's package folder holds links to the repository's folders.
    folder = Path(unfreeze.models.__file__).resolve().parent
    if not _git(folder, "ls-files", "--error-unmatch", "__init__.py"):
        return "", ""  # installed inside another project's repository
    return _git(folder, "rev-parse", "HEAD").strip(), _git(folder, "diff", "--no-ext-diff", "HEAD")


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace") if done.returncode == 0 else ""


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=6).hexdigest()
