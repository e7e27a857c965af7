"""Grad-CAM: which regions of an image support a class.

After Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", 2017.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import matplotlib
import numpy as np
import torch
from PIL import Image
from scipy.signal import correlate2d

from unfreeze.models.errors import UserError
from unfreeze.models.evaluation.results import Explanation, Section, Tile
from unfreeze.models.images.networks.backbones import Body
from unfreeze.models.images.networks.classifier import normalise_bytes
from unfreeze.models.images.pixels.decode import UnreadableImage, encoded, square_jpeg
from unfreeze.models.images.serving.predictor import ImagePredictor
from unfreeze.models.training.network import Network

OPACITY = 0.75
"""Opacity of the overlay at the map's maximum; it is transparent where the map is 0."""
OVERLAY_SIDE = 112
"""Side of the overlay in pixels: maps are about 7 x 7, and pages scale them up."""
MOST_IMAGES = 12
"""Maximum number of images on a page, which would otherwise take megabytes."""
MOST_CLASSES = 3
LARGEST = 360
"""Maximum side of the images on the page, in pixels."""
CLASSIC = {
    "blur": np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16,
    "sharpen": np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]]),
    "top Sobel": np.array([[1, 2, 1], [0, 0, 0], [-1, -2, -1]]),
    "left Sobel": np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]]),
}
"""Name -> classic kernel (3, 3)."""


def grad_cam(network: Network, inputs: torch.Tensor, outputs: np.ndarray) -> np.ndarray | None:
    """Compute how much each position of the body's last feature map A supports an output.

    ReLU(sum over channels k of w_k A_k), where w_k is the output's gradient with respect to A_k, averaged over
    positions; each map is scaled to a maximum of 1 unless it is 0 everywhere.

    Parameters
    ----------
    network
        Image network; put into evaluation mode.
    inputs
        Normalised images (B, 3, S, S) float32 on the network's device.
    outputs
        Index of the output to explain, (B,) int64.

    Returns
    -------
    numpy.ndarray or None
        (B, h, w) float32; None if the body's last activations have no spatial layout.
    """
    network.eval()
    body = cast(Body, network.body)
    with torch.no_grad():
        activations = body.activations(inputs)
    activations.requires_grad_()
    with torch.enable_grad():
        logits = network.head(body.pool(activations))
        chosen = logits[torch.arange(len(inputs)), torch.from_numpy(outputs).to(logits.device)]
        (gradients,) = torch.autograd.grad(chosen.sum(), activations)
    features, slopes = body.feature_map(activations.detach()), body.feature_map(gradients)
    if features is None or slopes is None:
        return None
    maps = (slopes.mean(dim=(2, 3), keepdim=True) * features).sum(dim=1).relu()
    highest = maps.amax(dim=(1, 2), keepdim=True)
    scaled: np.ndarray = (maps / torch.where(highest > 0, highest, 1)).cpu().numpy()
    return scaled


def overlays(maps: Sequence[np.ndarray | None], images: int) -> list[bytes | None]:
    """Average the `grad_cam` maps of a model's networks, and render each of the images' as `overlay` does.

    None for a map that is 0 everywhere, which an overlay cannot show, and without maps.
    """
    known = [each for each in maps if each is not None]
    means = np.mean(known, axis=0) if known else np.zeros((images, 1, 1))
    return [overlay(each) if each.max() > 0 else None for each in means]


def overlay(values: np.ndarray) -> bytes:
    """Render a map (h, w) in 0..1 as a PNG overlay: hot where high, transparent where low."""
    small = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32), mode="F")
    smooth = np.array(small.resize((OVERLAY_SIDE, OVERLAY_SIDE), Image.Resampling.BICUBIC)).clip(0, 1)
    coloured = matplotlib.colormaps["inferno"](0.25 + 0.75 * smooth, bytes=True)
    coloured[..., 3] = (255 * OPACITY * smooth**1.5).astype(np.uint8)
    return encoded(coloured)


def explain_images(predictor: ImagePredictor, paths: Sequence[str]) -> Explanation:
    """Explain the likeliest classes of the first `MOST_IMAGES` readable images.

    Raises
    ------
    UserError
        If no image can be read.
    """
    found, readable, squares = Explanation(), list[str](), list[np.ndarray]()
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
    names, probabilities = predictor.classes, predictor.probabilities(readable)
    found.lines = [f"{len(readable)} {'image' if len(readable) == 1 else 'images'}; {len(names):,} classes"]
    inputs = normalise_bytes(predictor.pixels(np.stack(squares)), predictor.preprocessing)
    top = np.argsort(-probabilities, axis=1, kind="stable")[:, :MOST_CLASSES]
    of_places = [[grad_cam(network, inputs, outputs) for network in predictor.networks] for outputs in top.T]
    if all(each is None for maps in of_places for each in maps):
        found.notices.append("Grad-CAM is left out: the body's last activations have no places")
    shown = list(zip(*(overlays(maps, len(readable)) for maps in of_places), strict=True))
    how = predictor.fit, predictor.preprocessing.interpolation, predictor.max_megapixels, predictor.ranges
    rows, sections = list[dict[str, Any]](), list[Section]()
    for number, path in enumerate(readable):
        row: dict[str, Any] = {"image": Path(path).name}
        square = square_jpeg(Path(path), LARGEST, *how)
        assert square is not None  # it was read just before
        tiles = [Tile("the image as the network sees it", square, "jpeg")]
        for place, (output, hot) in enumerate(zip(top[number].tolist(), shown[number], strict=True), start=1):
            suffix, probability = "" if place == 1 else f" {place}", float(probabilities[number, output])
            row |= {f"class{suffix}": names[output], f"probability{suffix}": round(probability, 4)}
            text = f"{names[output]}: {probability:.1%}{'' if hot else '; no place supports it'}"
            tiles.append(Tile(text, square, "jpeg", hot))
        rows.append(row)
        text = "Grad-CAM: the brighter a place, the more it supports the class."
        sections.append(Section(f"image-{number}", Path(path).name, text, tiles))
    found.sections = [Section("answers", "Predictions", rows=rows), *sections, _classic(readable[0], squares[0])]
    return found


def _classic(path: str, square: np.ndarray) -> Section:
    """Apply the classic kernels to one image (S, S, 3) uint8, in one picture."""
    grey = np.array(Image.fromarray(square).convert("L"), dtype=np.float64)
    results = [grey[1:-1, 1:-1], *(correlate2d(grey, kernel, mode="valid") for kernel in CLASSIC.values())]
    text = f"{Path(path).name} in grey levels, then after {', '.join(CLASSIC)}: each pixel is the sum of the 3 x 3 "
    text += "pixels around it, each times a weight of the kernel. A convolution layer learns such weights."
    picture = encoded(np.hstack(results).clip(0, 255).round().astype(np.uint8))
    return Section("classic", "Classic kernels", text, [Tile(", ".join(["the image", *CLASSIC]), picture)])
