"""Gradient-boosted trees by LightGBM, on the network's rows and features.

Ke et al., "LightGBM: A highly efficient gradient boosting decision tree", 2017. A few boosters, each stopped early on
different held-out training rows, are averaged: on small tables a single one depends on the rows held out.
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
"""Most training rows for the trees; of more, a random sample."""
PARTS = 10
"""Number of equal parts of the rows; a booster holds out one of them for early stopping."""
ROUNDS = 2000
"""Most trees per booster (and class)."""
PATIENCE = 50
"""Early stopping: trees without improvement on the held-out rows."""
UNJUDGED_ROUNDS = 100
"""Trees if no row can be held out."""
MOST_CATEGORIES = 255
"""Columns with more categories enter the trees as target means by category; splits by subsets would be chance."""
DEFAULTS = TreesSpec()
_FILE, _MEANS = "trees-{}.txt", "trees-means.json"
Means = Mapping[str, Sequence[Sequence[float]]]
"""Column with many categories -> mean by code for every target."""


class Trees:
    """Fitted boosters, equally many for each target.

    Parameters
    ----------
    encoder
        Encoder of the rows.
    boosters
        In order of the targets; a classification has one target.
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
            Rows, and their `TableEncoder.targets`: (N, T) float32 or (N,) int64.
        seed
            Chooses the rows to fit on, the held-out rows, and the columns for each tree.
        rounds
            Most trees per booster (and class).
        boosters
            Boosters per target; None: more if they are cheap and the held-out rows few.
        settings
            Hyperparameters of the boosters.
        class_weights
            Weight of a row by class, (C,); None: equal weights.
        later
            Later rows and targets for early stopping; no other rows are held out. Random held-out rows have neighbours
            among the fitted ones and would stop too late.
        lengths
            Trees of each booster (per class), if known; nothing is held out then.
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
        """Number of trees (per class) used by each booster."""
        every = [(booster.best_iteration, booster.current_iteration()) for booster in self._boosters]
        return [best if best > 0 else all_of_them for best, all_of_them in every]

    def predict(self, rows: Encoded) -> np.ndarray:
        """Probabilities (N, C), or values (N, T) in the network's scale, float64; rows are independent."""
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
        """Names of the F features of the trees: columns, and target means by category."""
        twice = set(self._encoder.categorical) & set(self._encoder.continuous)
        named = list(self._encoder.categorical)
        named += [f"{name} (as number)" if name in twice else name for name in self._encoder.continuous]
        for name, means in self._means.items():
            suffixes = [""] if len(means) == 1 else [f" {number}" for number in range(1, len(means) + 1)]
            named += [f"{name} (mean of the target{suffix})" for suffix in suffixes]
        return named

    def contributions(self, rows: Encoded) -> np.ndarray:
        """SHAP values of every feature, then the base value; each row sums to the trees' raw output.

        Exact for trees: Lundberg et al., "From local explanations to global understanding with explainable AI for
        trees", 2020. Averaged over the boosters, as are their raw outputs.

        Returns
        -------
        numpy.ndarray
            (K, N, F + 1) float64 for K outputs: the targets in the network's scale, the log-odds of the second of two
            classes, or the score of each class before the softmax.
        """
        raw = self._raw(rows, pred_contrib=True)
        width = len(self.feature_names()) + 1
        return np.concatenate([each.reshape(len(rows), -1, width).transpose(1, 0, 2) for each in raw])

    def raw_outputs(self, rows: Encoded) -> np.ndarray:
        """Mean output of the boosters before a sigmoid or softmax, (K, N) float64."""
        return np.concatenate([each.reshape(len(rows), -1).T for each in self._raw(rows, raw_score=True)])

    def _raw(self, rows: Encoded, **what: bool) -> list[np.ndarray]:
        """Mean output of each target's boosters."""
        targets = 1 if self._encoder.classes else len(self._encoder.target_names)
        each = len(self._boosters) // targets
        features = np.concatenate([_features(self._encoder, rows), _means_of(self._encoder, self._means, rows)], axis=1)
        threads = torch.get_num_threads()
        answers = [np.asarray(booster.predict(features, num_threads=threads, **what)) for booster in self._boosters]
        return [mean_in_order(answers[start : start + each]) for start in range(0, len(answers), each)]

    def _columns(self, means: list[np.ndarray]) -> np.ndarray:
        """Predictions as columns; for two classes LightGBM returns only the second one's probability."""
        if not self._encoder.classes:
            return np.stack(means, axis=1)
        return np.stack([1 - means[0], means[0]], axis=1) if means[0].ndim == 1 else means[0]

    def save(self, folder: Path) -> None:
        """Write each booster in LightGBM's text format, and the target means."""
        (folder / _MEANS).write_text(json.dumps(self._means))
        for number, booster in enumerate(self._boosters):
            booster.save_model(folder / _FILE.format(number))

    @classmethod
    def load(cls, folder: Path, encoder: TableEncoder) -> "Trees":
        """Load the trees from `save`.

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
    """Training rows for the trees, (n,) int64: all of them up to `most`, `MOST_FITTED` if None.

    Of more, a random sample of that size, and the first row of each class so that all classes occur.
    """
    most = most or MOST_FITTED
    if len(targets) <= most:
        return np.arange(len(targets))
    drawn = np.random.default_rng(seed).choice(len(targets), most, replace=False, shuffle=False)
    firsts = np.unique(targets, return_index=True)[1] if targets.ndim == 1 else np.array([], np.int64)
    return np.union1d(drawn, firsts)


def _boosters_of_target(rows: int, classes: int) -> int:
    """Boosters per target: more if they are cheap and the held-out rows few."""
    work = rows * (classes if classes > 2 else 1)  # beyond two classes, each has its own trees
    return 4 if work <= 40_000 else 2 if work <= 100_000 else 1


def _parts(targets: np.ndarray, seed: int) -> np.ndarray:
    """Random part of each row (N,) int64, of `PARTS` equal ones; -1 for a row that is always fitted.

    Parts are stratified by class. A class with at most one row per part is always fitted, as its probability would
    otherwise be 0.
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
    """Slices of at most `CHUNK_ROWS` rows; features need several times the memory of their rows."""
    return (slice(start, start + CHUNK_ROWS) for start in range(0, max(rows, 1), CHUNK_ROWS))


def _features(encoder: TableEncoder, rows: Encoded) -> np.ndarray:
    """Codes and numbers side by side, (N, K + M) float32; missing numbers are restored as missing."""
    names = list(encoder.categorical)
    features = np.concatenate([rows.categorical, rows.continuous], axis=1, dtype=np.float32)
    for place, name in enumerate(encoder.continuous, start=len(names)):
        flag = next((flag for flag, of in encoder.flags.items() if of == name), None)
        if flag is not None:
            features[rows.categorical[:, names.index(flag)] == 2, place] = np.nan
    return features


def _means_of(encoder: TableEncoder, means: Means, rows: Encoded) -> np.ndarray:
    """Target means by the rows' categories, (N, M) float32."""
    names = list(encoder.categorical)
    columns = [
        np.asarray(of_target)[rows.categorical[:, names.index(name)]]
        for name, each in means.items()
        for of_target in each
    ]
    return np.stack(columns, axis=1, dtype=np.float32) if columns else np.empty((len(rows), 0), np.float32)


def filled(settings: TreesSpec, rows: int) -> TreesSpec:
    """Complete the settings with defaults for the number of rows."""
    # On 16 sets of up to 6,000 rows an lr of 0.1 is as good as 0.05 and takes 60 % of its time; on Rossmann's 800,000
    # rows it is 2 % worse.
    lr, leaves = 0.1 if rows <= 10_000 else 0.05, 15 if rows <= 10_000 else 31 if rows <= 100_000 else 63
    return settings.model_copy(update={"lr": settings.lr or lr, "leaves": settings.leaves or leaves})


def _target_means(
    encoder: TableEncoder, train: Encoded, targets: np.ndarray, seed: int
) -> tuple[dict[str, list[list[float]]], np.ndarray]:
    """Target means by column with many categories, and out-of-fold means of the training rows, (N, M) float32."""
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
    """Binned rows and settings shared by all boosters of a target."""
    classes, chosen = len(encoder.classes), filled(chosen, len(targets))
    settings: dict[str, object] = {
        "objective": "regression" if not classes else "binary" if classes == 2 else "multiclass",
        "num_class": classes if classes > 2 else 1,
        "learning_rate": chosen.lr,
        "num_leaves": chosen.leaves,
        "min_data_in_leaf": chosen.leaf_rows,
        "feature_fraction": chosen.columns,
        "num_threads": torch.get_num_threads(),
        # Otherwise LightGBM times two methods and picks the faster, and they round differently.
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
    """Fit one booster with the best number of trees on the held-out rows or `judges`, or exactly `rounds` trees."""
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
