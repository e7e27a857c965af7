"""Networks that onnxruntime runs instead of torch: on a CPU small backbones then take about half the time."""

from pathlib import Path

import torch

from unfreeze.models.images.serving.export import open_session, require_onnx
from unfreeze.models.images.serving.predictor import ImagePredictor
from unfreeze.models.store.sealed_files import CHECKSUMS
from unfreeze.models.store.workspace import Derived, Workspace, key_of

ONNX_VERSION = 1
"""Raise it when the same model would give other files."""


class OnnxNetwork:
    """Logits (B, C) of normalised images (B, 3, S, S) float32, by onnxruntime on as many threads as torch has."""

    def __init__(self, path: Path) -> None:
        self._session = open_session(path)

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """See the class."""
        return torch.from_numpy(self._session.run(None, {"inputs": inputs.contiguous().numpy()})[0])


def use_onnxruntime(predictor: ImagePredictor, model: Path, workspace: Workspace) -> None:
    """Let a predictor on the CPU run its networks by onnxruntime; they are converted once and kept in the workspace.

    A `UserError` if a package is missing.
    """
    require_onnx("--runtime onnx")

    def build(wanted: dict[str, Path]) -> None:
        images = torch.zeros(2, 3, predictor.size, predictor.size)
        for number, path in wanted.items():
            exported = torch.onnx.export(
                predictor.networks[int(number)],
                (images,),
                dynamo=True,
                dynamic_shapes={"inputs": {0: torch.export.Dim("batch")}},
                verbose=False,
            )
            assert exported is not None
            exported.save(path, external_data=False)

    key = key_of((model / CHECKSUMS).read_text(), ONNX_VERSION)
    files = {str(number): Derived("onnx", f"{key}-{number}", ".onnx") for number in range(len(predictor.networks))}
    converted = workspace.derive("convert to ONNX", files, build)
    predictor.runs = [OnnxNetwork(path) for path in converted.values()]
