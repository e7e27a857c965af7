"""Gradient-boosted trees by LightGBM, on the rows and features that the network gets.

Ke et al., "LightGBM: A highly efficient gradient boosting decision tree", 2017. A few boosters are fitted, each of
which leaves out other training rows to stop by, and their predictions are averaged: on small tables a single one
depends on which rows it was stopped by.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import lightgbm
import numpy as np
import torch

from unfreeze.models.errors import UserError
from unfreeze.models.settings.tables import TreesSpec
from unfreeze.models.tables.columns.encoding import Encoded, TableEncoder
from unfreeze.models.tables.columns.target_means import means_of_others, shrunk_means, values_of
from unfreeze.models.tables.reading.frames import CHUNK_ROWS
from unfreeze.models.targets import mean_in_order

MOST_FITTED = 2_000_000
"""Training rows that trees are fitted on at most: a random part of more."""
PARTS = 10
"""A booster leaves out one of so many equal parts of its rows, and is judged on it while trees are added."""
ROUNDS = 2000
"""Trees of a booster (per class) at most."""
PATIENCE = 50
"""Trees that did not help the rows left out, after which no more are added."""
UNJUDGED_ROUNDS = 100
"""Trees where no row can be left out."""
MOST_CATEGORIES = 255
"""Of a column of more categories trees get the mean of the target by category: subsets would be chosen by chance."""
DEFAULTS = TreesSpec()
_FILE, _MEANS = "trees-{}.txt", "trees-means.json"
Means = Mapping[str, Sequence[Sequence[float]]]
"""Column of many categories -> for every target the mean by code."""


class Trees:
    """Fitted boosters: equally many for each target.

    Parameters
    ----------
    encoder
        Of the rows.
    boosters
        Those of the first target, then those of the next; a classification has one target.
    means
        See `unfreeze.models.tables.columns.target_means`.
    """

    def __init__(self, encoder: TableEncoder, boosters: Sequence[lightgbm.Booster], means: Means) -> None:
        self._encoder, self._boosters, self._means = encoder, list(boosters), means

    @classmethod
    def fit(
        cls,
        encoder: TableEncoder,
        train: Encoded,
        targets: np.ndarray,
        seed: int,
        rounds: int = ROUNDS,
        boosters: int | None = None,
        settings: TreesSpec = DEFAULTS,
        class_weights: np.ndarray | None = None,
        later: tuple[Encoded, np.ndarray] | None = None,
        lengths: Sequence[int] = (),
    ) -> "Trees":
        """Fit on training rows, or `rows_to_fit` of them.

        Parameters
        ----------
        train, targets
            Rows, and `TableEncoder.targets` of them: (N, T) float32 or (N,) int64.
        seed
            Chooses the rows to fit on and those left out, and the columns that a tree sees.
        rounds
            Trees of a booster (per class) at most.
        boosters
            For each target; None more where they are cheap, and where the rows left out say little.
        settings
            How each is fitted.
        class_weights
            What a row of each class counts, (C,); None: all the same.
        later
            Rows and targets that come after the others in time: they stop the boosters, which then leave out none. Rows
            left out at random have neighbours among those that are fitted, and would stop too late.
        lengths
            Trees of each booster (per class), where they are known: nothing is left out then.
        """
        fitted = rows_to_fit(targets, seed)
        if len(fitted) < len(targets):
            train, targets = train.rows(fitted), targets[fitted]
        means, others = _target_means(encoder, train, targets, seed)
        features = np.concatenate([_features(encoder, train), others], axis=1)
        names = encoder.target_names
        count = boosters or len(lengths) // len(names) or _boosters_of_target(len(targets), len(encoder.classes))
        parts = np.full(len(targets), -1) if lengths or later else _parts(targets, seed)
        columns = [targets] if encoder.classes else list(np.ascontiguousarray(targets.T))
        judges: list[tuple[np.ndarray, np.ndarray] | None] = [None] * len(names)
        if later is not None:
            judging = np.concatenate([_features(encoder, later[0]), _means_of(encoder, means, later[0])], axis=1)
            judges = [(judging, column) for column in ([later[1]] if encoder.classes else later[1].T)]
        fitted_boosters = []
        for place, column in enumerate(columns):
            data, chosen = _dataset(encoder, features, column, settings, class_weights)
            fitted_boosters += [
                _fit(
                    *(data, {**chosen, "seed": seed + number}, parts == number),
                    lengths[place * count + number] if lengths else rounds,
                    *(judges[place], bool(lengths)),
                )
                for number in range(count)
            ]
        return cls(encoder, fitted_boosters, means)

    @property
    def lengths(self) -> list[int]:
        """Trees (per class) of each booster that it answers with."""
        every = [(booster.best_iteration, booster.current_iteration()) for booster in self._boosters]
        return [best if best > 0 else all_of_them for best, all_of_them in every]

    def predict(self, rows: Encoded) -> np.ndarray:
        """Probabilities (N, C), or values (N, T) as the network is trained on them; float64, row by row."""
        targets = 1 if self._encoder.classes else len(self._encoder.target_names)
        each = len(self._boosters) // targets
        outputs = []
        for chunk in _chunks(len(rows)):
            part = rows.rows(np.arange(chunk.start, min(chunk.stop, len(rows))))
            features = np.concatenate(
                [_features(self._encoder, part), _means_of(self._encoder, self._means, part)], axis=1
            )
            threads = torch.get_num_threads()
            answers = [np.asarray(booster.predict(features, num_threads=threads)) for booster in self._boosters]
            means = [mean_in_order(answers[start : start + each]) for start in range(0, len(answers), each)]
            outputs.append(self._columns(means))
        return np.concatenate(outputs)

    def feature_names(self) -> list[str]:
        """Names of the F features that the trees see: columns, and means of the target by category."""
        twice = set(self._encoder.categorical) & set(self._encoder.continuous)
        named = list(self._encoder.categorical)
        named += [f"{name} (as number)" if name in twice else name for name in self._encoder.continuous]
        for name, means in self._means.items():
            suffixes = [""] if len(means) == 1 else [f" {number}" for number in range(1, len(means) + 1)]
            named += [f"{name} (mean of the target{suffix})" for suffix in suffixes]
        return named

    def contributions(self, rows: Encoded) -> np.ndarray:
        """SHAP values of every feature, and last the base value; a row's add up to the trees' raw output.

        Exact for trees: Lundberg et al., "From local explanations to global understanding with explainable AI for
        trees", 2020; the mean over the boosters, whose raw outputs are averaged alike.

        Returns
        -------
        numpy.ndarray
            (K, N, F + 1) float64 for K outputs: the targets as the network is trained on them, the log-odds of the
            second of two classes, or the score of each class before the softmax.
        """
        raw = self._raw(rows, pred_contrib=True)
        width = len(self.feature_names()) + 1
        return np.concatenate([each.reshape(len(rows), -1, width).transpose(1, 0, 2) for each in raw])

    def raw_outputs(self, rows: Encoded) -> np.ndarray:
        """The mean over the boosters of what they give before a sigmoid or softmax, (K, N) float64."""
        return np.concatenate([each.reshape(len(rows), -1).T for each in self._raw(rows, raw_score=True)])

    def _raw(self, rows: Encoded, **what: bool) -> list[np.ndarray]:
        """What the boosters of each target give on average."""
        targets = 1 if self._encoder.classes else len(self._encoder.target_names)
        each = len(self._boosters) // targets
        features = np.concatenate([_features(self._encoder, rows), _means_of(self._encoder, self._means, rows)], axis=1)
        threads = torch.get_num_threads()
        answers = [np.asarray(booster.predict(features, num_threads=threads, **what)) for booster in self._boosters]
        return [mean_in_order(answers[start : start + each]) for start in range(0, len(answers), each)]

    def _columns(self, means: list[np.ndarray]) -> np.ndarray:
        """Predictions side by side; of two classes LightGBM gives the second one's probability."""
        if not self._encoder.classes:
            return np.stack(means, axis=1)
        return np.stack([1 - means[0], means[0]], axis=1) if means[0].ndim == 1 else means[0]

    def save(self, folder: Path) -> None:
        """Write each booster as LightGBM's own text, and the means of the target."""
        (folder / _MEANS).write_text(json.dumps(self._means))
        for number, booster in enumerate(self._boosters):
            booster.save_model(folder / _FILE.format(number))

    @classmethod
    def load(cls, folder: Path, encoder: TableEncoder) -> "Trees":
        """The trees that `save` wrote.

        Raises
        ------
        UserError
            If a file is missing or damaged.
        """
        files = [folder / _FILE.format(number) for number in range(len(list(folder.glob(_FILE.format("*")))))]
        targets = 1 if encoder.classes else len(encoder.target_names)
        if not files or len(files) % targets:
            raise UserError(
                f"{folder}: {len(files)} files of trees do not fit {targets} targets; take the whole folder"
            )
        try:
            means = json.loads((folder / _MEANS).read_text())
            return cls(encoder, [lightgbm.Booster(model_file=file) for file in files], means)
        except (OSError, ValueError, lightgbm.basic.LightGBMError) as error:
            raise UserError(f"{folder}: its trees cannot be read ({error}); take the whole folder again") from error


def rows_to_fit(targets: np.ndarray, seed: int, most: int | None = None) -> np.ndarray:
    """Which training rows the trees are fitted on, (n,) int64: all of them up to `most`, `MOST_FITTED` if None.

    Of more, that many at random, and the first row of each class so that none is unknown to the trees.
    """
    most = most or MOST_FITTED
    if len(targets) <= most:
        return np.arange(len(targets))
    drawn = np.random.default_rng(seed).choice(len(targets), most, replace=False, shuffle=False)
    firsts = np.unique(targets, return_index=True)[1] if targets.ndim == 1 else np.array([], np.int64)
    return np.union1d(drawn, firsts)


def _boosters_of_target(rows: int, classes: int) -> int:
    """Boosters for each target: more where they are cheap, and where the rows left out say little."""
    work = rows * (classes if classes > 2 else 1)  # of several classes each has trees of its own
    return 4 if work <= 40_000 else 2 if work <= 100_000 else 1


def _parts(targets: np.ndarray, seed: int) -> np.ndarray:
    """Part of each row (N,) int64, of `PARTS` equal ones at random; -1 for a row that is always fitted.

    Each part has its share of every class. A class with a row per part or fewer stays with the rows that are fitted:
    without it there, its probability would be nil.
    """
    random = np.random.default_rng(seed)
    every = np.arange(len(targets))
    groups = [every] if targets.ndim == 2 else [np.flatnonzero(targets == each) for each in np.unique(targets)]
    parts = np.full(len(targets), -1)
    start = 0
    for rows in groups:
        if len(rows) > PARTS or targets.ndim == 2:
            parts[random.permutation(rows)] = (start + np.arange(len(rows))) % PARTS
            start += len(rows)
    return parts


def _chunks(rows: int) -> Iterator[slice]:
    """Slices of at most `CHUNK_ROWS` rows: features take several times the memory of their rows."""
    return (slice(start, start + CHUNK_ROWS) for start in range(0, max(rows, 1), CHUNK_ROWS))


def _features(encoder: TableEncoder, rows: Encoded) -> np.ndarray:
    """Codes and numbers side by side, (N, K + M) float32; numbers that were missing are so again."""
    names = list(encoder.categorical)
    features = np.concatenate([rows.categorical, rows.continuous], axis=1, dtype=np.float32)
    for place, name in enumerate(encoder.continuous, start=len(names)):
        flag = next((flag for flag, of in encoder.flags.items() if of == name), None)
        if flag is not None:
            features[rows.categorical[:, names.index(flag)] == 2, place] = np.nan
    return features


def _means_of(encoder: TableEncoder, means: Means, rows: Encoded) -> np.ndarray:
    """Means of the target by the rows' categories, (N, M) float32."""
    names = list(encoder.categorical)
    columns = [
        np.asarray(of_target)[rows.categorical[:, names.index(name)]]
        for name, each in means.items()
        for of_target in each
    ]
    return np.stack(columns, axis=1, dtype=np.float32) if columns else np.empty((len(rows), 0), np.float32)


def filled(settings: TreesSpec, rows: int) -> TreesSpec:
    """The settings with what follows from the number of rows."""
    # On 16 sets of up to 6,000 rows an lr of 0.1 is as good as half of it, in 60 % of the time; on Rossmann's 800,000
    # it is 2 % worse.
    lr, leaves = 0.1 if rows <= 10_000 else 0.05, 15 if rows <= 10_000 else 31 if rows <= 100_000 else 63
    return settings.model_copy(update={"lr": settings.lr or lr, "leaves": settings.leaves or leaves})


def _target_means(
    encoder: TableEncoder, train: Encoded, targets: np.ndarray, seed: int
) -> tuple[dict[str, list[list[float]]], np.ndarray]:
    """Means by column of many categories, and those of the training rows by other rows, (N, M) float32."""
    means: dict[str, list[list[float]]] = {}
    others: list[np.ndarray] = []
    for place, (name, size) in enumerate(encoder.sizes()):
        if size > MOST_CATEGORIES:
            codes = train.categorical[:, place]
            means[name] = []
            for values in values_of(targets, len(encoder.classes)):
                means[name].append(shrunk_means(codes, values, size).tolist())
                others.append(means_of_others(codes, values, size, seed).astype(np.float32))
    return means, np.stack(others, axis=1) if others else np.empty((len(train), 0), np.float32)


def _dataset(
    encoder: TableEncoder,
    features: np.ndarray,
    targets: np.ndarray,
    chosen: TreesSpec,
    class_weights: np.ndarray | None,
) -> tuple[lightgbm.Dataset, dict[str, object]]:
    """Rows in bins, for all boosters of a target, and the settings that these have in common."""
    classes, chosen = len(encoder.classes), filled(chosen, len(targets))
    settings: dict[str, object] = {
        "objective": "regression" if not classes else "binary" if classes == 2 else "multiclass",
        "num_class": classes if classes > 2 else 1,
        "learning_rate": chosen.lr,
        "num_leaves": chosen.leaves,
        "min_data_in_leaf": chosen.leaf_rows,
        "feature_fraction": chosen.columns,
        "num_threads": torch.get_num_threads(),
        # The faster of two ways is otherwise found by trying, and they round differently.
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
    unordered = [
        place
        for place, (name, categories) in enumerate(encoder.categorical.items())
        if encoder.kinds.get(name) == "text" and len(categories) < MOST_CATEGORIES
    ]
    counts = None if class_weights is None else class_weights[targets]
    data = lightgbm.Dataset(
        features, targets, weight=counts, categorical_feature=unordered, params=settings, free_raw_data=False
    )
    return data, settings


def _fit(
    data: lightgbm.Dataset,
    settings: dict[str, object],
    left_out: np.ndarray,
    rounds: int,
    judges: tuple[np.ndarray, np.ndarray] | None,
    exactly: bool,
) -> lightgbm.Booster:
    """One booster, which has as many trees as were best on the rows left out or the judges, or exactly the `rounds`."""
    judged = np.flatnonzero(left_out)
    if exactly or (judges is None and not len(judged)):
        return lightgbm.train(settings, data, rounds if exactly else min(rounds, UNJUDGED_ROUNDS))
    fitted = data if judges else data.subset(np.flatnonzero(~left_out).tolist())
    return lightgbm.train(
        settings,
        fitted,
        rounds,
        valid_sets=[data.create_valid(*judges) if judges else data.subset(judged.tolist())],
        callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
    )
