"""What estimators of all modalities share: settings, training, prediction, evaluation, pages and files."""

import html
import shutil
import tempfile
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from sklearn.exceptions import NotFittedError
from sklearn.utils.metaestimators import available_if

from unfreeze.estimators.configured import Configured
from unfreeze.estimators.fitting import Fitted, fit, report_of
from unfreeze.estimators.page import Page
from unfreeze.models.errors import UserError
from unfreeze.models.evaluation.intervals import intervals
from unfreeze.models.evaluation.results import Findings
from unfreeze.models.evaluation.verdict import headlines
from unfreeze.models.recipe.modality import modality_in
from unfreeze.models.recipe.run import FindLr, Train
from unfreeze.models.recipe.state import Record, TrainingState
from unfreeze.models.recipe.training_data import TrainingData
from unfreeze.models.settings import Training
from unfreeze.models.settings.overrides import get_field
from unfreeze.models.settings.predict import Explain
from unfreeze.models.store.paths import data_folder, given_path
from unfreeze.models.store.sealed_files import DESCRIPTION, JUDGED
from unfreeze.models.store.workspace import Workspace
from unfreeze.models.targets.conformal import answers


class NotFitted(UserError, NotFittedError):  # type: ignore[misc]
    """The estimator has no model yet."""


class Estimator(Configured):
    """Base of `Images` and `Tables`.

    Attributes
    ----------
    metrics_ : dict of str to float
        ``SECTION/NAME`` -> value, with ``_low`` and ``_high`` for 95 % intervals.
    stages_ : list of dict
        See `unfreeze.models.recipe.run.Train.result`, one per stage.
    classes_ : numpy.ndarray
        The C classes or labels in the order of probabilities; absent if numbers are predicted.
    run_id_ : str
        MLflow's id of a tracked training; absent otherwise.
    """

    _model: Any = None
    _folder: "Path | tempfile.TemporaryDirectory[str] | None" = None
    _fitted: Fitted | None = None

    @property
    def _workspace(self) -> Workspace:
        return Workspace(data_folder())

    @abstractmethod
    def _given(self, X: Any, y: Any) -> dict[str, Any]:
        """Settings by dotted name of labelled rows; rows in memory are written to a file."""

    def _source(self, X: Any, y: Any) -> Training:
        """Settings of a training on these rows, or on those of the constructor."""
        if X is None:
            X = self.source
        config = dict(self._config())
        if X is None and "data.source" not in config and get_field(config, "data.source") is None:
            raise UserError(f"{type(self).__name__}: there is nothing to train on; give {self._taken}")
        return self._spec(self._given(X, y) if X is not None else {})

    _taken: ClassVar[str]
    """Sources in words."""

    def _data(self, X: Any = None, y: Any = None) -> TrainingData:
        """Prepared data of a training."""
        spec = self._source(X, y)
        self._modality.check(spec)
        return self._modality.bind(spec, self._modality.prepare(spec, self._workspace))

    # --- training

    def fit(self, X: Any = None, y: Any = None) -> Self:
        """Prepare the data, run the recipe, and evaluate on the validation rows, and on the test rows if any.

        Parameters
        ----------
        X
            Rows to train on; by default the constructor's `source`.
        y
            Their labels or values, unless `X` has them.

        Raises
        ------
        UserError
            If a setting or the data cannot be used.
        """
        if self.tracked:
            return self._fit_tracked(self._source(X, y))._finish(y)
        folder = tempfile.TemporaryDirectory(prefix="unfreeze-model-")
        fitted = fit(self._data(X, y), self._workspace, Path(folder.name))
        self._forget()
        self._fitted, self._folder = fitted, folder
        self.metrics_, self.stages_ = fitted.metrics, fitted.stages
        return self._finish(y)

    def _fit_tracked(self, spec: Training) -> Self:
        """Train as the command line does: tracked by MLflow, shown by Prefect, registered as a model."""
        from unfreeze.flows.running import prefect_starting, state_of

        with prefect_starting():
            from unfreeze.flows.train_images import FLOWS
        result: dict[str, Any] = state_of(FLOWS[self.kind], spec).result(_sync=True)  # type: ignore[call-overload]
        self._forget()
        self.run_id_, self.metrics_, self.stages_ = result["run_id"], result["metrics"], result["stages"]
        if "version" in result["model"]:
            self._folder = model_folder(f"{result['model']['name']}/{result['model']['version']}")
        return self

    def _forget(self) -> None:
        """Forget an earlier training."""
        self._model = self._folder = self._fitted = None
        for name in [name for name in vars(self) if name.endswith("_") and not name.startswith("_")]:
            delattr(self, name)

    def _finish(self, y: Any = None) -> Self:
        if self._folder is not None and self._predictor.target.classes:
            given = (
                {str(each): each for each in np.unique(y)} if self._predictor.target.exclusive and y is not None else {}
            )
            self.classes_ = np.array([given.get(str(each), each) for each in self._predictor.target.classes])
        return self

    def lr_find(self, X: Any = None, y: Any = None, *, stage: str | None = None) -> Any:
        """Run the learning-rate finder on a stage, from initial weights.

        Parameters
        ----------
        X, y
            See `fit`.
        stage
            Name of the stage; by default the first that has a learning rate.

        Returns
        -------
        LrCurve
            ``plot()`` shows it, ``suggestions()`` reads it.
        """
        data = self._data(X, y)
        names = [each.name for each in data.params.recipe]
        with_lr = [each.name for each in data.params.recipe if not each.regression]
        if not with_lr or (stage is not None and stage not in with_lr):
            raise UserError(f"stage: {stage!r} is not one of the recipe's that have an lr: {', '.join(with_lr)}")
        position = names.index(stage or with_lr[0])
        state = TrainingState(data, self._workspace, Record())
        for before in range(position):
            if data.params.recipe[before].regression:
                for _ in Train(state, before).run():
                    pass
        return FindLr(state, position).run()

    # --- prediction

    @property
    def _predictor(self) -> Any:
        if self._folder is None:
            if hasattr(self, "run_id_"):
                raise UserError(f"run {self.run_id_} has no registered model yet; `unfreeze sync` registers it")
            raise NotFitted("the model is not fitted yet; call fit() first")
        if self._model is None:
            self._model = self._modality.load(Path(self._model_folder), self.device or "auto")
        return self._model

    @property
    def _model_folder(self) -> str:
        folder = self._folder
        return folder.name if isinstance(folder, tempfile.TemporaryDirectory) else str(folder)

    def __sklearn_is_fitted__(self) -> bool:
        """Whether there is a model."""
        return self._folder is not None

    @abstractmethod
    def _results(self, X: Any) -> tuple[np.ndarray, pd.Index]:
        """Probabilities (N, C) or values (N, T) float64 of rows, and an index that names them."""

    @abstractmethod
    def _labelled(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """Results of labelled rows, and their targets in the scale of `Target.actual`."""

    def predict(self, X: Any) -> np.ndarray:
        """Predict rows.

        Returns
        -------
        numpy.ndarray
            (N,) classes, lists of labels (dtype object) or values; (N, T) values of several targets.

        Raises
        ------
        UserError
            If the model is not fitted, or the rows cannot be read.
        """
        target, results = self._predictor.target, self._results(X)[0]
        if target.exclusive:
            return np.asarray(self.classes_[results.argmax(1)])
        if target.classes:
            return np.array([*target.frame(results)["labels"], None], dtype=object)[:-1]  # a list stays one entry
        return results[:, 0] if results.shape[1] == 1 else results

    def _has_classes(self) -> bool:
        """Whether the model predicts classes, as far as is known before the fit."""
        if self._folder is None or self._predictor.target.classes:
            return True
        raise UserError("the model predicts numbers; use predict, or predict_frame(X, coverage=0.9)")

    @available_if(_has_classes)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> np.ndarray:
        """Predict probabilities (N, C) float64 in the order of ``classes_``; absent if numbers are predicted."""
        return self._results(X)[0]

    def predict_frame(self, X: Any, coverage: float | None = None) -> pd.DataFrame:
        """Predict rows as a frame, indexed by the images' paths or the frame's index.

        Parameters
        ----------
        X
            See `predict`.
        coverage
            Such as 0.9: also return prediction sets or intervals that hold the truth in that share of rows, see
            `unfreeze.models.targets.conformal`.

        Returns
        -------
        pandas.DataFrame
            ``class``, ``probability`` and ``probabilities``; or ``labels`` and ``probabilities``; or a column per
            predicted number.
        """
        if coverage is not None and not isinstance(coverage, int | float):
            raise UserError(f"coverage: given {coverage!r}; give a share such as 0.9")
        results, index = self._results(X)
        return answers(self._predictor.target, results, self._predictor.scores, {"coverage": coverage}).set_axis(index)

    def score(self, X: Any, y: Any = None) -> float:
        """Score labelled rows: accuracy of classes, share of rows with all labels right, or R² of numbers."""
        target, (results, actual) = self._predictor.target, self._labelled(X, y)
        name = "accuracy" if target.classes else "r2"
        return float(target.metrics([name])[name](results, actual))

    def evaluate(self, X: Any, y: Any = None) -> pd.DataFrame:
        """Evaluate on other labelled rows.

        Parameters
        ----------
        X, y
            See `fit`.

        Returns
        -------
        pandas.DataFrame
            ``value``, and ``low`` and ``high`` of its 95 % interval, of the loss and every metric (the index).
        """
        target, (results, actual) = self._predictor.target, self._labelled(X, y)
        metrics = {"loss": target.loss_of, **target.metrics(self.spec.metrics)}
        ends = intervals(metrics, results, actual)
        rows = {name: (metric(results, actual), *ends[name]) for name, metric in metrics.items()}
        return pd.DataFrame.from_dict(rows, "index", columns=["value", "low", "high"]).rename_axis("metric")

    # --- pages

    def explain(self, X: Any, out: str | Path = "explain.html") -> Page:
        """Explain predictions on a page: Grad-CAM for images, permutation importance and SHAP for tables.

        Parameters
        ----------
        X
            A few images, or rows of a table (with their targets for the importance of columns).
        out
            File to write.
        """
        from unfreeze.tasks.report.page import render_explanation

        _ = self._predictor  # raises if there is none
        source = self._unlabelled(X)
        params = Explain(model="model", source=[source], out=str(out), device=self.device or "auto")
        found = self._modality.explain(params, "model", Path(self._model_folder), self._workspace)
        for line in found.notices:
            self._workspace.notice(line)
        return Page.write(out, render_explanation(found, f"Predictions of {type(self).__name__}", [Path(source).name]))

    @abstractmethod
    def _unlabelled(self, X: Any) -> str:
        """Path of rows, which need no labels; those in memory are written to a file."""

    def report(self, out: str | Path = "report.html") -> Page:
        """Write the training's report: verdict, worst errors, likely label errors, curves, all settings."""
        if hasattr(self, "run_id_"):
            from unfreeze.tasks.report.publish import report_to_file

            report_to_file(self.run_id_, Path(out))
            return Page(out)
        if self._fitted is None:
            _ = self._predictor
            raise UserError("the training of a loaded model is not in this process; `unfreeze report` shows a run's")
        return Page.write(out, report_of(self._fitted))

    @property
    def findings_(self) -> dict[str, Findings]:
        """Section -> tables and figures of an untracked training."""
        return {} if self._fitted is None else self._fitted.findings

    def _repr_html_(self) -> str:
        found = headlines(self.metrics_) if hasattr(self, "metrics_") else []
        shown = pd.DataFrame([each._asdict() for each in found]).to_html(index=False, float_format="{:.4g}".format)
        return f"<code>{html.escape(repr(self))}</code>{shown if found else ''}"

    # --- files

    def save(self, folder: str | Path) -> Path:
        """Write the model to a folder for `load_model`, `unfreeze predict` and MLflow.

        Raises
        ------
        UserError
            If it is not fitted, or the folder cannot be written.
        """
        _ = self._predictor  # raises if there is none
        target = given_path(folder)
        try:
            shutil.rmtree(target / JUDGED, ignore_errors=True)  # an earlier model's
            return Path(shutil.copytree(self._model_folder, target, dirs_exist_ok=True))
        except OSError as error:
            raise UserError(f"folder: cannot write {folder}: {error.strerror or error}") from error

    @classmethod
    def load(cls, model: str | Path, device: str | None = None) -> Self:
        """Load a model; see `load_model`."""
        folder = model_folder(model)
        if (found := modality_in(folder).name) != cls.kind:
            raise UserError(f"{model} is a model of {found}; use unfreeze.load_model")
        loaded: Self = cls(device=device)
        loaded._folder, loaded.metrics_, loaded.stages_ = folder, {}, []
        return loaded._finish()

    def __getstate__(self) -> dict[str, Any]:
        """State for copies and pickles: the model's files, without the training's data and figures."""
        state: dict[str, Any] = {**super().__getstate__(), "_model": None, "_fitted": None}
        if self._folder is not None:
            root = Path(self._model_folder)
            files = [each for each in root.rglob("*") if each.is_file()]
            state["_folder"] = {str(each.relative_to(root)): each.read_bytes() for each in files}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the state; the model's files go to a temporary folder."""
        if state["_folder"] is not None:
            folder = tempfile.TemporaryDirectory(prefix="unfreeze-model-")
            for name, content in state["_folder"].items():
                place = Path(folder.name, name)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content)
            state = {**state, "_folder": folder}
        super().__setstate__(state)


def model_folder(model: str | Path) -> Path:
    """Folder of a model, by its path or its name in the registry."""
    if isinstance(model, Path) or model.startswith((".", "/", "~")) or (given_path(model) / DESCRIPTION).is_file():
        return given_path(model)
    from unfreeze.tasks.predictions.source import find_model_or_folder

    return Path(find_model_or_folder(model)["folder"])
