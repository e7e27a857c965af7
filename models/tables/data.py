"""A spec bound to its prepared table: the network, the batches, and what is shown of both."""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch

from unfreeze.models.budget import plan, planned
from unfreeze.models.drift import distributions_of
from unfreeze.models.findings import Findings
from unfreeze.models.intervals import intervals
from unfreeze.models.modality import SPLITS, Activations, Candidate, Prepared, TrainingData
from unfreeze.models.plots import plot_embedding, plot_importance
from unfreeze.models.sampling import sample_rows
from unfreeze.models.specs.tables import TableDataSpec, TrainTables
from unfreeze.models.tables.baselines import gradient_boosting, group_mean, rows_to_fit
from unfreeze.models.tables.batches import TableBatches, read_encoded
from unfreeze.models.tables.calendar import Calendar
from unfreeze.models.tables.encoding import Encoded, TableEncoder
from unfreeze.models.tables.joins import parse_join
from unfreeze.models.tables.network import TableHead, network_of, summarise_table
from unfreeze.models.tables.prepare import Joined
from unfreeze.models.tables.reading import open_table, to_frame
from unfreeze.models.tables.roles import Role
from unfreeze.models.tables.row_reader import RawColumns
from unfreeze.models.tables.serving import example_rows, predict_encoded, save_table_model
from unfreeze.models.training.allocator import ready_device
from unfreeze.models.training.batches import Batches
from unfreeze.models.training.learner import Learner
from unfreeze.models.training.network import Network
from unfreeze.models.training.precision import pick_precision

MOST_EMBEDDINGS = 16  # categorical columns whose embeddings are drawn
IMPORTANCE_ROWS = 20_000  # at most, that permutation importance is measured on
SAMPLED = 2000  # rows whose distributions are kept
MODELS = {
    "network": ("network", ""),
    "tree": ("gradient-boosted trees", "baseline/tree_"),
    "mean": ("mean by group", "baseline/mean_"),
    "ensemble": ("network and trees", "ensemble/"),
}
"""Model -> its name for people, and the prefix of its metrics (the section's, where empty)."""


def open_joins(data: TableDataSpec, files: Sequence[Path]) -> list[Joined]:
    """The tables to look rows up in, from feather files in the order of the spec."""
    joins = zip(map(parse_join, data.join), files, strict=True)
    return [Joined(Path(path).stem, open_table(file).to_pandas(), on) for (path, on), file in joins]


class TableData(TrainingData):
    """A spec, an encoder and the encoded rows.

    `prepared` has the files ``frame``, ``encoded``, ``encoder``, ``split``, ``columns``, ``notes``, ``calendar``,
    ``main`` and ``join-N``. The data of `params` have what was found filled in.
    """

    batch_sizes = (32, 256)

    def __init__(self, params: TrainTables, prepared: Prepared) -> None:
        self.prepared = prepared
        columns = json.loads(self._file("columns").read_text())
        self.raw = RawColumns(**columns["raw"])
        params = params.model_copy(update={"data": params.data.model_copy(update=columns["found"])})
        self.encoder = TableEncoder.from_json(self.kept_file.read_text())
        self.target = self.encoder.target
        self.device = ready_device(params.device)
        self.precision = pick_precision(params.precision, self.device)
        with np.load(self._file("split")) as split:
            self.rows = {name: split[name] for name in SPLITS}
        self.params = planned(params, len(self.rows["train"]), *self.batch_sizes)

    def _file(self, name: str) -> Path:
        return Path(self.prepared.files[name])

    # --- training

    def network(self) -> Network:
        """A new network, whose predictions begin close to the targets' means."""
        network = network_of(self.params, self.encoder)
        if self.target.columns:
            means = torch.from_numpy(self.targets("train")).mean(dim=0).float()
            cast(TableHead, network.head).start_at(means)
        return network

    def targets(self, split: str) -> np.ndarray:
        """As `TableEncoder.targets` gives them."""
        _, targets = read_encoded(self._file("encoded"))
        return np.asarray(targets[self.rows[split]])

    def encoded(self, split: str) -> tuple[Encoded, np.ndarray]:
        """All rows of a split, and their targets."""
        encoded, targets = read_encoded(self._file("encoded"))
        return encoded.rows(self.rows[split]), targets[self.rows[split]]

    def batches(self, position: int, split: str, activations: Activations) -> Batches:
        """Rows of a split, the same in every stage."""
        return TableBatches(self._file("encoded"), self.rows[split], self.device, self.batch_size)

    # --- what is shown

    @cached_property
    def frame(self) -> pd.DataFrame:
        """All rows before they were encoded, with targets and dates; numbers stay in the mapped file, read-only."""
        return to_frame(open_table(self._file("frame")))

    @property
    def kept_file(self) -> Path:
        """The encoder of columns."""
        return self._file("encoder")

    def describe(self) -> Findings:
        """Roles and types of columns, what was rejected, warnings, the model's summary."""
        found, notes = Findings(), json.loads(self._file("notes").read_text())
        for key, title, rows in (
            ("roles", "What each column is for", notes["roles"]),
            ("columns", "Types of columns", notes["types"]),
            ("rejected", "Rejected rows and columns", notes["rejected"]),
        ):
            if rows:
                found.frame(f"data/{key}.feather", pd.DataFrame(rows).astype("string"))
                found.table(key, title, rows)
        found.lines += [str(Role(**role)) for role in notes["roles"]]
        found.lines += [f"rejected: {', '.join(map(str, entry.values()))}" for entry in notes["rejected"]]
        if notes["warnings"]:
            found.text("data/warnings.txt", "\n".join(notes["warnings"]))
            found.table("warnings", "Warnings", [{"warning": warning} for warning in notes["warnings"]])
            found.notices += [f"warning: {warning}" for warning in notes["warnings"]]
        found.lines += plan(self.params, len(self.rows["train"]))
        summary = pd.DataFrame(summarise_table(self.network(), list(self.encoder.categorical)))
        found.text("model_summary.txt", f"{summary.to_string(index=False)}\n")
        return found

    def sample(self, rows: np.ndarray) -> pd.DataFrame:
        """At most `SAMPLED` of the rows, drawn at random, in their order; columns that are left out are missing."""
        features: pd.DataFrame = self.frame.drop(columns=self.params.data.drop, errors="ignore")
        return features.iloc[sample_rows(rows, SAMPLED)].reset_index(drop=True)

    def reference(self) -> pd.DataFrame:
        """Distributions of the columns over a sample of the training rows; with `keep_examples` the sample itself."""
        sample = self.sample(self.rows["train"])
        return sample if self.params.tracking.keep_examples else distributions_of(sample)

    def tags(self) -> dict[str, str]:
        """The last dates that were trained and validated on."""
        found = {
            f"data.{name}_until": self._dates(split) for name, split in (("trained", "train"), ("validated", "valid"))
        }
        return {name: str(dates.max()) for name, dates in found.items() if dates is not None}

    def _dates(self, split: str) -> pd.Series | None:
        dates = self.params.data.date
        return self.frame[dates[0]].iloc[self.rows[split]] if dates and dates[0] in self.frame else None

    # --- evaluation

    def predictions(self, learner: Learner, candidate: Candidate, activations: Activations, split: str) -> np.ndarray:
        """Probabilities (N, C), or values (N, T) in their own scale, float64."""
        rows, _ = self.encoded(split)
        return np.asarray(np.mean(self._members(learner, candidate, rows), axis=0))

    def _members(self, learner: Learner, candidate: Candidate, rows: Encoded) -> list[np.ndarray]:
        outputs = learner.of_members(
            candidate.states, lambda: predict_encoded(learner.network, rows, learner.device, learner.precision)
        )
        return [self.target.predictions(each) for each in outputs]

    def evaluate(self, learner: Learner, candidate: Candidate, activations: Activations, section: str) -> Findings:
        """Evaluate the network and the baselines on all rows of a split.

        ``SECTION/METRIC`` of the network, ``ensemble/METRIC`` of its average with the trees, ``baseline/tree_METRIC``
        and ``baseline/mean_METRIC``; with a snapshot ensemble also ``single/METRIC`` of the final weights alone. On
        test rows all of them begin with ``test/``.
        """
        rows, targets = self.encoded(section)
        actual, found = self.target.actual(torch.from_numpy(targets)), Findings()
        members = self._members(learner, candidate, rows)
        predictions = {"network": np.asarray(np.mean(members, axis=0))}
        others = "" if section == "valid" else f"{section}/"  # before the names of the metrics of other models
        found.metrics[f"{section}/loss"] = self.target.loss_of(predictions["network"], actual)
        if len(members) > 1:
            single = {name: metric(members[-1], actual) for name, metric in learner.metrics.items()}
            found.metrics |= {f"{others}single/{name}": value for name, value in single.items()}
        predictions |= self._baselines(rows, found)
        if self.params.ensemble:
            predictions["ensemble"] = (predictions["network"] + predictions["tree"]) / 2
        table, columns = [], dict[str, np.ndarray]()
        if section == "test":
            for name, (low, high) in intervals(learner.metrics, predictions["network"], actual).items():
                found.metrics |= {f"test/{name}_low": low, f"test/{name}_high": high}
        for model, values in predictions.items():
            title, prefix = MODELS[model]
            metrics = {name: metric(values, actual) for name, metric in learner.metrics.items()}
            before = f"{others}{prefix}" if prefix else f"{section}/"
            found.metrics |= {f"{before}{name}": value for name, value in metrics.items()}
            table.append({"model": title, **{name: round(float(value), 5) for name, value in metrics.items()}})
            columns |= self.target.prefixed(model, values)
        found.table("models", f"The network against the baselines, on the same {section} rows", table)
        found.text(f"{section}/models.txt", pd.DataFrame(table).to_string(index=False))
        found.lines += [", ".join(f"{name} {value}" for name, value in row.items()) for row in table]
        frame = self.frame.iloc[self.rows[section]].reset_index(drop=True)
        found.frame(f"{section}/predictions.feather", frame.assign(**columns))
        found.add(self.target.report(predictions["network"], actual, section, self._dates(section)))
        if self.params.tracking.top_losses:
            errors = self.target.errors(predictions["network"], actual)
            worst = np.argsort(-errors)[: self.params.tracking.top_losses]
            shown = frame.iloc[worst].assign(error=errors[worst].round(4)).astype("string").fillna("")
            found.table("top-losses", "Rows with the highest error", shown)
        self._draw_embeddings(found, learner)
        self._draw_importance(found, learner, rows, targets, section)
        return found

    def _loss(self, outputs: torch.Tensor, targets: np.ndarray) -> float:
        return float(self.target.score(outputs, torch.from_numpy(targets)))

    def _baselines(self, rows: Encoded, found: Findings) -> dict[str, np.ndarray]:
        if not (self.params.baselines or self.params.ensemble):
            return {}
        train, targets = self.encoded("train")
        inputs = (self.encoder, train, targets, rows, self.params.seed)
        mean = group_mean(*inputs)
        fitted = len(rows_to_fit(targets, self.params.seed))
        if fitted < len(train):
            found.lines.append(f"the trees are fitted on {fitted:,} of {len(train):,} training rows, drawn at random")
        found.lines.append(f"the mean by group is by {' and '.join(mean.columns) or 'nothing'}")
        return {"tree": gradient_boosting(*inputs), "mean": mean.predictions}

    def _draw_embeddings(self, found: Findings, learner: Learner) -> None:
        """The trained vectors of every category, as a figure per column and a feather file."""
        embeddings: Any = learner.network.body.embeddings
        drawn = 0
        for embedding, (name, categories) in zip(embeddings, self.encoder.categorical.items(), strict=True):
            weights = embedding.weight.detach().cpu().numpy()
            labels = ["missing", *map(str, categories)]
            file = "".join(letter if letter.isalnum() else "_" for letter in name)
            table = pd.DataFrame(weights).add_prefix("component_")
            table.insert(0, "category", labels)
            found.frame(f"embeddings/{file}.feather", table)
            # The vector of "missing" is random where nothing was: it would only stretch the figure.
            if len(categories) > 2 and drawn < MOST_EMBEDDINGS:
                drawn += 1
                figure = plot_embedding(weights[1:], labels[1:], name)
                found.figure(f"embeddings/{file}.png", f"Trained embedding of {name}", figure)

    def _draw_importance(
        self, found: Findings, learner: Learner, rows: Encoded, targets: np.ndarray, section: str
    ) -> None:
        """How much the loss grows when a column is shuffled (Breiman, "Random Forests", 2001)."""
        generator = np.random.default_rng(self.params.seed)
        chosen = generator.permutation(len(targets))[:IMPORTANCE_ROWS]
        rows, targets = rows.rows(chosen), targets[chosen]

        def loss() -> float:
            return self._loss(predict_encoded(learner.network, rows, learner.device), targets)

        whole, order, increases = loss(), generator.permutation(len(chosen)), {}
        for names, matrix in (
            (self.encoder.categorical, rows.categorical),
            (self.encoder.continuous, rows.continuous),
        ):
            for place, name in enumerate(names):
                kept = matrix[:, place].copy()
                matrix[:, place] = kept[order]
                increases[name] = loss() - whole
                matrix[:, place] = kept
        table = pd.DataFrame({"column": list(increases), "loss_increase": list(increases.values())})
        found.frame(f"{section}/importance.feather", table.sort_values("loss_increase", ascending=False))
        figure = plot_importance(increases, "loss")
        found.figure(f"{section}/importance.png", "Permutation importance", figure)

    # --- the model

    def save(self, folder: Path, candidate: Candidate) -> None:
        """Write weights, encoder, spec, joined tables and the calendar."""
        files, data = self.prepared.files, self.params.data
        joins = open_joins(data, [self._file(f"join-{number}") for number in range(len(data.join))])
        calendar = Calendar.load(self._file("calendar"), data) if "calendar" in files else None
        save_table_model(folder, candidate.states, self.params, self.encoder, joins, self.raw, calendar)

    def example(self) -> pd.DataFrame:
        """Rows with the columns that a prediction needs; a synthetic one unless real data may be kept."""
        raw = open_table(self._file("main")).select(self.raw.needed).slice(0, 100).to_pandas()
        return raw.head(3) if self.params.tracking.keep_examples else example_rows(raw, self.params.data)

    def summary(self, metrics: Mapping[str, float]) -> str:
        """Source and metrics."""
        shown = ", ".join(f"{key} {value:.4g}" for key, value in metrics.items() if key.startswith("valid/"))
        return f"{self.params.data.source}: {shown}"
