import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image

from unfreeze.models.errors import UserError
from unfreeze.models.images.listing.sources import resolve_source
from unfreeze.models.images.pixels import cache as cache_module
from unfreeze.models.images.pixels.cache import ImageCache, build_image_caches, image_store, usable_size
from unfreeze.models.images.pixels.decode import Fit, make_square, read_image
from unfreeze.models.images.pixels.index import Index, build_index
from unfreeze.models.settings import DataSpec
from unfreeze.models.store import row_store
from unfreeze.models.store.content import hash_files
from unfreeze.models.store.progress import Advance
from unfreeze.models.store.workspace import Workspace

CATS_DOGS = Path(__file__).resolve().parents[5] / "shared" / "data" / "cats_dogs"


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


def disk_use(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / "cache").rglob("*") if path.is_file())


def build(
    folder: Path, index: Index, sizes: Sequence[int] = (24,), fit: Fit = "crop", progress: Advance | None = None
) -> dict[int, Path]:
    """Caches of an index in a workspace, by size."""
    folder.mkdir(exist_ok=True)
    workspace = Workspace(folder)
    lists = {size: image_store(workspace, size, fit, "bicubic") for size in sizes}
    contents = index.rows["content"].to_pylist()
    paths = {size: workspace.path(store.list_of(contents)) for size, store in lists.items()}
    build_image_caches(index, paths, fit, "bicubic", 100, 2, workspace, progress)
    return paths


def rows_of(path: Path) -> list[Path]:
    """The file of the rows of the only list in a folder, and that of their checksums."""
    return [path, *path.parent.glob("*.rows"), *path.parent.glob("*.rows.xxh3")]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files that are decoded from now on."""
    read: list[Path] = []

    def counting(path: Path, *arguments: float) -> Image.Image:
        read.append(path)
        return read_image(path, *arguments)

    monkeypatch.setattr(cache_module, "read_image", counting)
    return read


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Index:
    """More than two record batches of small images."""
    return written(tmp_path_factory.mktemp("images"), {"cat": 150, "dog": 121})


@pytest.fixture(scope="module")
def cache(images, tmp_path_factory) -> ImageCache:
    return ImageCache(build(tmp_path_factory.mktemp("cache"), images)[24])


@pytest.mark.parametrize("fit", ["crop", "squish", "pad"])
def test_gathered_rows_equal_direct_decoding(images, tmp_path, fit):
    cache = ImageCache(build(tmp_path, images, [32], fit)[32])
    rows = [270, 0, 127, 128, 256, 5, 5]
    assert (cache.size, cache.fit, len(cache)) == (32, fit, len(images))
    np.testing.assert_array_equal(cache.gather(np.array(rows)).permute(0, 2, 3, 1), direct(images, rows, 32, fit))


def test_a_gathered_batch_is_uint8_in_channels_last_memory(cache):
    batch = cache.gather(torch.tensor([3, 1, 2]))
    assert (batch.shape, batch.dtype) == ((3, 3, 24, 24), torch.uint8)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    batch += 1  # a copy: the file on disk must not be reachable for writing


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
    together = build(tmp_path / "together", index, [48, 160, 600])
    for size, path in together.items():
        alone = build(tmp_path / f"alone{size}", index, [size])[size]
        for one in rows_of(alone):
            assert one.read_bytes() == (path.parent / one.name).read_bytes()


def test_each_image_is_decoded_once_for_several_sizes(images, tmp_path, decoded):
    progress = []
    build(tmp_path, images, [16, 32], progress=lambda *counts: progress.append(counts))
    assert len(decoded) == len(set(decoded)) == len(images)
    assert progress == [(number, len(images)) for number in range(1, len(images) + 1)]


def test_an_added_image_is_decoded_alone_and_takes_its_own_room(tmp_path, decoded):
    written(tmp_path / "images", {"cat": 40, "dog": 40})
    sizes = [32, 64]
    build(tmp_path, index_of(tmp_path / "images"), sizes)
    before = disk_use(tmp_path)
    Image.new("RGB", (50, 40), "red").save(tmp_path / "images" / "cat" / "new.png")
    grown = index_of(tmp_path / "images")
    decoded.clear()
    caches = build(tmp_path, grown, sizes)
    assert [path.name for path in decoded] == ["new.png"]
    squares = sum(3 * size**2 for size in sizes)
    assert squares <= disk_use(tmp_path) - before < squares + 10_000
    for size in sizes:
        gathered = ImageCache(caches[size]).gather(np.arange(81)).permute(0, 2, 3, 1)
        np.testing.assert_array_equal(gathered, direct(grown, list(range(81)), size))


def test_removed_images_and_another_set_of_the_same_ones_decode_nothing(tmp_path, decoded):
    written(tmp_path / "images", {"cat": 9, "dog": 9})
    build(tmp_path, index_of(tmp_path / "images"))
    (tmp_path / "images" / "dog" / "003.jpg").unlink()
    (tmp_path / "images").rename(tmp_path / "moved")
    decoded.clear()
    index = index_of(tmp_path / "moved")
    cache = ImageCache(build(tmp_path, index)[24])
    assert decoded == []
    gathered = cache.gather(np.arange(17)).permute(0, 2, 3, 1)
    np.testing.assert_array_equal(gathered, direct(index, list(range(17)), 24))


def test_a_size_more_decodes_for_that_size_and_copies_are_decoded_once(tmp_path, decoded):
    written(tmp_path / "images", {"cat": 5, "dog": 5})
    copy = tmp_path / "images" / "cat" / "copy.jpg"
    copy.write_bytes((tmp_path / "images" / "cat" / "000.jpg").read_bytes())
    index = index_of(tmp_path / "images")
    assert len(index) == 11
    build(tmp_path, index, [24])
    assert len(decoded) == 10
    decoded.clear()
    cache = ImageCache(build(tmp_path, index, [24, 32])[32])
    assert len(decoded) == 10
    np.testing.assert_array_equal(cache.gather(np.arange(11)).permute(0, 2, 3, 1), direct(index, list(range(11)), 32))


@settings(max_examples=8)
@given(
    sets=st.lists(st.sets(st.integers(0, 11), min_size=1), min_size=1, max_size=4), fit=st.sampled_from(["crop", "pad"])
)
def test_after_any_additions_and_removals_rows_are_the_images_as_resized(sets, fit):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_store, "MOST_ROWS", 3)
        every = written(Path(folder) / "images", {"cat": 6, "dog": 6})
        for rows in map(sorted, sets):
            index = Index(every.rows.take(rows), every.rejected, every.classes, "")
            gathered = ImageCache(build(Path(folder), index, [16], fit)[16]).gather(np.arange(len(rows)))
            np.testing.assert_array_equal(gathered.permute(0, 2, 3, 1), direct(every, rows, 16, fit))


def test_an_image_that_changed_since_the_index_is_refused(tmp_path):
    index = written(tmp_path / "images", {"cat": 3, "dog": 3})
    Image.new("RGB", (30, 30)).save(index.rows["path"][1].as_py())
    with pytest.raises(UserError, match=r"001\.jpg: the image changed"):
        build(tmp_path, index)


@pytest.mark.parametrize("of", [0, 1, 2], ids=["list", "rows", "checksums"])
def test_an_incomplete_cache_is_refused(images, tmp_path, of):
    path = build(tmp_path, images)[24]
    damaged = rows_of(path)[of]
    content = damaged.read_bytes()
    damaged.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="not a complete cache file"):
        ImageCache(path)


def test_a_file_of_another_kind_is_refused(images, tmp_path):
    images.save(tmp_path / "index")
    with pytest.raises(UserError, match="not a complete cache file"):
        ImageCache(tmp_path / "index")


def test_a_cache_of_another_version_is_refused(images, tmp_path, monkeypatch):
    path = build(tmp_path, images)[24]
    monkeypatch.setattr(cache_module, "CACHE_VERSION", 99)
    with pytest.raises(UserError, match="cache version"):
        ImageCache(path)


def test_a_cache_that_does_not_say_how_it_was_made_is_refused(images, tmp_path):
    path = build(tmp_path, images)[24]
    path.write_bytes(path.read_bytes().replace(b'"fit"', b'"fat"'))
    with pytest.raises(UserError, match="not an image cache"):
        ImageCache(path)


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
    cache = ImageCache(build(tmp_path, index, [64])[64])
    rows = [0, 549, 550, 1099]
    np.testing.assert_array_equal(cache.gather(np.array(rows)).permute(0, 2, 3, 1), direct(index, rows, 64))
