import pytest
import torch

from unfreeze.models.errors import UserError
from unfreeze.models.training.precision import Precision, pick_device, pick_precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
FP32, BF16 = torch.float32, torch.bfloat16


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_the_fastest_device_is_picked_by_itself(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(cuda))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert pick_device("auto").type == expected


@pytest.mark.parametrize(("name", "count"), [("cuda", 0), ("cuda:0", 0), ("cuda:2", 2)])
def test_a_gpu_that_is_not_there_is_refused(monkeypatch, name, count):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(UserError, match=rf"{name}.*not on this machine \({count} CUDA"):
        pick_device(name)


def test_a_gpu_that_is_there_is_taken(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert pick_device("cuda:2") == torch.device("cuda", 2)


def test_an_absent_mps_is_refused(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match="mps"):
        pick_device("mps")


@pytest.mark.parametrize(("amx", "inference"), [(True, BF16), (False, FP32)])
def test_a_cpu_trains_in_fp32_and_infers_in_what_is_faster(monkeypatch, amx, inference):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert pick_precision("auto", CPU) == Precision("cpu", FP32, inference)


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), FP32), ((8, 0), BF16), ((9, 0), BF16)])
def test_a_gpu_uses_bf16_from_capability_8(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert pick_precision("auto", CUDA) == Precision("cuda", expected, expected)


@pytest.mark.parametrize(("setting", "expected"), [("bf16", BF16), ("fp32", FP32)])
@pytest.mark.parametrize("device", [CPU, CUDA])
def test_a_named_format_is_taken_everywhere(setting, expected, device):
    assert pick_precision(setting, device) == Precision(device.type, expected, expected)


def test_a_pass_runs_in_the_format_of_its_purpose():
    precision, layer, inputs = Precision("cpu", FP32, BF16), torch.nn.Linear(4, 4), torch.ones(2, 4)
    with precision.autocast(training=True):
        assert layer(inputs).dtype == FP32
    with precision.autocast(training=False):
        assert layer(inputs).dtype == BF16
