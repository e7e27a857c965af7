"""Interface of the kinds of data (images, tables); a new kind is one folder with these classes.

A `Modality` prepares data (`Prepared`, a plain JSON handle), binds them to a spec (`TrainingData`, the input of the
recipe) and loads a trained model (`Predictor`). Specs and models store its name.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import pandas as pd
import pyarrow as pa

from unfreeze.models.errors import UserError, choose
from unfreeze.models.evaluation.comparison import Comparison
from unfreeze.models.evaluation.results import Explanation
from unfreeze.models.recipe.training_data import Prepared, TrainingData
from unfreeze.models.settings import Training
from unfreeze.models.settings.overrides import build_spec
from unfreeze.models.settings.predict import Explain, Predict
from unfreeze.models.store.model_folder import read_description
from unfreeze.models.store.workspace import Workspace
from unfreeze.models.targets import Target
from unfreeze.models.targets.predictions import Chunk


class Predictor(Protocol):
    """Trained model, loaded from its folder."""

    @property
    def target(self) -> Target:
        """Target of the predictions."""

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Predict rows in the format of `TrainingData.example`."""

    def chunks(
        self, source: Mapping[str, Any], size: int, first: int, tta: bool | None
    ) -> Generator[Chunk, None, None]:
        """Predict a listed source (see `Modality.list_source`) from row `first`, `size` rows at a time.

        `tta` None predicts as the model was evaluated.
        """


class Modality(ABC):
    """Kind of data, registered by name in `MODALITIES`."""

    name: ClassVar[str]
    spec: ClassVar[type[Training]]
    suffix: ClassVar[str]
    """Suffix of registered model names: ``classifier``."""
    rows: ClassVar[str]
    """Display name of its rows: ``images``."""
    loader: ClassVar[str]
    """Module with the `_load_pyfunc` through which MLflow loads a model folder."""
    requirements: ClassVar[Sequence[str]]
    """Packages that a served model needs."""
    chunk: ClassVar[int]
    """Rows predicted at a time."""
    key: ClassVar[pa.Field]
    """Column that names a predicted row."""

    def complete(self, params: Any) -> Any:
        """Fill in the defaults that the source provides."""
        return params

    @abstractmethod
    def check(self, params: Any) -> None:
        """Reject unknown names before anything is read."""

    @abstractmethod
    def prepare(self, params: Any, workspace: Workspace, earlier: Path | None = None) -> Prepared:
        """Read, verify, split and convert the data, reusing earlier results in the workspace.

        `earlier` is the `kept_file` of a training whose rows keep their split.
        """

    @abstractmethod
    def bind(self, params: Any, prepared: Prepared) -> TrainingData:
        """Bind the spec to its data."""

    @abstractmethod
    def look(self, params: Any, workspace: Workspace) -> list[Path]:
        """List the source's files, for their sizes and times."""

    @abstractmethod
    def load(self, folder: Path, device: str = "auto") -> Predictor:
        """Load a model folder written by `TrainingData.save`."""

    def use_onnxruntime(self, predictor: Any, folder: Path, workspace: Workspace) -> None:
        """Switch a model folder's predictor, on the CPU, to onnxruntime."""
        raise UserError("runtime: onnx is for image classifiers; omit --runtime")

    @abstractmethod
    def list_source(
        self, params: Predict, model: str, folder: Path, workspace: Workspace, without: Sequence[Path]
    ) -> dict[str, Any]:
        """List the rows to predict: ``path``, ``rows`` and ``content`` (changes with the rows)."""

    @abstractmethod
    def explain(self, params: Explain, model: str, folder: Path, workspace: Workspace) -> Explanation:
        """Explain the model in a folder on the rows of the sources."""

    @abstractmethod
    def compare(
        self, data: TrainingData, champion: "ModelVersion", challenger: "ModelVersion", margin: float = 0.0
    ) -> Comparison:
        """Compare champion and challenger on the same test rows, unused in training and selection of either.

        Without test rows, compare on the validation rows that the champion was not trained on. `margin` is the
        improvement that the p-value tests.
        """

    @abstractmethod
    def drift(self, data: TrainingData, champion: "ModelVersion", reference: pd.DataFrame) -> tuple[pd.DataFrame, str]:
        """Measure drift from the champion's data: a row per measure with a ``verdict``, and a summary line."""


class ModelVersion(NamedTuple):
    """Registered model version, as comparisons need it.

    Attributes
    ----------
    folder
        The model's.
    kept_file
        Its training data's.
    tags
        The run's.
    """

    folder: Path
    kept_file: Path
    tags: Mapping[str, str]


MODALITIES = {"images": "unfreeze.models.images.modality:Images", "tables": "unfreeze.models.tables.modality:Tables"}
"""Name -> class, imported on first use since each needs different libraries."""


def modality(name: str) -> Modality:
    """Look up a modality by name."""
    module, _, attribute = choose(MODALITIES, name, "modality").partition(":")
    found: Modality = getattr(importlib.import_module(module), attribute)()
    return found


def modality_of(params: Training) -> Modality:
    """Look up the modality of a spec."""
    return modality(params.modality)


def modality_from(kept: Mapping[str, Any], origin: str) -> Modality:
    """Look up the modality named in stored settings or a stored model description.

    Raises
    ------
    UserError
        With the origin, if no known modality is named: another release or program wrote it.
    """
    if not isinstance(kept.get("modality"), str):
        raise UserError(f"{origin} does not name a kind of data: this release did not write it; train again")
    try:
        return modality(kept["modality"])
    except UserError as error:
        raise UserError(f"{origin}: {error}") from error


def training_from(settings: Mapping[str, Any], origin: str) -> Training:
    """Build the spec from stored settings; see `modality_from`."""
    spec = modality_from(settings, origin).spec
    try:
        return build_spec(spec, settings)
    except UserError as error:
        raise UserError(f"{origin} has settings that this release does not know; train again: {error}") from error


def modality_in(folder: Path) -> Modality:
    """Look up the modality of a model folder; see `modality_from`."""
    return modality_from(read_description(folder), str(folder))


def bind(params: Training, prepared: Prepared) -> TrainingData:
    """Bind a spec to its data."""
    return modality_of(params).bind(params, prepared)
