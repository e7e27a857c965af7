from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unfreeze.models.errors import UserError
from unfreeze.models.evaluation.results import Section
from unfreeze.models.images.networks.backbones import preprocessing_of
from unfreeze.models.images.networks.classifier import build_classifier
from unfreeze.models.images.serving.explain import explain_images
from unfreeze.models.images.serving.predictor import ImagePredictor, save_classifier
from unfreeze.models.settings import TrainImages
from unfreeze.models.settings.overrides import build_spec
from unfreeze.models.targets import SingleLabel


def predictor(folder: Path, backbone: str, size: int, seed: int = 0) -> ImagePredictor:
    spec = {"backbone": backbone, "weights": "none", "head_width": 16}
    params = build_spec(TrainImages, {"model": spec, "device": "cpu", "precision": "fp32"}, {})
    network = build_classifier(params.model, 3, seed, [size])
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
def test_every_kind_of_network_has_a_map_of_each_class(backbone, size, tmp_path, image):
    found = explain_images(predictor(tmp_path / "model", backbone, size), [image])
    assert len(section(found.sections, "image-0")[0].tiles) == 4  # the image and three classes
    assert section(found.sections, "answers")[0].rows[0]["image"] == "image.png"


def test_other_weights_light_up_other_places(tmp_path, image):
    pages = [explain_images(predictor(tmp_path / str(seed), "timm/test_resnet", 64, seed), [image]) for seed in (0, 1)]
    overlays = [{tile.overlay for tile in section(page.sections, "image-0")[0].tiles} - {None} for page in pages]
    assert overlays[0]
    assert not overlays[0] & overlays[1]


def test_without_a_readable_image_the_reason_is_given(tmp_path):
    (tmp_path / "broken.png").write_text("no image")
    with pytest.raises(UserError, match=r"no image can be read; .*broken\.png cannot be read"):
        explain_images(predictor(tmp_path / "model", "timm/test_resnet", 64), [str(tmp_path / "broken.png")])


def test_the_classic_kernels_are_one_picture(tmp_path, image):
    found = explain_images(predictor(tmp_path / "model", "timm/test_resnet", 64), [image])
    (tile,) = section(found.sections, "classic")[0].tiles
    assert tile.caption == "the image, blur, sharpen, top Sobel, left Sobel"
    assert np.array(Image.open(BytesIO(tile.image))).shape == (62, 5 * 62)
