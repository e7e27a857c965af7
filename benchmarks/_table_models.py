"""What `benchmarks.tables` compares: ours and the usual libraries, each with its defaults and early stopping.

All of them fit the same training rows and stop by the same validation rows. Texts are categories; of ours everything is
as a user of the command line has it.
"""

import contextlib
import io
import os
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from unfreeze.models.recipe.modality import modality
from unfreeze.models.recipe.run import Train, run_recipe
from unfreeze.models.settings.overrides import build_spec
from unfreeze.models.settings.tables import TrainTables
from unfreeze.models.store.workspace import Workspace

AUTOGLUON = os.environ.get("AUTOGLUON_PYTHON", "")
"""Interpreter of an environment that has AutoGluon."""
ROUNDS, PATIENCE, RATE = 3000, 50, 0.05
"""Trees at most, how many may fail to help, and their learning rate where the library's own is not made for that."""


@dataclass(frozen=True)
class Task:
    """A table and the rows of each split.

    Attributes
    ----------
    frame
        Features (N, F); texts are categories of the training rows.
    raw
        The same as they were read, and ``target`` in its own scale.
    targets
        Class numbers (N,) int64 or values (N,) float64, logarithms if `log`.
    classes
        How many; 0 for numbers.
    date
        Column of `raw` that the rows are split by, if any: the newest ones validate, and those after them test.
    """

    frame: pd.DataFrame
    raw: pd.DataFrame
    targets: np.ndarray
    classes: int
    log: bool
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    date: str = ""

    @property
    def known(self) -> np.ndarray:
        """All rows but those that test, ascending."""
        return np.sort(np.concatenate([self.train, self.valid]))

    def rows(self, rows: np.ndarray) -> tuple[pd.DataFrame, np.ndarray]:
        """Features and targets of some rows."""
        return self.frame.iloc[rows].reset_index(drop=True), self.targets[rows]

    @property
    def categories(self) -> list[str]:
        """Names of the columns of categories."""
        return [str(name) for name in self.frame if isinstance(self.frame[name].dtype, pd.CategoricalDtype)]


def ours(task: Task, seed: int, **changes: object) -> np.ndarray:
    """`unfreeze train-table` with its defaults, and the model that it keeps."""
    split = pd.Series("", index=task.raw.index)
    split.iloc[task.train], split.iloc[task.valid] = "train", "valid"
    in_time = {"data.date": [task.date]}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "table.parquet"
        known = task.raw if task.date else task.raw.assign(split=split)
        known.iloc[task.known].to_parquet(source, index=False)
        settings = {
            "data.source": str(source),
            "data.target": ["target"],
            "data.task": "classification" if task.classes else "regression",
            "data.log_target": task.log,
            **(in_time if task.date else {"data.split": "column", "data.split_column": "split"}),
            "seed": seed,
            "device": "cpu",
            **changes,
        }
        params, workspace, kind = build_spec(TrainTables, {}, settings), Workspace(Path(folder)), modality("tables")
        data = kind.bind(params, kind.prepare(params, workspace))
        for step in run_recipe(data, workspace):
            for _ in step.run() if isinstance(step, Train) else [step.run()]:
                pass
        data.save(Path(folder) / "model", step.state.kept)
        answers = kind.load(Path(folder) / "model", "cpu").predict(task.raw.iloc[task.test].drop(columns="target"))
    if task.classes:
        return np.stack(answers["probabilities"].to_list())
    values = answers["target"].to_numpy(dtype=np.float64)
    return np.log1p(np.maximum(values, 0)) if task.log else values


def lightgbm(task: Task, seed: int) -> np.ndarray:
    """LightGBM."""
    import lightgbm as library

    kind = library.LGBMClassifier if task.classes else library.LGBMRegressor
    model = kind(n_estimators=ROUNDS, learning_rate=RATE, random_state=seed, n_jobs=1, verbose=-1)
    stop = library.early_stopping(PATIENCE, verbose=False)
    model.fit(*task.rows(task.train), eval_set=[task.rows(task.valid)], callbacks=[stop])
    return _predict(model, task)


def xgboost(task: Task, seed: int) -> np.ndarray:
    """XGBoost."""
    import xgboost as library

    kind = library.XGBClassifier if task.classes else library.XGBRegressor
    model = kind(
        n_estimators=ROUNDS,
        learning_rate=RATE,
        early_stopping_rounds=PATIENCE,
        random_state=seed,
        n_jobs=1,
        enable_categorical=True,
        verbosity=0,
    )
    model.fit(*task.rows(task.train), eval_set=[task.rows(task.valid)], verbose=False)
    return _predict(model, task)


def catboost(task: Task, seed: int) -> np.ndarray:
    """CatBoost; at most 1,000 trees, its own default, whose learning rate goes with that."""
    import catboost as library

    def rows(which: np.ndarray) -> tuple[pd.DataFrame, np.ndarray]:
        frame, targets = task.rows(which)
        texts = {name: frame[name].astype(object).where(frame[name].notna(), "missing") for name in task.categories}
        return frame.assign(**texts), targets

    kind = library.CatBoostClassifier if task.classes else library.CatBoostRegressor
    model = kind(
        random_seed=seed,
        thread_count=1,
        early_stopping_rounds=PATIENCE,
        cat_features=task.categories,
        verbose=False,
        allow_writing_files=False,
    )
    model.fit(*rows(task.train), eval_set=rows(task.valid))
    features, _ = rows(task.test)
    return np.asarray(model.predict_proba(features) if task.classes else model.predict(features))


def hist_gradient_boosting(task: Task, seed: int) -> np.ndarray:
    """scikit-learn's HistGradientBoosting; without early stopping if a class has a single row."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    def coded(which: np.ndarray) -> np.ndarray:
        frame, _ = task.rows(which)
        codes = {name: frame[name].cat.codes.where(frame[name].notna()) for name in task.categories}
        return frame.assign(**codes).to_numpy(dtype=np.float64)

    few = [name in task.categories and task.frame[name].nunique() <= 255 for name in task.frame]
    kind = HistGradientBoostingClassifier if task.classes else HistGradientBoostingRegressor
    stops = not task.classes or np.bincount(task.targets[task.train])[np.unique(task.targets[task.train])].min() > 1
    rounds = {"max_iter": ROUNDS, "learning_rate": RATE, "n_iter_no_change": PATIENCE} if stops else {}
    model = kind(random_state=seed, early_stopping=bool(stops), categorical_features=few, **rounds)
    train, valid = coded(task.train), coded(task.valid)
    if stops:
        model.fit(train, task.targets[task.train], X_val=valid, y_val=task.targets[task.valid])
    else:
        model.fit(train, task.targets[task.train])
    test = coded(task.test)
    return np.asarray(model.predict_proba(test) if task.classes else model.predict(test))


def realmlp(task: Task, seed: int) -> np.ndarray:
    """RealMLP-TD of pytabkit (Holzmüller et al., "Better by default", 2024); for classes its settings for log loss."""
    from pytabkit import RealMLP_TD_Classifier, RealMLP_TD_Regressor

    kind = RealMLP_TD_Classifier if task.classes else RealMLP_TD_Regressor
    for_log_loss = {"val_metric_name": "cross_entropy", "use_ls": False} if task.classes else {}
    model = kind(device="cpu", random_state=seed, n_threads=1, verbosity=0, **for_log_loss)
    frame = task.frame.assign(**{name: task.frame[name].astype(object) for name in task.categories})
    frame[task.categories] = frame[task.categories].fillna("missing")
    numbers = frame.columns.difference(task.categories)
    frame[numbers] = frame[numbers].fillna(frame[numbers].iloc[task.train].median())
    features, targets = frame.iloc[task.train], task.targets[task.train]
    valid = frame.iloc[task.valid], task.targets[task.valid]
    model.fit(features, targets, *valid, cat_col_names=task.categories)
    test = frame.iloc[task.test]
    return np.asarray(model.predict_proba(test) if task.classes else model.predict(test)).reshape(len(test), -1)


def fastai(task: Task, seed: int) -> np.ndarray:
    """The tabular learner of fastai: its default layers, and one cycle of 20 epochs of which the best is kept.

    Numbers to predict are standardised, which it does not do by itself.
    """
    from fastai.tabular import all as library

    library.set_seed(seed)
    known = task.targets[task.train]
    mean, deviation = (0.0, 1.0) if task.classes else (known.mean(), known.std())
    scaled = (task.targets - mean) / deviation
    frame = task.frame.assign(target=scaled.astype(np.int64 if task.classes else np.float32))
    fitted = frame.iloc[np.concatenate([task.train, task.valid])].reset_index(drop=True)
    numbers = [str(name) for name in task.frame if name not in task.categories]
    fitted[numbers] = fitted[numbers].astype(np.float32)
    rows = library.TabularPandas(
        fitted,
        procs=[library.Categorify, library.FillMissing, library.Normalize],
        cat_names=list(task.categories),
        cont_names=numbers,
        y_names="target",
        y_block=library.CategoryBlock() if task.classes else library.RegressionBlock(),
        splits=(list(range(len(task.train))), list(range(len(task.train), len(fitted)))),
    )
    with tempfile.TemporaryDirectory() as folder:
        learner = library.tabular_learner(rows.dataloaders(bs=min(64, len(task.train))), path=folder)
        with learner.no_bar(), learner.no_logging(), contextlib.redirect_stdout(io.StringIO()):
            learner.fit_one_cycle(20, 1e-3, cbs=library.SaveModelCallback())
            test = frame.iloc[task.test].drop(columns="target").reset_index(drop=True)
            test[numbers] = test[numbers].astype(np.float32).fillna(fitted[numbers].iloc[: len(task.train)].median())
            outputs, _ = learner.get_preds(dl=learner.dls.test_dl(test))
    return np.asarray(outputs.double().numpy() * deviation + mean)


def autogluon(task: Task, seed: int) -> np.ndarray:
    """AutoGluon's ``medium_quality`` without networks, in two minutes; it is run by `AUTOGLUON`."""
    with tempfile.TemporaryDirectory() as folder:
        known = task.raw.iloc[task.known]
        if not task.classes:
            known = known.assign(target=task.targets[task.known])
        known.to_parquet(Path(folder) / "train.parquet", index=False)
        task.raw.iloc[task.test].drop(columns="target").to_parquet(Path(folder) / "test.parquet", index=False)
        script = Path(__file__).with_name("_autogluon.py")
        metric = "log_loss" if task.classes else "rmse"
        subprocess.run([AUTOGLUON, str(script), folder, metric, "120"], check=True, capture_output=True)
        answers = pd.read_parquet(Path(folder) / "answers.parquet")
    if not task.classes:
        return answers["target"].to_numpy(dtype=np.float64)
    return answers.reindex(columns=np.unique(task.raw["target"].to_numpy(dtype=object)), fill_value=0).to_numpy()


MODELS: dict[str, Callable[[Task, int], np.ndarray]] = {
    "ours": ours,
    "LightGBM": lightgbm,
    "AutoGluon": autogluon,
    "CatBoost": catboost,
    "XGBoost": xgboost,
    "HistGB": hist_gradient_boosting,
    "RealMLP": realmlp,
    "fastai": fastai,
}
"""Name -> what gives probabilities (N, C), or values (N,) or (N, 1) as `Task.targets` has them, of the test rows."""
TREES = ("LightGBM", "CatBoost", "XGBoost", "HistGB")


def _predict(model: object, task: Task) -> np.ndarray:
    features, _ = task.rows(task.test)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(model.predict_proba(features) if task.classes else model.predict(features))  # type: ignore[attr-defined]
