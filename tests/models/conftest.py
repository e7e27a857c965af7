"""A tiny network with batch norm, rows for it, and tiny images, on which training takes milliseconds."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from unfreeze.models.evaluation.metrics import accuracy
from unfreeze.models.images.data import ImageData
from unfreeze.models.images.listing.sources import resolve_source
from unfreeze.models.images.pixels.cache import ImageCache, build_image_caches
from unfreeze.models.images.pixels.index import Index, build_index
from unfreeze.models.recipe.training_data import Prepared
from unfreeze.models.settings import DataSpec, ModelSpec, OptimizerSpec, Stage, TrainImages
from unfreeze.models.store.content import hash_files
from unfreeze.models.store.workspace import Workspace
from unfreeze.models.targets.losses import cross_entropy
from unfreeze.models.training.learner import Learner
from unfreeze.models.training.network import Network
from unfreeze.models.training.precision import Precision

CPU = torch.device("cpu")
FP32 = Precision("cpu", torch.float32, torch.float32)
CLASSES = 3
MakeLearner = Callable[..., Learner]


class TensorBatches:
    """Rows held in memory; with a generator some noise is drawn, as a random view would be."""

    def __init__(
        self, inputs: torch.Tensor, targets: torch.Tensor, batch_size: int = 8, precomputed: bool = False
    ) -> None:
        self.inputs, self.targets = inputs, targets
        self.batch_size, self.forward_size, self.precomputed = batch_size, batch_size, precomputed
        self.epoch = 0
        self.gathered: list[torch.Tensor] = []

    def __len__(self) -> int:
        return len(self.inputs)

    def gather(
        self, rows: torch.Tensor, generator: torch.Generator | None, share: slice = slice(None)
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.gathered.append(rows)
        rows = rows[share]
        inputs = self.inputs[rows]
        if generator is not None:
            inputs = inputs + 0.1 * torch.randn(inputs.shape, generator=generator)
        return inputs, self.targets[rows]


def pixels(count: int, seed: int = 0, batch_size: int = 8) -> TensorBatches:
    """Small images whose class shows in one channel."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(CLASSES, (count,), generator=generator)
    inputs = torch.randn(count, 3, 6, 6, generator=generator)
    inputs[torch.arange(count), targets] += 1
    return TensorBatches(inputs, targets, batch_size)


class TinyBody(nn.Module):
    """Four blocks of convolution and batch norm, then the mean over all positions."""

    def __init__(self) -> None:
        super().__init__()
        sides = zip((3, 4, 4, 6), (4, 4, 6, 6), strict=True)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(inner, outer, 3, padding=1), nn.BatchNorm2d(outer), nn.ReLU())
            for inner, outer in sides
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            inputs = block(inputs)
        return inputs.mean(dim=(2, 3))


def tiny_network(seed: int = 0) -> Network:
    torch.manual_seed(seed)
    body = TinyBody()
    blocks = [
        [f"blocks.{number}.{name}" for name, _ in block.named_parameters()] for number, block in enumerate(body.blocks)
    ]
    head = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, CLASSES))
    return Network(body, head, blocks, early_blocks=3)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Compute in one thread: for so little, threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def make_learner(one_thread: None) -> MakeLearner:
    """A function that makes a tiny learner, prepared for a stage if one is given."""

    def make(stage: Stage | None = None, lr: float = 0.01, seed: int = 0, **settings: object) -> Learner:
        spec = OptimizerSpec(batch_size=8, **settings)
        loss = cross_entropy(spec, np.arange(CLASSES), CLASSES, CPU)
        learner = Learner(tiny_network(seed), spec, loss, CPU, FP32, seed, {"accuracy": accuracy})
        if stage is not None:
            learner.prepare(stage, 0, lr)
        return learner

    return make


def states_of(learner: Learner) -> dict[str, torch.Tensor]:
    """Copies of all weights and buffers."""
    return {name: tensor.clone() for name, tensor in learner.network.state_dict().items()}


def optimizer_states(learner: Learner) -> dict[str, torch.Tensor]:
    """Copies of the optimizer's state by parameter and key."""
    names = {parameter: name for name, parameter in learner.network.named_parameters()}
    return {
        f"{names[parameter]}/{key}": value.clone()
        for parameter, state in learner.optimizer.state.items()
        for key, value in state.items()
    }


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """Bit for bit."""
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


TINY_MODEL = ModelSpec(backbone="timm/test_resnet", weights="none", head_width=16)
"""Half a million parameters, with batch norm."""
RECIPE = [
    Stage(name="head", precompute=True, lr=0.01),
    Stage(name="views", views=2, lr=0.01),
    Stage(name="fresh", lr=0.01),
    Stage(name="large", train="all", size=48, lr=0.001),
]


@pytest.fixture(scope="session")
def tiny_index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """39 images of noise, of which the classes differ in colour; 9 validate."""
    root = tmp_path_factory.mktemp("colours")
    random = np.random.default_rng(0)
    for number, label in enumerate(("blue", "green", "red")):
        (root / label).mkdir()
        for image in range(13):
            levels = random.integers(0, 160, (*random.integers(30, 60, 2), 3), np.uint8)
            levels[..., 2 - number] += 80
            Image.fromarray(levels).save(root / label / f"{image:02d}.{'png' if image % 2 else 'jpg'}")
    data = DataSpec(source=str(root), valid_fraction=0.25)
    listing = resolve_source(data, root)
    return build_index(listing, hash_files([file.path for file in listing.files], 1), data, threads=1)


@pytest.fixture(scope="session")
def tiny_caches(tiny_index: Index, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Caches of those images at 32 and 48 pixels."""
    folder = tmp_path_factory.mktemp("caches")
    paths = {size: folder / "cache" / "images" / f"{size}.arrow" for size in (32, 48)}
    build_image_caches(tiny_index, paths, "crop", "bilinear", 100, 1, Workspace(folder))
    return paths


@pytest.fixture
def tiny_cache(tiny_caches: dict[int, Path]) -> ImageCache:
    """The cache at 32 pixels."""
    return ImageCache(tiny_caches[32])


def prepared_images(index: Index, caches: dict[int, Path]) -> Prepared:
    """The handle of an index and its image caches."""
    path = next(iter(caches.values())).with_name("index.arrow")
    index.save(path)
    return Prepared(
        "images", index.digest, "", {"index": str(path), **{str(size): str(at) for size, at in caches.items()}}
    )


@pytest.fixture(scope="module")
def tiny_recipe(tiny_index: Index, tiny_caches: dict[int, Path], one_thread: None) -> ImageData:
    """Every kind of stage over those images, in full precision."""
    params = TrainImages(
        model=TINY_MODEL,
        data=DataSpec(size=32),
        recipe=RECIPE,
        optimizer=OptimizerSpec(batch_size=8),
        device="cpu",
        precision="fp32",
    )
    return ImageData(params, prepared_images(tiny_index, tiny_caches))
