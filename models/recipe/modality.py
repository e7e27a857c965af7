"""Interface of the kinds of data, images and tables; a new kind is one folder with these classes.

A `Modality` prepares data (`Prepared`, a handle of plain JSON), binds them to a spec (`TrainingData`, what the recipe
trains on) and loads a trained model (`Predictor`). Its name is kept in specs and models.
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
    """A trained model, loaded from its folder."""

    @property
    def target(self) -> Target:
        """What is predicted."""

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Answers for rows as `TrainingData.example` shows them."""

    def chunks(
        self, source: Mapping[str, Any], size: int, first: int, tta: bool | None
    ) -> Generator[Chunk, None, None]:
        """Predict a listed source (see `Modality.list_source`) from row `first`, `size` rows at a time.

        `tta` is None for what the model was evaluated with.
        """


class Modality(ABC):
    """One kind of data; registered by name in `MODALITIES`."""

    name: ClassVar[str]
    spec: ClassVar[type[Training]]
    suffix: ClassVar[str]
    """Of the names of registered models: ``classifier``."""
    rows: ClassVar[str]
    """What its rows are called: ``images``."""
    loader: ClassVar[str]
    """Module with `_load_pyfunc`, by which MLflow loads a model folder."""
    requirements: ClassVar[Sequence[str]]
    """Packages that a served model needs."""
    chunk: ClassVar[int]
    """Rows predicted at a time."""
    key: ClassVar[pa.Field]
    """Column that names a predicted row."""

    def complete(self, params: Any) -> Any:
        """The spec with the defaults that its source provides."""
        return params

    @abstractmethod
    def check(self, params: Any) -> None:
        """Reject, before anything is read, names that do not exist."""

    @abstractmethod
    def prepare(self, params: Any, workspace: Workspace, earlier: Path | None = None) -> Prepared:
        """Read, verify, split and convert the data; what was prepared before is taken from the workspace.

        `earlier` is the `kept_file` of a training whose rows stay on their side of the split.
        """

    @abstractmethod
    def bind(self, params: Any, prepared: Prepared) -> TrainingData:
        """The spec bound to its data."""

    @abstractmethod
    def look(self, params: Any, workspace: Workspace) -> list[Path]:
        """Files of the source, for their sizes and times."""

    @abstractmethod
    def load(self, folder: Path, device: str = "auto") -> Predictor:
        """The model in a folder that `TrainingData.save` wrote."""

    def use_onnxruntime(self, predictor: Any, folder: Path, workspace: Workspace) -> None:
        """Let the predictor of a model folder, which is on the CPU, run its networks by onnxruntime."""
        raise UserError("runtime: onnx is for image classifiers; omit --runtime")

    @abstractmethod
    def list_source(
        self, params: Predict, model: str, folder: Path, workspace: Workspace, without: Sequence[Path]
    ) -> dict[str, Any]:
        """List what to predict: ``path``, ``rows`` and ``content`` (changes with them)."""

    @abstractmethod
    def explain(self, params: Explain, model: str, folder: Path, workspace: Workspace) -> Explanation:
        """What the model in a folder looks at, on the rows of the sources."""

    @abstractmethod
    def compare(
        self, data: TrainingData, champion: "ModelVersion", challenger: "ModelVersion", margin: float = 0.0
    ) -> Comparison:
        """Champion against challenger on the same test rows, which neither was trained or chosen on.

        Without test rows on the validation rows that the champion was not trained on. `margin` is the improvement that
        the p-value is about.
        """

    @abstractmethod
    def drift(self, data: TrainingData, champion: "ModelVersion", reference: pd.DataFrame) -> tuple[pd.DataFrame, str]:
        """How the data differ from the champion's, a row per measure with a ``verdict``; and a line about it."""


class ModelVersion(NamedTuple):
    """A registered version, as far as comparisons need it.

    Attributes
    ----------
    folder
        Of the model.
    kept_file
        That of its training data.
    tags
        Of the run.
    """

    folder: Path
    kept_file: Path
    tags: Mapping[str, str]


MODALITIES = {"images": "unfreeze.models.images.modality:Images", "tables": "unfreeze.models.tables.modality:Tables"}
"""Name -> class, imported on first use: each needs other libraries."""


def modality(name: str) -> Modality:
    """The modality of that name."""
    module, _, attribute = choose(MODALITIES, name, "modality").partition(":")
    found: Modality = getattr(importlib.import_module(module), attribute)()
    return found


def modality_of(params: Training) -> Modality:
    """The modality of a spec."""
    return modality(params.modality)


def modality_from(kept: Mapping[str, Any], origin: str) -> Modality:
    """The modality that stored settings, or a stored description of a model, name.

    Raises
    ------
    UserError
        If they name none, as those of another release or program; names their origin.
    """
    if not isinstance(kept.get("modality"), str):
        raise UserError(f"{origin} does not name a kind of data: this release did not write it; train again")
    try:
        return modality(kept["modality"])
    except UserError as error:
        raise UserError(f"{origin}: {error}") from error


def training_from(settings: Mapping[str, Any], origin: str) -> Training:
    """The spec of stored settings; see `modality_from`."""
    spec = modality_from(settings, origin).spec
    try:
        return build_spec(spec, settings)
    except UserError as error:
        raise UserError(f"{origin} has settings that this release does not know; train again: {error}") from error


def modality_in(folder: Path) -> Modality:
    """The modality of a model folder; see `modality_from`."""
    return modality_from(read_description(folder), str(folder))


def bind(params: Training, prepared: Prepared) -> TrainingData:
    """The spec bound to its data."""
    return modality_of(params).bind(params, prepared)
