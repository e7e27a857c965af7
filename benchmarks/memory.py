"""Peak memory of a training on the photos, and on four times as many.

Anonymous memory is what the process needs; pages of memory-mapped caches come on top in the resident size, and the
system takes them back when something else needs them.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks._prepared import PHOTOS

HEAD_ONLY = Path(__file__).parents[1] / "deployments" / "configs" / "head_only.yaml"


def peak_megabytes(source: Path, home: Path) -> tuple[float, float]:
    """Peak of anonymous and of resident memory of `unfreeze train`, in MB."""
    command = [sys.executable, "-m", "unfreeze.flows.cli", "train", str(source), "--config", str(HEAD_ONLY)]
    few_views = ["--recipe.1.views", "1", "--tta.n_aug", "1"]
    home.mkdir()
    environment = {**os.environ, "UNFREEZE_HOME": str(home), "PREFECT_HOME": str(home / "prefect")}
    process = subprocess.Popen([*command, *few_views], env=environment, stderr=subprocess.DEVNULL)
    anonymous = resident = 0
    while process.poll() is None:
        try:
            memory = psutil.Process(process.pid).memory_info()
        except psutil.NoSuchProcess:
            break
        anonymous, resident = max(anonymous, memory.rss - memory.shared), max(resident, memory.rss)
        time.sleep(0.2)
    if process.wait() != 0:
        sys.exit(f"the training on {source} failed")
    return anonymous / 1e6, resident / 1e6


def main() -> None:
    """Measure both and print the ratio."""
    if not PHOTOS.exists():
        sys.exit(f"{PHOTOS} is not there: nothing to measure")
    with tempfile.TemporaryDirectory() as folder:
        four = Path(folder) / "four"
        for label in ("cat", "dog"):
            (four / label).mkdir(parents=True)
            for copy in range(4):
                for photo in (PHOTOS / label).iterdir():
                    shutil.copy(photo, four / label / f"{copy}-{photo.name}")
                    # Bytes after a JPEG's end are ignored, but make each copy an image of its own.
                    with (four / label / f"{copy}-{photo.name}").open("ab") as file:
                        file.write(bytes([copy]))
        once = peak_megabytes(PHOTOS, Path(folder) / "home-1")
        print(f"1,100 photos: {once[0]:6.0f} MB anonymous, {once[1]:6.0f} MB resident with mapped caches", flush=True)
        fourfold = peak_megabytes(four, Path(folder) / "home-4")
        print(f"4,400 photos: {fourfold[0]:6.0f} MB anonymous, {fourfold[1]:6.0f} MB resident with mapped caches")
        print(f"ratio:        {fourfold[0] / once[0]:6.2f}              {fourfold[1] / once[1]:6.2f}")


if __name__ == "__main__":
    main()
