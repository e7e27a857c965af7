"""Trainings that are killed at random moments, and files in which a bit flips: how many end as if nothing had been.

``python -m benchmarks.faults --kills 200 --flips 200 --folder faults`` can be stopped and continued: every case is a
line of ``faults/cases.jsonl``, and only those that are missing are tried. A case trains a tiny network in a data folder
of its own, is killed at a random moment of the time that a whole training takes, and is resumed by the command that it
printed. In a flip, one bit of one kept file (cache, checkpoint, artifact) flips in between.

==========  ===========================================================================
right       the metrics of an uninterrupted training, to the last bit
lost        an error that says what is damaged, or a training that began again
doubled     right, but steps are logged twice
wrong       other metrics, or an end without a message
==========  ===========================================================================
"""

import argparse
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SPEC = {
    "data": {"size": 32},
    "model": {"backbone": "timm/test_resnet", "weights": "none", "head_width": 16},
    "finder": {"steps": 12},
    "optimizer": {"batch_size": 8},
    "tta": {"n_aug": 2},
    "recipe": [
        {"name": "head", "precompute": True, "find_lr": True, "cycles": 2},
        {"name": "augmented", "views": 2, "cycles": 2},
        {"name": "full", "train": "all", "lr": 0.002, "ratio": 3, "cycles": 3, "fewest_errors": None},
    ],
    "tracking": {"system_metrics": False},
    "device": "cpu",
    "precision": "fp32",
    "seed": 3,
}
OUTCOMES = ("right", "lost", "doubled", "wrong")
FLIPPED = (".arrow", ".json", ".safetensors", ".xxh3", ".feather")
"""Kept files that a training reads again; databases have a format of their own."""


def main() -> None:
    """Try the cases that are missing and print the table."""
    parser = argparse.ArgumentParser(description="Trainings that are killed, and files in which a bit flips.")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--flips", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keeps cases and reference (default: a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        print(f"{'':8} {'tried':>6} " + " ".join(f"{outcome:>8}" for outcome in OUTCOMES))
        for kind, wanted in (("kill", options.kills), ("flip", options.flips)):
            found = Counter(case["outcome"] for case in cases(folder, kind, wanted))
            print(f"{kind:8} {found.total():6} " + " ".join(f"{found[outcome]:8}" for outcome in OUTCOMES), flush=True)


def cases(folder: Path, kind: str, wanted: int) -> list[dict[str, Any]]:
    """The first `wanted` cases of a kind, those that were not tried yet among them."""
    log = folder / "cases.jsonl"
    known = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    found = [case for case in known if case["kind"] == kind][:wanted]
    for number in range(len(found), wanted):
        case = {"kind": kind, "number": number, **tried(folder, random.Random(f"{kind} {number}"), kind == "flip")}
        with log.open("a") as file:
            file.write(f"{json.dumps(case)}\n")
        found.append(case)
    return found


def tried(folder: Path, chance: random.Random, flips: bool) -> dict[str, Any]:
    """One case: what was done to a training, and how it ended."""
    expected = reference(folder)
    home = folder / "home"
    shutil.rmtree(home, ignore_errors=True)
    process = subprocess.Popen(command(folder, "train"), env=environment(home), stderr=subprocess.PIPE, text=True)
    after = chance.uniform(0.2, 1) * expected["seconds"]
    try:
        _, said = process.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        process.kill()
        _, said = process.communicate()
    done: dict[str, Any] = {"killed after": round(after, 1)}
    if flips:
        done["flipped"] = flip(home, chance)
    run_id = said.split("unfreeze resume ")[1].split()[0].strip("'\")") if "unfreeze resume " in said else None
    if process.returncode == 0 or run_id is None:  # too late, or so early that there is nothing to resume
        again = command(folder, "train")
    else:
        again = [sys.executable, "-m", "unfreeze.flows.cli", "resume", run_id, "--json"]
    ended = subprocess.run(again, env=environment(home), capture_output=True, text=True)
    return {**done, "outcome": outcome(ended, expected["metrics"], home), "said": ended.stderr.splitlines()[-1:]}


def outcome(ended: "subprocess.CompletedProcess[str]", expected: Mapping[str, float], home: Path) -> str:
    """See the module."""
    if ended.returncode:
        return "lost" if "Traceback" not in ended.stderr else "wrong"
    result = json.loads(ended.stdout.splitlines()[-1])
    if result["metrics"] != expected:
        return "wrong"
    if "begins again at its first epoch" in ended.stderr:
        return "lost"
    with sqlite3.connect(home / "mlflow.db") as store:
        query = (
            "select count(*) from metrics where run_uuid = ? and key = 'train/loss' group by step having count(*) > 1"
        )
        return "doubled" if store.execute(query, [result["run_id"]]).fetchone() else "right"


def flip(home: Path, chance: random.Random) -> str | None:
    """Flip a bit of a kept file; the file's name, None if there is none yet."""
    folders = (home / "cache", home / "mlflow-artifacts")
    files = sorted(
        path for folder in folders for path in folder.rglob("*") if path.suffix in FLIPPED and path.stat().st_size
    )
    if not files:
        return None
    path = chance.choice(files)
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)
    return str(path.relative_to(home))


def reference(folder: Path) -> dict[str, Any]:
    """Metrics of an uninterrupted training and the seconds that it took; trained once."""
    kept = folder / "reference.json"
    if not kept.exists():
        draw(folder / "images")
        spec = {**SPEC, "data": {**SPEC["data"], "source": str(folder / "images")}}  # type: ignore[dict-item]
        (folder / "spec.json").write_text(json.dumps(spec))
        began = time.monotonic()
        ended = subprocess.run(
            command(folder, "train"), env=environment(folder / "whole"), capture_output=True, text=True, check=True
        )
        metrics = json.loads(ended.stdout.splitlines()[-1])["metrics"]
        kept.write_text(json.dumps({"metrics": metrics, "seconds": time.monotonic() - began}))
    found: dict[str, Any] = json.loads(kept.read_text())
    return found


def draw(folder: Path) -> None:
    """Images of noise with stripes, across or down."""
    generator = np.random.default_rng(0)
    for label, axis in (("across", 0), ("down", 1)):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(24):
            levels = generator.integers(0, 90, (32, 32, 3), np.uint8)
            stripes = np.arange(32) % 8 < 4
            levels += (stripes[:, None, None] if axis == 0 else stripes[None, :, None]).astype(np.uint8) * 120
            Image.fromarray(levels).save(folder / label / f"{number}.png")


def command(folder: Path, verb: str) -> list[str]:
    """A training of the reference's settings."""
    return [sys.executable, "-m", "unfreeze.flows.cli", verb, "--config", str(folder / "spec.json"), "--json"]


def environment(home: Path) -> dict[str, str]:
    """Of a data folder of its own."""
    names = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "PREFECT_HOME")
    own = {name: value for name, value in os.environ.items() if name not in names}
    return {**own, "UNFREEZE_HOME": str(home), "PREFECT_HOME": str(home / "prefect")}


if __name__ == "__main__":
    main()
