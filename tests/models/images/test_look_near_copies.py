import numpy as np
import torch
from PIL import Image

from unfreeze.models.images.look import ALIKE, near_duplicates, thumbnails


def scenes(count: int, seed: int = 0) -> torch.Tensor:
    """Images of coloured blobs, (count, 3, 64, 64) uint8."""
    small = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed)) * 255
    return torch.nn.functional.interpolate(small, 64, mode="bicubic").clamp(0, 255).byte()


def encoded_again(image: torch.Tensor, tmp_path) -> torch.Tensor:
    """The image smaller, as a JPEG of low quality, and back."""
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    picture.resize((48, 48)).save(tmp_path / "again.jpg", quality=50)
    return torch.from_numpy(np.asarray(Image.open(tmp_path / "again.jpg").resize((64, 64))).copy()).permute(2, 0, 1)


def test_copies_that_were_compressed_mirrored_or_darkened_are_found_and_nothing_else(tmp_path):
    images = scenes(30)
    copies = torch.stack([encoded_again(images[3], tmp_path), images[7].flip(2), (images[11] * 0.8).byte()])
    pairs = near_duplicates(thumbnails(torch.cat([images, copies])))
    assert {*zip(pairs.one.tolist(), pairs.other.tolist(), strict=True)} == {(3, 30), (7, 31), (11, 32)}
    assert (pairs.correlation >= ALIKE).all()
    assert (np.diff(pairs.correlation) <= 0).all()


def test_flat_images_are_not_taken_for_copies():
    flat = torch.full((2, 3, 64, 64), 90, dtype=torch.uint8)
    flat[1] = 200
    assert not len(near_duplicates(thumbnails(flat)).one)


def test_more_images_than_are_compared_at_once(monkeypatch):
    monkeypatch.setattr("unfreeze.models.images.look.AT_ONCE", 4)
    images = scenes(10)
    pairs = near_duplicates(thumbnails(torch.cat([images, images])))
    assert sorted(zip(pairs.one.tolist(), pairs.other.tolist(), strict=True)) == [(row, row + 10) for row in range(10)]
