"""Steps of a training on a table: describe, compare, evaluate, refit and save."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unfreeze.models.evaluation.drift import LEGEND, SHIFTS, distributions_of, shown_shift, table_drift
from unfreeze.models.evaluation.results import Findings
from unfreeze.models.evaluation.verdict import SECTION_NAMES
from unfreeze.models.reading.sampling import sample_rows
from unfreeze.models.recipe.refit import trained_again, trained_on
from unfreeze.models.recipe.training_data import Activations, ActivationsOf, Candidate
from unfreeze.models.settings.tables import TableDataSpec
from unfreeze.models.store.sealed_files import JUDGED
from unfreeze.models.store.workspace import Workspace
from unfreeze.models.tables.bound import BoundTable
from unfreeze.models.tables.columns.calendar import Calendar
from unfreeze.models.tables.columns.roles import Role
from unfreeze.models.tables.evaluation import evaluate
from unfreeze.models.tables.network import summarise_table
from unfreeze.models.tables.preparing.prepare import Joined
from unfreeze.models.tables.preparing.sources import parse_join
from unfreeze.models.tables.reading.frames import names_in_file, open_table, table_name
from unfreeze.models.tables.serving import example_rows, save_table_model
from unfreeze.models.training.learner import Learner
from unfreeze.models.training.network import State
from unfreeze.models.training.schedules import plan

SAMPLED = 2000  # rows for the stored distributions
REFIT_LR = 0.3
"""Factor on the training lr for the refit on all rows."""
EXPECTED = (
    "network: about 60 % of the time; beside the trees it took 3 to 47 % off the loss of 6 of 17 development tables of "
    "up to 6,000 rows, where numbers act smoothly or values have few rows, and changed the others' by 2 % at most"
)
MOST_LINES = 40
"""Lines printed per kind; the report has all."""


def role_lines(roles: Sequence[Role]) -> list[str]:
    """A line per column or, if there are many, for the first of each role and one for the rest."""
    if len(roles) <= MOST_LINES:
        return list(map(str, roles))
    lines: list[str] = []
    for role in dict.fromkeys(each.role for each in roles):
        same = [each for each in roles if each.role == role]
        lines += map(str, same[:5])
        if rest := [each.column for each in same[5:]]:
            lines.append(f"{', '.join(rest[:3])}, ... ({len(rest):,} more columns): {role}; the report has all of them")
    return lines


def shortened(lines: Sequence[str]) -> list[str]:
    """The first lines, and the number of the others."""
    more = len(lines) - MOST_LINES
    return (
        [*lines]
        if more <= 0
        else [*lines[:MOST_LINES], f"... and {more:,} more like these; the report has all of them"]
    )


def open_joins(data: TableDataSpec, files: Sequence[Path]) -> list[Joined]:
    """Open the lookup tables from feather files, in the order of the spec."""
    joins = zip(map(parse_join, data.join), files, strict=True)
    return [Joined(table_name(path), open_table(file).to_pandas(), on) for (path, on), file in joins]


class TableData(BoundTable):
    """A bound table with the steps of a training; see `TrainingData`."""

    # --- description

    def describe(self) -> Findings:
        """Roles and types of columns, rejected rows and columns, warnings, and the model summary."""
        found, notes = Findings(), json.loads(self._file("notes").read_text())
        for key, title, rows in (
            ("roles", "What each column is for", notes["roles"]),
            ("readings", "How texts are read: values of each column", notes["readings"]),
            ("columns", "Types of columns", notes["types"]),
            ("rejected", "Rejected rows and columns", notes["rejected"]),
        ):
            if rows:
                found.frame(f"data/{key}.feather", pd.DataFrame(rows).astype("string"))
                found.table(key, title, rows)
        found.lines += notes["files"]
        found.lines += role_lines([Role(**role) for role in notes["roles"]])
        found.lines += shortened([f"rejected: {', '.join(map(str, entry.values()))}" for entry in notes["rejected"]])
        if notes["warnings"]:
            found.text("data/warnings.txt", "\n".join(notes["warnings"]))
            found.table("warnings", "Warnings", [{"warning": warning} for warning in notes["warnings"]])
            found.notices += shortened([f"warning: {warning}" for warning in notes["warnings"]])
        found.add(self.target.imbalance(self.targets("train")))
        trained = self.sample(self.rows["train"])
        for split, key in SHIFTS.items():
            if len(self.rows[split]):
                shift = table_drift(trained, self.sample(self.rows[split]))
                # Dates differ by design when the last days are held out, as does the split column.
                own = (shift["kind"] == "date") | (shift["column"] == self.params.data.split_column)
                shown = shown_shift(shift[~own])
                found.table(key, f"{SECTION_NAMES[split].capitalize()} rows against training rows ({LEGEND})", shown)
        found.lines += [*plan(self.params, len(self.rows["train"])), *self.decided()]
        summary = pd.DataFrame(summarise_table(self.network(), list(self.encoder.categorical)))
        found.text("model_summary.txt", f"{summary.to_string(index=False)}\n")
        return found

    def decided(self) -> list[str]:
        """Expected gain from the network over trees alone, by `benchmarks.tables`."""
        return [EXPECTED] if self.params.trees else []

    def sample(self, rows: np.ndarray) -> pd.DataFrame:
        """At most `SAMPLED` of the rows, drawn at random, in order, without the columns left out."""
        features: pd.DataFrame = self.frame.drop(columns=self.params.data.drop, errors="ignore")
        return features.iloc[sample_rows(rows, SAMPLED)].reset_index(drop=True)

    def reference(self) -> pd.DataFrame:
        """Column distributions over a sample of the training rows; with `keep_examples`, the sample itself."""
        sample = self.sample(self.rows["train"])
        return sample if self.params.tracking.keep_examples else distributions_of(sample)

    def tags(self) -> dict[str, str]:
        """Last dates of the training and validation rows."""
        found = {"data.trained_until": self.dates("train"), "data.validated_until": self.dates("valid")}
        return {name: str(dates.max()) for name, dates in found.items() if dates is not None}

    # --- evaluation

    @property
    def judged_as_kept(self) -> bool:
        """Whether the trees may be kept."""
        return bool(self.params.trees and self.params.keep == "best")

    def candidates(
        self, learner: Learner, position: int, activations_of: ActivationsOf, snapshots: Sequence[State]
    ) -> Iterator[Candidate]:
        """The network, the trees, and their average; with a snapshot ensemble also the last weights alone."""
        states = [*snapshots, learner.state()]
        yield Candidate(f"network, {len(states)} snapshots" if snapshots else "network", states, position)
        if snapshots:
            yield Candidate("network, the last weights alone", states[-1:], position, ablated="snapshots")
        if self.params.trees:
            yield Candidate("network and trees", states, position, {"trees": self.trees})
            yield Candidate("trees", [], position, {"trees": self.trees})

    def predictions(self, learner: Learner, candidate: Candidate, activations: Activations, split: str) -> np.ndarray:
        """Probabilities (N, C), or values (N, T) in their own scale, float64."""
        return self.answers(learner, candidate, self.encoded(split)[0])

    def evaluate(
        self, learner: Learner, candidate: Candidate, activations: Activations, section: str
    ) -> tuple[Findings, Candidate]:
        """See `unfreeze.models.tables.evaluation.evaluate`."""
        return evaluate(self, learner, candidate, section)

    # --- the model

    def refits(self, candidate: Candidate) -> bool:
        """Whether to refit: as `TrainTables.refit` says, but never a snapshot ensemble."""
        return bool(self.params.refit) and len(candidate.states) <= 1

    def refitted(
        self, candidate: Candidate, results: Sequence[Mapping[str, Any]], workspace: Workspace
    ) -> tuple[Candidate, str]:
        """Refit on all rows: as many trees as before, with the network after one more cycle; alone it is retrained.

        The encoder is kept, so categories found only in validation rows are still unseen.
        """
        whole, parts = self.with_all_rows(), dict(candidate.parts)
        if (trees := parts.get("trees")) is None:
            states = [*trained_again(whole, results, workspace)][-1:]
        else:
            states = [trained_on(whole, state, results, REFIT_LR) for state in candidate.states]
            parts["trees"] = whole.fit_trees(len(self.rows["train"]), lengths=trees.lengths)
        return replace(candidate, states=states, parts=parts, judged=candidate), "all of it"

    def save(self, folder: Path, candidate: Candidate) -> None:
        """Write weights, encoder, spec, joined tables and calendar."""
        if candidate.judged is not None:
            self.save(folder / JUDGED, candidate.judged)
        files, data = self.prepared.files, self.params.data
        joins = open_joins(data, [self._file(f"join-{number}") for number in range(len(data.join))])
        calendar = Calendar.load(self._file("calendar"), data) if "calendar" in files else None
        trees = candidate.parts.get("trees")
        model = (candidate.states, self.params, self.encoder, joins, self.raw, calendar, trees)
        save_table_model(folder, *model, candidate.calibration)

    def example(self) -> pd.DataFrame:
        """Rows with the columns required to predict; synthetic unless real data may be kept."""
        main = open_table(self._file("main"))
        raw = main.select(self.raw.needed).slice(0, 100).to_pandas()
        rows = raw.head(3) if self.params.tracking.keep_examples else example_rows(raw, self.params.data)
        return rows.rename(columns=names_in_file(main))

    def summary(self, candidate: Candidate, metrics: Mapping[str, float]) -> str:
        """Source, kept model and its metrics."""
        shown = ", ".join(f"{key} {value:.4g}" for key, value in metrics.items() if key.startswith("valid/"))
        refitted = " (then refitted on training and validation rows)" if candidate.judged else ""
        return f"{self.params.data.source}; {candidate.title}: {shown}{refitted}"
