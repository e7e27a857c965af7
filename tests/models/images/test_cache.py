from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image

from unfreeze.models.errors import UserError
from unfreeze.models.images import cache as cache_module, row_file
from unfreeze.models.images.cache import ImageCache, build_image_caches, usable_size
from unfreeze.models.images.decode import make_square, read_image
from unfreeze.models.images.index import Index, build_index, hash_files
from unfreeze.models.images.sources import resolve_source
from unfreeze.models.specs import DataSpec

CATS_DOGS = Path(__file__).resolve().parents[4] / "shared" / "data" / "cats_dogs"


def index_of(root: Path) -> Index:
    data = DataSpec(source=str(root))
    listing = resolve_source(data, root)
    return build_index(listing, hash_files([file.path for file in listing.files], 2), data, threads=2)


def written(root: Path, counts: dict[str, int], sides: tuple[int, int] = (20, 90)) -> Index:
    random = np.random.default_rng(0)
    for label, count in counts.items():
        (root / label).mkdir(parents=True)
        for number in range(count):
            shape = (*random.integers(*sides, 2), 3)
            Image.fromarray(random.integers(0, 256, shape, np.uint8)).save(root / label / f"{number:03d}.jpg")
    return index_of(root)


def direct(index: Index, rows: list[int], size: int, fit: str = "crop") -> np.ndarray:
    paths = [Path(index.rows["path"][row].as_py()) for row in rows]
    return np.stack([make_square(read_image(path, 100, at_least=size), size, fit, "bicubic") for path in paths])


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Index:
    """More than two record batches of small images."""
    return written(tmp_path_factory.mktemp("images"), {"cat": 150, "dog": 121})


@pytest.fixture(scope="module")
def cache(images, tmp_path_factory) -> ImageCache:
    path = tmp_path_factory.mktemp("cache") / "24.arrow"
    build_image_caches(images, {24: path}, "crop", "bicubic", 100, threads=2)
    return ImageCache(path)


@pytest.mark.parametrize("fit", ["crop", "squish", "pad"])
def test_gathered_rows_equal_direct_decoding(images, tmp_path, fit):
    build_image_caches(images, {32: tmp_path / "32"}, fit, "bicubic", 100, threads=2)
    cache = ImageCache(tmp_path / "32")
    rows = [270, 0, 127, 128, 256, 5, 5]
    assert (cache.size, cache.fit, len(cache)) == (32, fit, len(images))
    np.testing.assert_array_equal(cache.gather(np.array(rows)).permute(0, 2, 3, 1), direct(images, rows, 32, fit))


def test_a_gathered_batch_is_uint8_in_channels_last_memory(cache):
    batch = cache.gather(torch.tensor([3, 1, 2]))
    assert (batch.shape, batch.dtype) == ((3, 3, 24, 24), torch.uint8)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    batch += 1  # a copy: the file on disk must not be reachable for writing


@settings(max_examples=30)
@given(rows=st.lists(st.integers(0, 270), max_size=40))
def test_any_order_of_rows_can_be_gathered(cache, rows):
    every = cache.gather(np.arange(len(cache)))
    assert torch.equal(cache.gather(np.array(rows, dtype=np.int64)), every[rows])


@pytest.mark.parametrize("row", [-1, 271])
def test_a_row_outside_the_cache_is_refused(cache, row):
    with pytest.raises(IndexError):
        cache.gather(np.array([0, row]))


def test_several_sizes_at_once_equal_single_builds(tmp_path):
    index = written(tmp_path / "large", {"cat": 3, "dog": 3}, sides=(1100, 1400))
    together = {size: tmp_path / f"together{size}" for size in (48, 160, 600)}
    build_image_caches(index, together, "crop", "bicubic", 100, threads=2)
    for size, path in together.items():
        build_image_caches(index, {size: tmp_path / f"alone{size}"}, "crop", "bicubic", 100, threads=1)
        assert path.read_bytes() == (tmp_path / f"alone{size}").read_bytes()


def test_large_rows_come_in_smaller_batches(images, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(row_file, "_MOST_BYTES", 10 * 24 * 24 * 3)
    build_image_caches(images, {24: tmp_path / "24"}, "crop", "bicubic", 100, threads=2)
    rows = np.array([0, 9, 10, 127, 128, 269, 270])
    small_batches = ImageCache(tmp_path / "24").gather(rows)
    monkeypatch.undo()
    assert torch.equal(small_batches, cache.gather(rows))


def test_each_image_is_decoded_once_for_several_sizes(images, tmp_path, monkeypatch):
    decoded = []

    def counting(path: Path, *arguments: float) -> Image.Image:
        decoded.append(path)
        return read_image(path, *arguments)

    monkeypatch.setattr(cache_module, "read_image", counting)
    progress = []
    targets = {16: tmp_path / "a", 32: tmp_path / "b"}
    build_image_caches(
        images, targets, "crop", "bilinear", 100, 2, progress=lambda done, total: progress.append((done, total))
    )
    assert len(decoded) == len(set(decoded)) == len(images)
    assert progress == [(number, len(images)) for number in range(1, len(images) + 1)]


def test_an_image_that_changed_since_the_index_is_refused(tmp_path):
    index = written(tmp_path / "images", {"cat": 3, "dog": 3})
    Image.new("RGB", (30, 30)).save(index.rows["path"][1].as_py())
    with pytest.raises(UserError, match=r"001\.jpg: the image changed"):
        build_image_caches(index, {16: tmp_path / "16"}, "crop", "bilinear", 100, threads=2)


def test_an_incomplete_cache_is_refused(cache, images, tmp_path):
    build_image_caches(images, {16: tmp_path / "16"}, "crop", "bilinear", 100, threads=2)
    content = (tmp_path / "16").read_bytes()
    (tmp_path / "16").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="not a complete cache file"):
        ImageCache(tmp_path / "16")


def test_a_cache_of_another_version_is_refused(images, tmp_path, monkeypatch):
    build_image_caches(images, {16: tmp_path / "16"}, "crop", "bilinear", 100, threads=2)
    monkeypatch.setattr(cache_module, "CACHE_VERSION", 99)
    with pytest.raises(UserError, match="cache version"):
        ImageCache(tmp_path / "16")


@pytest.mark.parametrize(
    ("side", "native", "expected"), [(8, 224, 64), (4, 224, 32), (300, 224, 224), (11, 224, 96), (28, 300, 224)]
)
def test_the_usable_size_is_at_most_eight_times_the_images(tmp_path, side, native, expected):
    random = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for number in range(2):
            levels = random.integers(0, 256, (side, side * 2), np.uint8)
            Image.fromarray(levels).save(tmp_path / label / f"{number}.png")
    assert usable_size(index_of(tmp_path), native) == expected


@pytest.mark.skipif(not CATS_DOGS.is_dir(), reason="the cat and dog photos are not at ../shared/data/cats_dogs")
def test_the_cat_and_dog_photos_are_cached_in_order(tmp_path):
    index = index_of(CATS_DOGS)
    build_image_caches(index, {64: tmp_path / "64"}, "crop", "bicubic", 100, threads=2)
    cache = ImageCache(tmp_path / "64")
    rows = [0, 549, 550, 1099]
    np.testing.assert_array_equal(cache.gather(np.array(rows)).permute(0, 2, 3, 1), direct(index, rows, 64))
