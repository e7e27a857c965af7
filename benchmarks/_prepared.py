"""The photos, prepared once and trained by `run_recipe`, without servers."""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from unfreeze.models.images.data import ImageData
from unfreeze.models.recipe.modality import modality
from unfreeze.models.recipe.run import Evaluate, SelectModel, Step, Train, run_recipe
from unfreeze.models.recipe.training_data import Activations
from unfreeze.models.settings import TrainImages
from unfreeze.models.store.workspace import Build, Derived, Workspace

SHARED = Path(__file__).parents[2] / "shared"
PHOTOS = SHARED / "data" / "cats_dogs"
MOBILENET = SHARED / "weights" / "mobilenet_v2-b0353104.pth"
SEEDS = range(5)


class TimedWorkspace(Workspace):
    """A workspace that knows how long each kind of derived file took."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.seconds: dict[str, float] = {}

    def derive(self, name: str, files: Mapping[str, Derived], build: Build) -> dict[str, Path]:
        began, part = time.perf_counter(), name.split(" ", maxsplit=1)[0]
        paths = super().derive(name, files, build)
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - began
        return paths


class Prepared:
    """Index, image caches and activations of one spec in a folder."""

    def __init__(self, params: TrainImages, folder: Path) -> None:
        self.params, self.workspace = params, TimedWorkspace(folder)
        self._handle = modality("images").prepare(params, self.workspace)

    @property
    def seconds(self) -> dict[str, float]:
        """Of every part of the preparation."""
        return self.workspace.seconds

    def bind(self, **changes: object) -> ImageData:
        """The data with other settings at the top level, such as the seed."""
        return ImageData(self.params.model_copy(update=changes), self._handle)

    def precompute(self) -> list[Activations]:
        """All views that the recipe's frozen stages read, by stage."""
        data = self.bind()
        learner = data.learner()
        return [data.precompute(learner, position, self.workspace) for position in range(len(self.params.recipe))]

    def train(self, data: ImageData) -> tuple[float, float]:
        """Run the recipe; validation accuracy plain and with TTA."""
        metrics, _ = self.run(data)
        return metrics["valid/accuracy_plain"], metrics["valid/accuracy_tta"]

    def run(self, data: ImageData, after: Callable[[Step], None] = lambda _: None) -> tuple[dict[str, float], str]:
        """Run the recipe; metrics of all evaluations, and the name of the model that was kept.

        Parameters
        ----------
        data
            From `bind`.
        after
            Called with each step that is over.
        """
        metrics: dict[str, float] = {}
        for step in run_recipe(data, self.workspace):
            if isinstance(step, Train):
                for _ in step.run():
                    pass
            elif isinstance(step, SelectModel | Evaluate):
                metrics |= step.run().metrics
            else:
                step.run()
            after(step)
        return metrics, step.state.kept.name


@contextmanager
def prepared(params: TrainImages) -> Iterator[Prepared]:
    """Prepare in a folder that is removed at the end."""
    with tempfile.TemporaryDirectory() as folder:
        yield Prepared(params, Path(folder))


def median(values: list[float]) -> float:
    return float(np.median(values))
