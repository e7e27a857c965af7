"""Estimator of table models."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Never, Self

import numpy as np
import pandas as pd
from sklearn.utils import ClassifierTags, RegressorTags, Tags

from unfreeze.estimators.base import Estimator
from unfreeze.estimators.configured import Config
from unfreeze.estimators.in_memory import arrow_table, is_frame, keep, labels_in
from unfreeze.models.errors import UserError
from unfreeze.models.settings.overrides import get_field
from unfreeze.models.settings.predict import Predict
from unfreeze.models.settings.tables import TableDataSpec
from unfreeze.models.tables.reading.flights import FLIGHTS
from unfreeze.models.tables.reading.frames import open_table, to_frame

TARGET = "target"
"""Name of values `y` that have none."""


class Tables(Estimator):
    """Network and gradient-boosted trees for the rows of a table, the better or both.

    Parameters
    ----------
    source
        What `fit` trains on by default: a file (CSV, Parquet, a spreadsheet), a URL, or a frame.
    target
        Column to predict, or several columns of numbers.
    date
        Columns of dates; others are found.
    group
        Columns that name a series, such as the store.
    drop
        Columns to exclude.
    join
        Files to join, many rows to one.
    where
        Conditions on the rows: ``"Open == 1"``.
    task
        ``"classification"`` or ``"regression"``; by default found from the target's values.
    log_target
        Train on log(1 + target).
    split
        How validation rows are chosen: ``"random"``, ``"last_days"``, ...
    test_fraction
        Share of rows that is set aside as test rows.
    trees
        Whether to fit trees beside the network.
    seed
        Seed of weights and order.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
    config
        Other settings: nested, by dotted name (``{"model.width": 64}``), a spec, or a settings file.
    tracked
        Whether `fit` is a run: tracked by MLflow, shown by Prefect, registered as a model.

    Examples
    --------
    >>> from unfreeze import Tables
    >>> sales = Tables("sales.csv", target="Sales", date="Date").fit()
    >>> row = {"Store": 1, "Date": "2015-03-02", "Promo": 1}
    >>> sales.predict(row).round(-2).tolist()
    [200.0]
    >>> list(sales.predict_frame(row, coverage=0.9))
    ['Sales', 'Sales_low', 'Sales_high']
    >>> sales.score("sales.csv") > 0.9
    True
    >>> sales.evaluate("sales.csv").index.tolist()
    ['loss', 'rmspe', 'rmse', 'mae', 'r2']
    """

    kind = "tables"
    keywords: ClassVar[Mapping[str, str]] = {
        **{name: f"data.{name}" for name in ("target", "date", "group", "drop", "join", "where", "task")},
        **{name: f"data.{name}" for name in ("log_target", "split", "test_fraction")},
        **{name: name for name in ("trees", "seed", "device")},
    }
    _taken = "a file or a frame, or columns and values: fit('sales.csv'), fit(X, y)"

    def __init__(
        self,
        source: Any = None,
        *,
        target: str | Sequence[str] | None = None,
        date: str | Sequence[str] | None = None,
        group: str | Sequence[str] | None = None,
        drop: str | Sequence[str] | None = None,
        join: str | Sequence[str] | None = None,
        where: str | Sequence[str] | None = None,
        task: Literal["auto", "regression", "classification"] | None = None,
        log_target: bool | None = None,
        split: Literal["auto", "last_days", "last_rows", "random", "group", "column"] | None = None,
        test_fraction: float | None = None,
        trees: bool | None = None,
        seed: int | None = None,
        device: str | None = None,
        config: Config | None = None,
        tracked: bool = False,
        **unknown: Never,
    ) -> None:
        self._keep(locals())

    def __sklearn_tags__(self) -> Tags:
        """Describe the estimator to scikit-learn; its type is known if `task` is given."""
        tags, task = super().__sklearn_tags__(), self.spec.data.task  # type: ignore[attr-defined]
        tags.input_tags.allow_nan = tags.input_tags.string = tags.input_tags.categorical = True
        tags.target_tags.required = True
        if task == "classification":
            tags.estimator_type, tags.classifier_tags = "classifier", ClassifierTags()
        elif task == "regression":
            tags.estimator_type, tags.regressor_tags = "regressor", RegressorTags()
        return tags

    def fit(self, X: Any = None, y: Any = None) -> Self:
        """See `Estimator.fit`; ``n_features_in_`` and ``feature_names_in_`` are of rows in memory."""
        super().fit(X, y)
        if X is not None and not isinstance(X, str | Path):
            frame = self._frame(X)
            self.n_features_in_ = frame.shape[1]
            if is_frame(X):
                self.feature_names_in_ = np.array(frame.columns, dtype=object)
        return self

    def _given(self, X: Any, y: Any) -> dict[str, Any]:
        if isinstance(X, str | Path):
            if y is not None:
                raise UserError(f"y: {str(X)!r} has its values in a column; name it: target='...'")
            self._require_target(str(X))
            return {"data.source": str(X)}
        frame = self._frame(X)
        if y is None:
            self._require_target(f"the frame with {', '.join(map(str, frame.columns[:10]))}")
            return {"data.source": str(keep(arrow_table(frame), "table", self._workspace))}
        values = self._values(y, frame)
        both = pd.concat([frame, values], axis=1)
        source = str(keep(arrow_table(both), "table", self._workspace))
        given = {"data.source": source, "data.target": list(values)}
        data = self._spec(given).data
        assert isinstance(data, TableDataSpec)
        # Rows that come as X and y are independent by convention, and often sorted by y.
        return given if data.split != "auto" or data.date else {**given, "data.split": "random"}

    def _require_target(self, source: str) -> None:
        config = dict(self._config())
        named = self.target, config.get("data.target"), get_field(config, "data.target")
        if source != FLIGHTS and named == (None, None, None):
            raise UserError(f"target: name the column of {source} to predict, such as Tables(target='price')")

    def _frame(self, X: Any) -> pd.DataFrame:
        """Rows in memory as a frame with names of columns that are text."""
        if hasattr(X, "toarray"):
            raise UserError("rows: sparse input is not supported; give X.toarray()")
        if isinstance(X, pd.DataFrame):
            return X.rename(columns=str)
        if is_frame(X):
            frame: pd.DataFrame = arrow_table(X).to_pandas()
            return frame
        if isinstance(X, Mapping):
            return pd.DataFrame([X])
        if isinstance(X, Sequence) and not isinstance(X, str | bytes) and X and isinstance(X[0], Mapping):
            return pd.DataFrame(list(X))
        if isinstance(X, Sequence) or hasattr(X, "__array__"):
            array = np.asarray(X)
            if array.ndim == 2:
                return pd.DataFrame(array).add_prefix("x")
            if hasattr(X, "__array__"):
                raise UserError(f"rows: given an array of shape {array.shape}. Reshape your data to (N, K)")
        raise UserError(
            f"rows: given a {type(X).__name__}; give a frame, an array (N, K), a mapping of columns to values as one "
            "row, or a file"
        )

    def _values(self, y: Any, frame: pd.DataFrame) -> pd.DataFrame:
        """Values `y` as columns, named by themselves or by `target`."""
        if isinstance(y, pd.DataFrame) or (is_frame(y) and not hasattr(y, "to_list")):
            values = self._frame(y).set_axis(frame.index)
        elif (columns := np.asarray(y)).ndim == 2 and columns.shape[1] > 1:
            labels_in(columns[:, 0], len(frame))
            values = pd.DataFrame(columns, frame.index).add_prefix(f"{TARGET}_")
        else:
            flat = y if columns.ndim < 2 else columns[:, 0]
            name = str(getattr(y, "name", None) or TARGET)
            values = pd.DataFrame({name: labels_in(flat, len(frame))}, frame.index)
        if clash := [name for name in values if name in frame]:
            raise UserError(f"y: the rows have a column {clash[0]!r} as well; drop it, or give only fit(frame)")
        return values

    def _rows(self, X: Any) -> tuple[pd.DataFrame, pd.Index]:
        """Rows to predict, and their index."""
        _ = self._predictor  # raises if there is none
        if isinstance(X, str | Path):
            folder = Path(self._model_folder)
            listed = self._modality.list_source(Predict(source=str(X)), "the model", folder, self._workspace, ())
            frame = to_frame(open_table(Path(listed["path"])))
        else:
            frame = self._frame(X)
            expected = getattr(self, "n_features_in_", frame.shape[1])
            if hasattr(X, "__array__") and not is_frame(X) and frame.shape[1] != expected:
                raise UserError(f"rows: X has {frame.shape[1]} features, but Tables is expecting {expected} features")
        if frame.empty:
            raise UserError("rows: there are none; give at least one row")
        return frame.reset_index(drop=True), frame.index

    def _results(self, X: Any) -> tuple[np.ndarray, pd.Index]:
        frame, index = self._rows(X)
        return self._predictor.predictions(frame), index

    def _labelled(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        frame, _ = self._rows(X)
        if y is not None:
            values = self._values(y, frame)
            frame = frame.assign(**{name: values.iloc[:, k] for k, name in enumerate(self._predictor.target_names)})
        return self._predictor.predictions(frame), self._predictor.actual(frame)

    def _unlabelled(self, X: Any) -> str:
        frame = None if isinstance(X, str | Path) else arrow_table(self._frame(X))
        return str(X) if frame is None else str(keep(frame, "table", self._workspace))
