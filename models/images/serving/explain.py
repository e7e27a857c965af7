"""Explanations of a classifier: Grad-CAM of the likeliest classes, activation maps, first-layer kernels."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import matplotlib
import numpy as np
import torch
from PIL import Image
from scipy.signal import correlate2d
from torch import Tensor, nn
from torchvision.utils import make_grid

from unfreeze.models.errors import UserError, choose
from unfreeze.models.evaluation.results import Explanation, Section, Tile
from unfreeze.models.images.networks.backbones import Body
from unfreeze.models.images.networks.classifier import normalise_bytes
from unfreeze.models.images.networks.grad_cam import grad_cam, overlay
from unfreeze.models.images.pixels.decode import UnreadableImage, png, square_jpeg
from unfreeze.models.images.serving.predictor import ImagePredictor

MOST_IMAGES = 12
"""Maximum number of images on a page, which would otherwise take megabytes."""
MOST_CLASSES = 3
MOST_NAMED = 10
MOST_CHANNELS = 8
MOST_KERNELS = 64
LARGEST = 360
"""Maximum side of the images on the page, in pixels."""
CELL = 24
"""Minimum side of a kernel in the grid, in pixels."""
CLASSIC = {
    "blur": np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16,
    "sharpen": np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]]),
    "emboss": np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]),
    "top Sobel": np.array([[1, 2, 1], [0, 0, 0], [-1, -2, -1]]),
    "left Sobel": np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]]),
}
"""Name -> classic kernel (3, 3)."""


def explain_images(predictor: ImagePredictor, paths: Sequence[str], layers: Sequence[str]) -> Explanation:
    """Explain a classifier's predictions on some images.

    Parameters
    ----------
    paths
        Image files; only the first `MOST_IMAGES` readable ones are used, with a notice.
    layers
        Names of modules in the body's network; empty for three blocks spread over the body.

    Raises
    ------
    UserError
        If no image can be read, or a layer is unknown or has no feature maps.
    """
    found = Explanation()
    body = cast(Body, predictor.networks[0].body)
    chosen = _layers(body, layers)
    readable, squares = _read(predictor, paths, found)
    names, probabilities = [str(each) for each in predictor.target.classes], predictor.probabilities(readable)
    found.lines = [f"{len(readable)} {'image' if len(readable) == 1 else 'images'}; {_some(names)}"]
    pixels = torch.from_numpy(squares).to(predictor.device).permute(0, 3, 1, 2)
    inputs = normalise_bytes(pixels, predictor.preprocessing)
    top = np.argsort(-probabilities, axis=1, kind="stable")[:, :MOST_CLASSES]
    found.sections.append(_answers(readable, names, probabilities, top))
    heats = [_heats(predictor, inputs, top[:, place]) for place in range(top.shape[1])]
    if all(heat is None for heat in heats):
        found.notices.append("Grad-CAM is left out: the body's last activations have no places")
    maps_of = _activations(body, chosen, inputs)
    if layers and (without := [name for name in chosen if name not in maps_of]):
        raise UserError(f"layers: {without[0]} has no activation maps (channels over places); choose another layer")
    for number, path in enumerate(readable):
        hot = [None if heat is None else heat[number] for heat in heats]
        said = {names[each]: float(probabilities[number, each]) for each in top[number]}
        found.sections.append(_seen(predictor, f"image-{number}", Path(path), said, hot))
        found.sections += [_maps(number, Path(path).name, name, maps[number]) for name, maps in maps_of.items()]
    found.sections += [*_first_kernels(body), _classic(Path(readable[0]).name, squares[0])]
    return found


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"classes {', '.join(names[:MOST_NAMED])}{more}"


def _read(predictor: ImagePredictor, paths: Sequence[str], found: Explanation) -> tuple[list[str], np.ndarray]:
    """The first readable images, and their squares (B, S, S, 3) uint8."""
    readable, squares = list[str](), list[np.ndarray]()
    for number, path in enumerate(paths):
        if len(readable) == MOST_IMAGES:
            found.notices.append(f"{len(paths) - number:,} more images are left out: a page shows {MOST_IMAGES}")
            break
        try:
            squares.append(predictor.square(path))
            readable.append(path)
        except (UnreadableImage, OSError) as error:
            found.notices.append(f"{path} cannot be read: {error}")
    if not readable:
        raise UserError(f"source: no image can be read; {found.notices[0]}")
    return readable, np.stack(squares)


def _answers(paths: Sequence[str], names: Sequence[str], probabilities: np.ndarray, top: np.ndarray) -> Section:
    rows: list[dict[str, Any]] = []
    for path, answers, order in zip(paths, probabilities, top, strict=True):
        row: dict[str, Any] = {"image": Path(path).name}
        for place, number in enumerate(order.tolist(), start=1):
            suffix = "" if place == 1 else f" {place}"
            row |= {f"class{suffix}": names[number], f"probability{suffix}": round(float(answers[number]), 4)}
        rows.append(row)
    return Section("answers", "What the model says", rows=rows)


def _heats(predictor: ImagePredictor, inputs: Tensor, outputs: np.ndarray) -> np.ndarray | None:
    """Grad-CAM maps (B, h, w) of one output per image, averaged over the model's networks."""
    maps = [grad_cam(network, inputs, outputs) for network in predictor.networks]
    known = [each for each in maps if each is not None]
    return np.asarray(np.mean(known, axis=0)) if known else None


def _seen(
    predictor: ImagePredictor, key: str, path: Path, said: Mapping[str, float], maps: Sequence[np.ndarray | None]
) -> Section:
    """Section with an image and a Grad-CAM map (h, w) for each class in `said` (class -> probability)."""
    how = predictor.fit, predictor.preprocessing.interpolation, predictor.max_megapixels, predictor.ranges
    square = square_jpeg(path, LARGEST, *how)
    assert square is not None  # it was read just before
    tiles = [Tile("the image as the network sees it", square, "jpeg")]
    for (name, probability), heat in zip(said.items(), maps, strict=True):
        text = f"{name}: {probability:.1%}"
        if heat is not None and heat.max() > 0:
            tiles.append(Tile(text, square, "jpeg", overlay(heat)))
        else:  # an overlay cannot show it
            tiles.append(Tile(f"{text}; no place speaks for it", square, "jpeg"))
    return Section(key, path.name, "Grad-CAM: the brighter a place, the more it speaks for the class.", tiles)


# --- activation maps


def _layers(body: Body, wanted: Sequence[str]) -> list[str]:
    """Requested module names, or three blocks spread over the body's network."""
    modules = dict(body.network.named_modules())
    blocks = {block.name: None for block in body.blocks if block.name in modules}
    for name in wanted:
        if name not in modules:
            choose(blocks, name, "layers")
    names = list(blocks)
    spread = [names[place] for place in np.linspace(0, len(names) - 1, 3).round().astype(int)] if names else []
    return list(dict.fromkeys(wanted or spread))


def _activations(body: Body, layers: Sequence[str], inputs: Tensor) -> dict[str, np.ndarray]:
    """Layer -> its maps (B, C, h, w) float32; layers without map output are omitted."""
    outputs: dict[str, Any] = {}

    def remember(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda _module, _inputs, output: outputs.update({name: output})

    hooks = [body.network.get_submodule(name).register_forward_hook(remember(name)) for name in layers]
    try:
        with torch.inference_mode():
            shape = body.activations(inputs).ndim
    finally:
        for hook in hooks:
            hook.remove()
    found: dict[str, np.ndarray] = {}
    for name in layers:
        output = outputs.get(name)
        output = output[0] if isinstance(output, (tuple, list)) and output else output
        fits = isinstance(output, Tensor) and output.ndim == shape
        maps = body.feature_map(cast(Tensor, output).float()) if fits else None
        if maps is not None:
            found[name] = maps.cpu().numpy()
    return found


def _maps(number: int, image: str, layer: str, maps: np.ndarray) -> Section:
    """Section with the strongest channels of a layer, (C, h, w), for one image."""
    strength = np.abs(maps).mean(axis=(1, 2))
    tiles = []
    for channel in np.argsort(-strength, kind="stable")[:MOST_CHANNELS].tolist():
        values = maps[channel]
        span = values.max() - values.min()
        scaled = (values - values.min()) / (span if span > 0 else 1)
        coloured = matplotlib.colormaps["viridis"](scaled, bytes=True)[..., :3]
        tiles.append(Tile(f"channel {channel}: {values.min():.3g} to {values.max():.3g}", png(coloured)))
    _, height, width = maps.shape
    text = f"The {len(tiles)} channels of {len(maps)} with the largest mean size, {height} x {width} places; each from "
    text += "its lowest value (dark) to its highest (bright)."
    return Section(f"maps-{number}-{layer.replace('.', '-')}", f"{image}: activation maps of {layer}", text, tiles, 112)


# --- kernels


def _first_kernels(body: Body) -> list[Section]:
    """Kernels of the body's first convolution, if it takes the image's three channels."""
    convolutions = (each for each in body.network.named_modules() if isinstance(each[1], nn.Conv2d))
    name, first = next(convolutions, ("", None))
    if first is None or first.weight.shape[1] != 3:
        return []
    kernels = first.weight.detach().float().cpu()
    count, _, height, width = kernels.shape
    shown = f"{min(count, MOST_KERNELS)} of {count}" if count > MOST_KERNELS else f"All {count}"
    text = f"{shown} kernels of {name}, {height} x {width} weights for red, green and blue each; grey is 0, and each "
    text += "kernel has a scale of its own. Batch norm is multiplied in where it follows directly."
    return [Section("kernels", "Kernels of the first layer", text, [Tile(name, _grid(kernels[:MOST_KERNELS]))], 560)]


def _grid(kernels: Tensor) -> bytes:
    """Draw kernels (N, 3, h, w) side by side as a PNG: 0 is grey, each kernel's largest weight is 0 or 255."""
    largest = kernels.abs().amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)
    zoom = -(-CELL // kernels.shape[2])
    cells = (0.5 + 0.5 * kernels / largest).repeat_interleave(zoom, 2).repeat_interleave(zoom, 3)
    columns = int(np.ceil(np.sqrt(1.6 * len(cells))))
    grid = make_grid(cells, nrow=columns, padding=3, pad_value=1).mul(255).round().byte()
    return png(grid.permute(1, 2, 0).numpy())


def _classic(name: str, square: np.ndarray) -> Section:
    """Apply the classic kernels to one image, (S, S, 3) uint8."""
    grey = np.array(Image.fromarray(square).convert("L"), dtype=np.float64)
    results = [grey[1:-1, 1:-1], *(correlate2d(grey, kernel, mode="valid") for kernel in CLASSIC.values())]
    text = f"{name} in grey levels, then after {', '.join(CLASSIC)}, limited to 0 to 255. Each pixel is the sum of the "
    text += "3 x 3 pixels around it, each times a weight of the kernel; a convolution layer learns such weights."
    picture = png(np.hstack(results).clip(0, 255).round().astype(np.uint8))
    return Section("classic", "Classic kernels", text, [Tile(", ".join(["the image", *CLASSIC]), picture)], 1000)
