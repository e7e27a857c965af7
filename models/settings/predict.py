"""Settings of a prediction."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from unfreeze.models.settings.addresses import Source, check_no_credentials
from unfreeze.models.settings.training import Device, Spec
from unfreeze.models.store.paths import given_path

FORMATS = (".feather", ".parquet", ".csv")
"""Suffixes of the files that predictions are written to."""


TrainedModel = Annotated[
    str,
    Field(
        min_length=1,
        description="A registered model: `NAME@ALIAS`, `NAME/VERSION`, or `NAME` for its champion; or a folder.",
    ),
]


class Predict(Spec):
    """Which registered model predicts what, and the file to write."""

    model: str = Field(
        default="digits-classifier@champion",
        min_length=1,
        description="A registered model: `NAME@ALIAS`, `NAME/VERSION`, or `NAME` for its champion. NAME may omit "
        "`-classifier` or `-table`.",
    )
    source: Source = Field(
        default="digits",
        min_length=1,
        description="For a classifier: a folder of images (with all folders in it), one image, a CSV, feather or "
        "Parquet file of image paths, or `digits`. For a table's model: a file of its rows, "
        "or a folder of Parquet files. Any of these may be at a URL, such as `s3://bucket/incoming/`.",
    )
    out: Source = Field(
        default="predictions.csv", min_length=1, description="File or URL to write: .csv, .feather or .parquet."
    )
    overwrite: bool = Field(default=False, description="Replace `out` if it holds another prediction.")
    tta: bool | None = Field(
        default=None,
        description="Predict a classifier's images with or without test-time augmentation. Empty: as the model was "
        "evaluated.",
    )
    top_k: int = Field(
        default=3, ge=1, le=100, description="Most probable classes to write; all of them where there are fewer."
    )
    coverage: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Also write prediction sets or intervals that contain the truth in this share of rows (0.9): for "
        "classes a `set`, and `abstains` where it is not exactly one class; for numbers `NAME_low` and `NAME_high`. "
        "Empty: neither.",
    )
    path_column: str = Field(
        default="path",
        min_length=1,
        description="Column of image paths, or ids, in a CSV, feather or Parquet source.",
    )
    image_folder: str | None = Field(
        default=None,
        description="Folder of a table's images, below the table's own folder. Empty: the table's own folder.",
    )
    suffix: str = Field(default="", description="Suffix to append to the ids of a table, such as `.jpg`.")
    chunk: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Rows predicted and saved at a time; a stopped run loses at most these. Empty: 1,024 images, or "
        "65,536 rows of a table.",
    )
    device: Device = "auto"
    cluster: str | None = Field(
        default=None,
        min_length=1,
        description="Address of a Ray cluster that predicts, such as `auto` or `ray://head:10001`; its nodes share the "
        "data folder, the source and the output. Empty: `RAY_ADDRESS`, or this machine.",
    )
    runtime: Literal["torch", "onnx"] = Field(
        default="torch",
        description="What runs the networks of a classifier; `onnx`, which needs the extra `export`, is faster on CPUs "
        "for small backbones and thousands of images: the model is converted first, once.",
    )

    @field_validator("out")
    @classmethod
    def _out_has_a_known_format(cls, value: str) -> str:
        if Path(value).suffix.lower() not in FORMATS:
            raise ValueError(f"{value!r} must end in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
        return value

    @model_validator(mode="after")
    def _onnx_runs_on_the_cpu(self) -> Self:
        if self.runtime == "onnx" and self.device not in ("auto", "cpu"):
            raise ValueError(f"runtime: onnx runs on the CPU, not on {self.device}; omit device")
        return self


class Explain(Spec):
    """Which model is explained, on what, and the page to write."""

    model: TrainedModel = "digits-classifier@champion"
    source: list[str] = Field(
        default=["digits"],
        min_length=1,
        description="Images, folders of images or `digits`; or the one file of a table's rows, with their targets.",
    )
    out: str = Field(default="explain.html", min_length=1, description="Page to write.")
    device: Device = "auto"

    @field_validator("source")
    @classmethod
    def _sources_hold_no_credentials(cls, value: list[str]) -> list[str]:
        return [check_no_credentials(each) for each in value]

    @property
    def page(self) -> Path:
        """Path of the page."""
        return given_path(self.out)


class Export(Spec):
    """Which classifier is written in which format, where to, and the images that both are compared on."""

    model: TrainedModel = "digits-classifier@champion"
    to: Literal["onnx", "torch", "timm"] = Field(
        default="onnx",
        description="`onnx`: for onnxruntime and others; `torch`: a program for `torch.export.load`; `timm`: a folder "
        "for `timm.create_model`, of a model of timm with a head of one layer.",
    )
    out: str | None = Field(
        default=None, min_length=1, description="Folder to make. Empty: the model's name and the format."
    )
    check: Source | None = Field(
        default=None,
        min_length=1,
        description="Images that the export and the model have to agree on: a folder, an image, a file of paths, or "
        "`digits`; 1,000 of them at most. Empty: the validation images of a registered model that are still there, or "
        "else generated ones.",
    )
