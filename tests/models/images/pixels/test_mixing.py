import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from torch.nn import functional

from unfreeze.models.images.pixels.augmentation import MIXES, mix_batch
from unfreeze.models.settings import AugmentSpec, OptimizerSpec
from unfreeze.models.targets.losses import cross_entropy, focal

CLASSES = 4


def batch(count: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of one constant each, so that every pixel says which image it is from."""
    return torch.arange(count).float().view(-1, 1, 1, 1).expand(-1, 3, 8, 10).clone(), torch.arange(count) % CLASSES


@pytest.mark.parametrize("mix", list(MIXES))
@given(seed=st.integers(0, 2**32), alpha=st.floats(0.1, 5))
def test_targets_are_the_shares_of_pixels(mix, seed, alpha):
    images, targets = batch()
    augment = AugmentSpec(mix=mix, mix_alpha=alpha)
    mixed, soft = mix_batch(images, targets, CLASSES, augment, torch.Generator().manual_seed(seed))
    assert mixed.shape == images.shape
    torch.testing.assert_close(soft.sum(1), torch.ones(len(targets)))
    one_hot = functional.one_hot(targets, CLASSES).float()
    for row in range(len(targets)):
        # the partner is the one image whose share explains both the pixels and the targets
        explained = [
            torch.allclose(soft[row], one_hot[other].lerp(one_hot[row], share), atol=1e-5)
            for other in range(len(targets))
            for share in [float((mixed[row].mean() - other) / (row - other)) if other != row else 1.0]
            if -1e-5 <= share <= 1 + 1e-5
        ]
        assert any(explained)


def test_a_cut_box_comes_from_one_other_image():
    images, targets = batch()
    augment = AugmentSpec(mix="cutmix", mix_alpha=1)
    mixed, _ = mix_batch(images, targets, CLASSES, augment, torch.Generator().manual_seed(3))
    assert all(len(image.unique()) <= 2 for image in mixed)
    assert any(len(image.unique()) == 2 for image in mixed)


@pytest.mark.parametrize("make", [cross_entropy, focal])
def test_losses_of_mixed_targets_at_the_ends_are_those_of_classes(make):
    targets = np.array([0, 1, 1, 2, 3, 3])
    loss = make(OptimizerSpec(class_weights="balanced"), targets, CLASSES, torch.device("cpu"))
    logits = torch.randn(6, CLASSES, generator=torch.Generator().manual_seed(0))
    classes = torch.from_numpy(targets)
    soft = loss(logits, functional.one_hot(classes, CLASSES).float())
    if make is focal:
        torch.testing.assert_close(soft, loss(logits, classes))
    else:  # torch divides by the rows with shares, and by their weights with classes
        rows = functional.cross_entropy(logits, classes, reduction="none")
        weight = torch.bincount(classes).float().reciprocal() * 6 / CLASSES
        torch.testing.assert_close(soft, (rows * weight[classes]).mean())
