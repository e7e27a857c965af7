"""Settings of an explanation."""

from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from unfreeze.models.paths import given_path
from unfreeze.models.specs.training import Device, Spec


class Explain(Spec):
    """Which model is explained, on what, and the page to write."""

    model: str = Field(
        default="digits-classifier@champion",
        min_length=1,
        description="A registered model: `NAME@ALIAS`, `NAME/VERSION`, or `NAME` for its champion; or a folder.",
    )
    source: list[str] = Field(
        default=["digits"],
        min_length=1,
        description="Images, folders of images or `digits`; or the one file of a table's rows, with their targets.",
    )
    out: str = Field(default="explain.html", min_length=1, description="Page to write.")
    layers: list[str] = Field(
        default=[],
        description="Layers of a classifier whose activation maps are shown, such as `layer1,layer4`. Empty: three "
        "blocks spread over the body.",
    )
    device: Device = "auto"

    @field_validator("layers", mode="before")
    @classmethod
    def _names_may_be_separated_by_commas(cls, value: Any) -> Any:
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            return value
        return [name.strip() for text in texts for name in text.split(",") if name.strip()]

    @property
    def page(self) -> Path:
        """Path of the page."""
        return given_path(self.out)
