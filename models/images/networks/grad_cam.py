"""Grad-CAM: which regions of an image support a prediction.

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
"""Opacity of the overlay at the map's maximum; it is transparent where the map is 0."""
OVERLAY_SIDE = 112
"""Side of the overlay in pixels: maps are about 7 x 7, and pages scale them up."""


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


def overlay(values: np.ndarray) -> bytes:
    """Render a map (h, w) in 0..1 as a PNG overlay: hot where high, transparent where low."""
    small = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32), mode="F")
    smooth = np.array(small.resize((OVERLAY_SIDE, OVERLAY_SIDE), Image.Resampling.BICUBIC)).clip(0, 1)
    coloured = matplotlib.colormaps["inferno"](0.25 + 0.75 * smooth, bytes=True)
    coloured[..., 3] = (255 * OPACITY * smooth**1.5).astype(np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(coloured).save(encoded, "PNG", optimize=True)
    return encoded.getvalue()
