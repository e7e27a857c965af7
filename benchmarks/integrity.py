"""What checksums and waiting for the disk cost: the head of the photos' recipe, from cold caches and from warm ones.

Counted are the hashes of files and checkpoints, and the waits until files are on the disk, within one process.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from benchmarks._prepared import PHOTOS, Prepared
from unfreeze.models.recipe.run import Train, run_recipe
from unfreeze.models.settings import TrainImages
from unfreeze.models.settings.overrides import build_spec
from unfreeze.models.store import sealed_files
from unfreeze.models.training import checkpoints, learner

HEAD_ONLY = Path(__file__).parents[1] / "deployments" / "configs" / "head_only.yaml"


class Clock:
    """Seconds spent in functions that are wrapped; a call within another counts once."""

    def __init__(self) -> None:
        self.seconds, self._inside = 0.0, False

    def wrap(self, module: Any, name: str) -> None:
        """Count the calls of a module's function."""
        function: Callable[..., Any] = getattr(module, name)

        def counted(*arguments: Any) -> Any:
            if self._inside:
                return function(*arguments)
            self._inside, began = True, time.perf_counter()
            try:
                return function(*arguments)
            finally:
                self._inside = False
                self.seconds += time.perf_counter() - began

        setattr(module, name, counted)


def train(params: TrainImages, home: Path) -> int:
    """Prepare and run the recipe with a checkpoint per epoch, as a flow does; the bytes of the checkpoints."""
    photos, written = Prepared(params, home), 0
    data = photos.bind()
    for step in run_recipe(data, photos.workspace):
        if isinstance(step, Train):
            for event in step.run():
                if event.kind == "epoch":
                    checkpoints.save_checkpoint(step.state.learner, home / "checkpoint")
                    written += (home / "checkpoint").stat().st_size
        else:
            step.run()
    return written


def main() -> None:
    """Measure and print the table."""
    if not PHOTOS.exists():
        sys.exit(f"{PHOTOS} is not there: nothing to measure")
    params = build_spec(TrainImages, yaml.safe_load(HEAD_ONLY.read_text()), {"data.source": str(PHOTOS)})
    clock = Clock()
    for module, name in (
        (sealed_files, "checksum"),
        (sealed_files, "flush_to_disk"),
        (checkpoints, "flush_to_disk"),
        (checkpoints, "checksum"),
        (learner, "checksum"),
    ):
        clock.wrap(module, name)
    with tempfile.TemporaryDirectory() as folder:
        for caches in ("cold caches", "warm caches"):
            sealed_files._known.clear()  # as in a process of its own
            clock.seconds, began = 0.0, time.perf_counter()
            written = train(params, Path(folder))
            whole = time.perf_counter() - began
            cached = sum(path.stat().st_size for path in (Path(folder) / "cache").rglob("*") if path.is_file())
            print(
                f"{caches:12} {whole:7.1f} s, of which {clock.seconds:6.2f} s ({clock.seconds / whole:.1%}) for the "
                f"integrity of {cached / 1e6:,.0f} MB of caches and {written / 1e6:,.0f} MB of checkpoints",
                flush=True,
            )


if __name__ == "__main__":
    main()
