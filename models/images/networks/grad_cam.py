"""Where in an image a network sees what it predicts: Grad-CAM.

After Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", 2017.
"""

import io
from typing import cast

import matplotlib
import numpy as np
import torch
from PIL import Image

from unfreeze.models.images.networks.backbones import Body
from unfreeze.models.training.network import Network

OPACITY = 0.75
"""Of the overlay where the map is highest; it is transparent where the map is 0."""
OVERLAY_SIDE = 112
"""Pixels: maps have 7 x 7 or so, a page scales them up."""


def grad_cam(network: Network, inputs: torch.Tensor, outputs: np.ndarray) -> np.ndarray | None:
    """How much each place of the body's last feature map A speaks for an output.

    ReLU(sum over channels k of w_k A_k), where w_k is the mean over all places of the output's derivative by A_k; each
    map is scaled to a maximum of 1 unless it is 0 everywhere.

    Parameters
    ----------
    network
        Of images; it is put into evaluation mode.
    inputs
        Normalised images (B, 3, S, S) float32 on the network's device.
    outputs
        Number of the output to explain, (B,) int64.

    Returns
    -------
    numpy.ndarray or None
        (B, h, w) float32; None of a body whose last activations have no places.
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


def overlay(values: np.ndarray) -> bytes:
    """A map (h, w) of 0 to 1 as a PNG to lay over its image: hot where it is high, transparent where it is low."""
    small = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32), mode="F")
    smooth = np.array(small.resize((OVERLAY_SIDE, OVERLAY_SIDE), Image.Resampling.BICUBIC)).clip(0, 1)
    coloured = matplotlib.colormaps["inferno"](0.25 + 0.75 * smooth, bytes=True)
    coloured[..., 3] = (255 * OPACITY * smooth**1.5).astype(np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(coloured).save(encoded, "PNG", optimize=True)
    return encoded.getvalue()
