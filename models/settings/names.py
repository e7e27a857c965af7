"""Valid names of MLflow experiments and registered models, checked before they reach MLflow."""

import hashlib
import posixpath
import re
from typing import Annotated

from pydantic import AfterValidator

BACKBONE = "model.backbone"
"""Tag of a run whose backbone was chosen by its data."""
LONGEST = 256
"""Most characters of a name: the width of MLflow's columns, enforced by databases other than SQLite."""
LONGEST_FOLDER = 100
"""Most bytes of a folder's name; file systems allow 255."""


def check_registry_name(name: str) -> str:
    """Check and return the name of a registered model.

    MLflow rejects a slash, a colon, and parts that a path resolves away; it creates names with a quote, a question mark
    or a control character, but cannot find them afterwards.

    Raises
    ------
    ValueError
        If it is invalid.
    """
    _check_text(name)
    if wrong := sorted(set(name) & set("/:?'")):
        raise ValueError(f"a registered model's name must not contain {' or '.join(wrong)}")
    if name.startswith("..") or posixpath.normpath(name) != name or name == ".":
        raise ValueError("a registered model's name must not be a path such as . or .. or begin with ..")
    return name


def check_experiment_name(name: str) -> str:
    """Check and return the name of an MLflow experiment.

    Raises
    ------
    ValueError
        If it is invalid.
    """
    _check_text(name)
    if {".", ".."} & set(re.split(r"[/\\]", name)):
        raise ValueError("an experiment's name must not contain . or .. as a part of a path")
    return name


RegistryName = Annotated[str, AfterValidator(check_registry_name)]
ExperimentName = Annotated[str, AfterValidator(check_experiment_name)]


def safe_name(name: str) -> str:
    """Derive a file or folder name: the name itself if it is a plain word, else its words and a hash.

    The result is a single path component, never hidden nor too long, and unique per name.
    """
    if re.fullmatch(r"\w[\w. -]*", name) and len(name.encode()) <= LONGEST_FOLDER:
        return name
    digest = hashlib.blake2b(name.encode(errors="backslashreplace"), digest_size=8).hexdigest()
    words = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:40]
    return f"{words or 'name'}-{digest}"


def _check_text(name: str) -> None:
    if not name.strip():
        raise ValueError("a name must not be empty")
    if len(name) > LONGEST:
        raise ValueError(f"a name must have at most {LONGEST} characters, not {len(name):,}")
    if any(ord(character) < 32 or ord(character) == 127 for character in name):
        raise ValueError("a name must not contain line breaks or other control characters")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ValueError("a name must be valid Unicode text") from None
