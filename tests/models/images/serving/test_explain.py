import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unfreeze.models.errors import UserError
from unfreeze.models.evaluation.results import Section
from unfreeze.models.images.networks.backbones import preprocessing_of
from unfreeze.models.images.networks.classifier import build_classifier
from unfreeze.models.images.serving.explain import CLASSIC, MOST_CHANNELS, explain_images
from unfreeze.models.images.serving.predictor import ImagePredictor, save_classifier
from unfreeze.models.settings import TrainImages
from unfreeze.models.settings.overrides import build_spec
from unfreeze.models.targets import SingleLabel


def predictor(folder: Path, backbone: str, size: int, seed: int = 0) -> ImagePredictor:
    spec = {"backbone": backbone, "weights": "none", "head_width": 16}
    params = build_spec(TrainImages, {"model": spec, "device": "cpu", "precision": "fp32"}, {})
    network = build_classifier(params.model, 3, seed, size)
    target = SingleLabel(["cat", "dog", "owl"])
    save_classifier(folder, [network.state_dict()], params, preprocessing_of(params.model), target, size)
    return ImagePredictor(folder, "cpu")


@pytest.fixture
def image(tmp_path: Path) -> str:
    pixels = np.random.default_rng(0).integers(0, 256, (80, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    return str(tmp_path / "image.png")


def section(sections: list[Section], start: str) -> list[Section]:
    return [each for each in sections if each.key.startswith(start)]


@pytest.mark.parametrize(("backbone", "size"), [("timm/test_resnet", 64), ("timm/test_vit", 160)])
def test_every_kind_of_network_has_maps_of_three_blocks_and_first_kernels(backbone, size, tmp_path, image):
    found = explain_images(predictor(tmp_path / "model", backbone, size), [image], [])
    maps = section(found.sections, "maps-0-")
    assert 2 <= len(maps) <= 3
    assert all(0 < len(each.tiles) <= MOST_CHANNELS for each in maps)
    assert section(found.sections, "kernels")
    assert len(section(found.sections, "image-0")[0].tiles) == 4  # the image and three classes
    assert section(found.sections, "answers")[0].rows[0]["image"] == "image.png"


def test_the_classic_kernels_are_one_picture_of_the_image_and_what_each_makes_of_it(tmp_path, image):
    model = predictor(tmp_path / "model", "timm/test_resnet", 64)
    (classic,) = section(explain_images(model, [image], []).sections, "classic")
    picture = np.array(Image.open(io.BytesIO(classic.tiles[0].image))).astype(int)
    whole, blurred, *_, left = np.split(picture, 1 + len(CLASSIC), axis=1)
    grey = np.array(Image.fromarray(model.square(image)).convert("L")).astype(int)
    np.testing.assert_array_equal(whole, grey[1:-1, 1:-1])
    assert blurred.std() < whole.std()
    weights = torch.tensor(CLASSIC["left Sobel"])[None, None].double()
    expected = torch.nn.functional.conv2d(torch.tensor(grey)[None, None].double(), weights)[0, 0].clamp(0, 255)
    np.testing.assert_array_equal(left, expected.numpy())


def test_other_weights_light_up_other_places(tmp_path, image):
    pages = [
        explain_images(predictor(tmp_path / str(seed), "timm/test_resnet", 64, seed), [image], []) for seed in (0, 1)
    ]
    overlays = [{tile.overlay for tile in section(page.sections, "image-0")[0].tiles} - {None} for page in pages]
    assert overlays[0]
    assert not overlays[0] & overlays[1]


def test_the_channels_shown_are_the_strongest_of_the_layer(tmp_path, image):
    model = predictor(tmp_path / "model", "timm/test_resnet", 64)
    (maps,) = section(explain_images(model, [image], ["layer1"]).sections, "maps-0-")
    body, outputs = model.networks[0].body, []
    body.network.layer1.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    pixels = torch.from_numpy(model.square(image)).permute(2, 0, 1)[None].float() / 255
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (model.preprocessing.mean, model.preprocessing.std))
    with torch.inference_mode():
        body((pixels - mean) / std)
    strongest = outputs[0][0].abs().mean(dim=(1, 2)).argsort(descending=True)[: len(maps.tiles)].tolist()
    assert [int(tile.caption.split()[1].rstrip(":")) for tile in maps.tiles] == strongest


def test_a_layer_without_places_is_refused(tmp_path, image):
    model = predictor(tmp_path / "model", "timm/test_vit", 160)
    with pytest.raises(UserError, match=r"layers: patch_embed\.proj has no activation maps"):
        explain_images(model, [image], ["patch_embed.proj"])


def test_without_a_readable_image_the_reason_is_given(tmp_path):
    (tmp_path / "broken.png").write_text("no image")
    with pytest.raises(UserError, match=r"no image can be read; .*broken\.png cannot be read"):
        explain_images(predictor(tmp_path / "model", "timm/test_resnet", 64), [str(tmp_path / "broken.png")], [])
