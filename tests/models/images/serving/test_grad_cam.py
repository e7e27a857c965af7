import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from unfreeze.models.images.networks.classifier import build_classifier
from unfreeze.models.images.serving.explain import OVERLAY_SIDE, grad_cam, overlay
from unfreeze.models.settings import ModelSpec

SPEC = ModelSpec(backbone="timm/test_resnet", weights="none", head_width=16)
IMAGES = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
CLASSES = np.array([0, 1, 1])


def test_a_map_per_image_from_0_to_1():
    maps = grad_cam(build_classifier(SPEC, 2, seed=0), IMAGES, CLASSES)
    assert maps is not None
    assert maps.shape[0] == 3
    assert maps.min() >= 0
    assert all(each.max() in (0, 1) for each in maps)


def test_other_weights_give_other_maps():
    # Adebayo et al. 2018, "Sanity Checks for Saliency Maps": a map that survives random weights explains nothing.
    blobs = torch.rand(4, 3, 7, 7, generator=torch.Generator().manual_seed(1))
    scenes = nn.functional.interpolate(blobs, 128, mode="bicubic")
    pretrained, random = (
        grad_cam(build_classifier(ModelSpec(weights=weights), 2, seed=0), scenes, np.array([0, 1, 0, 1]))
        for weights in ("imagenet", "none")
    )
    assert pretrained is not None
    assert random is not None
    assert abs(np.corrcoef(pretrained.ravel(), random.ravel())[0, 1]) < 0.5


def test_the_other_class_of_two_is_explained_by_other_places():
    network = build_classifier(SPEC, 2, seed=0)
    one, other = (grad_cam(network, IMAGES, np.full(3, number)) for number in (0, 1))
    assert one is not None
    assert other is not None
    assert not np.allclose(one, other, atol=0.05)


class Bright(nn.Module):
    """Its feature map is the image's brightness at a quarter of the size, and the dark, in two channels."""

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        bright = nn.functional.avg_pool2d(images.mean(dim=1, keepdim=True), 4)
        return torch.cat([bright, 1 - bright], dim=1)


def test_the_map_is_where_what_decides_is():
    # A head that only looks at the brightest place and the mean brightness.
    network = build_classifier(SPEC, 2, seed=0)
    network.body.network = Bright()
    network.head = nn.Linear(4, 2, bias=False)
    network.head.weight.data = torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 1.0]])
    images = torch.zeros(1, 3, 32, 32)
    images[:, :, 8:16, 16:24] = 1
    (found,) = grad_cam(network, images, np.array([0]))
    expected = np.zeros((8, 8))
    expected[2:4, 4:6] = 1
    np.testing.assert_allclose(found, expected)
    (dark,) = grad_cam(network, images, np.array([1]))
    np.testing.assert_allclose(dark, 1 - expected)


@pytest.mark.parametrize("backbone", ["timm/test_vit", "timm/test_convnext"])
def test_tokens_and_other_layouts_have_maps_too(backbone):
    network = build_classifier(SPEC.model_copy(update={"backbone": backbone}), 2, seed=0, sizes=[160])
    images = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    maps = grad_cam(network, images, np.array([0, 1]))
    assert maps is not None
    assert maps.shape[1] == maps.shape[2] > 1


def test_the_network_is_left_as_it_was():
    network = build_classifier(SPEC, 2, seed=0)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    grad_cam(network, IMAGES, CLASSES)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_an_overlay_is_opaque_where_the_map_is_high_only():
    values = np.zeros((7, 7), np.float32)
    values[0, 0] = 1
    image = np.array(Image.open(io.BytesIO(overlay(values))))
    assert image.shape == (OVERLAY_SIDE, OVERLAY_SIDE, 4)
    assert image[4, 4, 3] > 150
    assert image[-4, -4, 3] == 0
