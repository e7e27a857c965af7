"""Estimators for notebooks, one per modality, without servers; tracked flows use the same specs."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import pandas as pd

from unfreeze.models.errors import UserError
from unfreeze.models.evaluation.results import Findings
from unfreeze.models.recipe.modality import Modality, Predictor, modality, modality_in
from unfreeze.models.recipe.run import Evaluate, FindLr, SelectModel, Train, run_recipe
from unfreeze.models.recipe.state import Record, TrainingState
from unfreeze.models.recipe.training_data import Candidate, TrainingData
from unfreeze.models.settings import Training
from unfreeze.models.settings.overrides import build_spec, dotted
from unfreeze.models.store.paths import given_path
from unfreeze.models.store.workspace import Workspace
from unfreeze.models.training.suggestions import LrCurve


class Estimator:
    """Train on one source: ``fit()``, then ``predict(rows)``, ``metrics`` and ``save(folder)``.

    Parameters
    ----------
    source
        See `data.source` of the spec.
    config
        Nested settings, as in a settings file.
    workspace
        Folder of derived files; by default ``.unfreeze`` in the working folder, shared with the command line.
    **settings
        Settings by dotted name with ``__`` for the dots (``model__backbone="resnet34"``), or by their last part if it
        is unique (``backbone="resnet34"``).

    Attributes
    ----------
    spec
        The complete spec.
    metrics
        ``SECTION/NAME`` -> value, once fitted.
    stages
        See `unfreeze.models.recipe.run.Train.result`, one per stage.
    findings
        Section -> its evaluation's tables and figures.
    """

    kind: str

    def __init__(
        self,
        source: str | Path,
        config: Mapping[str, Any] | None = None,
        workspace: str | Path = ".unfreeze",
        **settings: Any,
    ) -> None:
        self._modality: Modality = modality(self.kind)
        overrides = dotted(self._modality.spec, settings)
        spec = build_spec(self._modality.spec, config, {"data.source": str(source), **overrides})
        self.spec: Training = self._modality.complete(spec)
        self.metrics: dict[str, float] = {}
        self.stages: list[dict[str, Any]] = []
        self.findings: dict[str, Findings] = {}
        self._workspace = Workspace(given_path(workspace).absolute())
        self._trained: tuple[TrainingData, Candidate] | None = None
        self._predictor: Predictor | None = None

    def fit(self) -> Self:
        """Prepare the data, run the recipe and evaluate on the validation rows, and on the test rows if any."""
        data = self._data()
        for step in run_recipe(data, self._workspace):
            if isinstance(step, Train):
                for event in step.run():
                    if event.kind == "epoch":
                        self._workspace.notice(f"{step.stage.name}: epoch {event.epoch}: {_shown(event.metrics)}")
                self.stages.append(step.result)
            elif isinstance(step, SelectModel | Evaluate):
                section = step.section if isinstance(step, Evaluate) else "choice"
                self.findings[section] = step.run()
                self.findings[section].complete()
                self.metrics |= self.findings[section].metrics
            else:
                step.run()
        self._trained, self._predictor = (data, step.state.kept), None
        return self

    def find_lr(self, stage: int = 0) -> LrCurve:
        """Run the learning-rate finder on a stage of the recipe, from initial weights."""
        return FindLr(TrainingState(self._data(), self._workspace, Record()), stage).run()

    def predict(self, rows: Any, coverage: float | None = None) -> pd.DataFrame:
        """Predict rows.

        Parameters
        ----------
        rows
            Images: a path, the bytes of an encoded image, or a list of either. Tables: a frame with the raw columns.
        coverage
            Such as 0.9: also return prediction sets or intervals that hold the truth in that share of rows, see
            `targets.conformal`.

        Returns
        -------
        pd.DataFrame
            One row per input row: ``class``, ``probability`` and ``probabilities``; or ``labels`` and
            ``probabilities``; or a column per predicted number.

        Raises
        ------
        UserError
            If the model is not fitted, or the rows have the wrong type.
        """
        if self._predictor is None:
            with tempfile.TemporaryDirectory() as folder:
                self._predictor = load_model(self.save(folder))
        frame = rows if isinstance(rows, pd.DataFrame) else self._frame(rows)
        return self._predictor.predict(frame, {"coverage": coverage})

    def _frame(self, rows: Any) -> pd.DataFrame:
        """Convert the rows given to `predict` to a frame for the predictor."""
        raise UserError(f"rows: give a pandas frame with the columns of the table, not {type(rows).__name__}")

    def save(self, folder: str | Path) -> Path:
        """Write the model to a folder for `load_model`."""
        if self._trained is None:
            raise UserError("the model is not fitted yet; call fit() first")
        data, candidate = self._trained
        data.save(Path(folder), candidate)
        return Path(folder)

    def _data(self) -> TrainingData:
        self._modality.check(self.spec)
        return self._modality.bind(self.spec, self._modality.prepare(self.spec, self._workspace))


class Images(Estimator):
    """Image classifier; see `Estimator`.

    Examples
    --------
    >>> from unfreeze import Images
    >>> photos = Images("photos", backbone="timm/test_resnet", weights="none", size=16).fit()
    >>> photos.metrics["valid/accuracy"] > 0.5
    True
    >>> photos.predict("new.jpg")["class"].tolist()
    ['across']
    """

    kind = "images"

    def _frame(self, rows: Any) -> pd.DataFrame:
        images = [rows] if isinstance(rows, str | bytes | Path) else rows
        return pd.DataFrame({"image": [_encoded(each) for each in images]})


class Tables(Estimator):
    """Network and gradient-boosted trees for tables; see `Estimator`.

    Examples
    --------
    >>> from unfreeze import Tables
    >>> sales = Tables("sales.csv", target=["Sales"], date=["Date"]).fit()
    >>> sales.predict(pd.DataFrame({"Store": [1], "Date": ["2015-03-02"], "Promo": [1]}))["Sales"].round(-2).tolist()
    [200.0]
    """

    kind = "tables"


def load_model(folder: str | Path, device: str = "auto") -> Predictor:
    """Load a model folder for prediction.

    Parameters
    ----------
    folder
        Written by `Estimator.save`, or of a registered model.
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Raises
    ------
    UserError
        If it is not a model folder.

    Examples
    --------
    >>> from unfreeze import Tables, load_model
    >>> folder = Tables("sales.csv", target=["Sales"], date=["Date"]).fit().save("sales-model")
    >>> rows = pd.DataFrame({"Store": [3], "Date": ["2015-03-02"], "Promo": [0]})
    >>> load_model(folder).predict(rows)["Sales"].round(-2).tolist()
    [300.0]
    """
    return modality_in(Path(folder)).load(Path(folder), device)


def _encoded(image: Any) -> bytes:
    if isinstance(image, bytes):
        return image
    if Path(image).is_dir():
        raise UserError(f"rows: {str(image)!r} is a folder; give a list of its images")
    try:
        return Path(image).read_bytes()
    except OSError as error:
        raise UserError(f"rows: {str(image)!r} cannot be read: {error.strerror}") from error


def _shown(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
