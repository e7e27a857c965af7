"""Settings of an export."""

from typing import Literal

from pydantic import Field

from unfreeze.models.specs.training import Spec


class Export(Spec):
    """Which classifier is written in which format, where to, and the images that both are compared on."""

    model: str = Field(
        default="digits-classifier@champion",
        min_length=1,
        description="A registered model: `NAME@ALIAS`, `NAME/VERSION`, or `NAME` for its champion; or a folder.",
    )
    to: Literal["onnx", "torch", "timm"] = Field(
        default="onnx",
        description="`onnx`: for onnxruntime and others; `torch`: a program for `torch.export.load`; `timm`: a folder "
        "for `timm.create_model`, of a model of timm with a head of one layer.",
    )
    out: str | None = Field(
        default=None, min_length=1, description="Folder to make. Empty: the model's name and the format."
    )
    check: str | None = Field(
        default=None,
        min_length=1,
        description="Images that the export and the model have to agree on: a folder, an image, a file of paths, or "
        "`digits`; 1,000 of them at most. Empty: the validation images of a registered model that are still there, or "
        "else generated ones.",
    )
